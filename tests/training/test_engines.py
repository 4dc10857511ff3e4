"""DDP, FSDP2 and DeepSpeed's three stages train as one process does, and go on from each other's checkpoints."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from omnichat.checkpoint import tensors_sha256
from omnichat.run_folder import SKIPPED_FILE
from tests.training.engines_job import CLIPS, run, run_sgd
from tests.training.two_processes import run_job

JOB = Path(__file__).with_name("engines_job.py")
ENGINES = ["ddp", "fsdp", "deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_3"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs: of one process here, of two processes in one job."""
    pytest.importorskip("deepspeed")
    out = tmp_path_factory.mktemp("engines")
    run(out, "one", "trainer.micro_batch=8", "trainer.max_steps=4")
    run_sgd(out, "one", "trainer.micro_batch=8")
    printed = run_job(JOB, str(out), *ENGINES, timeout=280)
    (out / "printed.txt").write_text(printed)
    return out


def losses(run_dir: Path, name: str = "loss/total") -> list[float]:
    """Of every step, in order; or another metric, where it is written."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def saved(run_dir: Path, step: int, *stems: str) -> dict[str, Tensor]:
    """Tensors of a checkpoint's files."""
    folder = run_dir / "checkpoints" / str(step)
    return {name: tensor for stem in stems for name, tensor in load_file(folder / f"{stem}.safetensors").items()}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], allowed: float) -> None:
    """Equal names, and a relative difference of norms for each tensor."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        difference = (found[name] - tensor).norm() / tensor.norm().clamp(min=1e-8)
        assert difference <= allowed, (name, float(difference))


def moved(run_dir: Path, step: int) -> dict[str, Tensor]:
    """What this step did to each weight."""
    before, after = (saved(run_dir, number, "mixformer", "adapter") for number in (step - 1, step))
    return {name: tensor - before[name] for name, tensor in after.items()}


@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_are_those_of_one_process(runs: Path, engine: str, kind: str) -> None:
    """A division too many (by ranks, by micro-batches, by both) or a clip of one rank's own norm shows in the steps."""
    one, found = runs / f"one_{kind}", runs / f"{engine}_{kind}"
    assert losses(found) == pytest.approx(losses(one), rel=1e-5)
    for name in ("grad_norm/mixformer", "grad_norm/lora"):
        norms = losses(found, name)
        assert norms == ([] if "deepspeed" in engine else pytest.approx(losses(one, name), rel=1e-4))
    expected, steps = moved(one, 2), moved(found, 2)
    assert steps.keys() == expected.keys()
    # The self-attention of a single query has no gradient but that of rounding.
    whole = torch.stack([tensor.norm() for tensor in expected.values()]).norm()
    for name, tensor in expected.items():
        assert (steps[name] - tensor).norm() <= 1e-4 * tensor.norm() + 1e-5 * whole, name
    norm = sum(losses(one, f"grad_norm/{part}")[1] ** 2 for part in ("mixformer", "lora")) ** 0.5
    length = float(whole) / losses(one, "optim/learning_rate")[1]
    assert norm > 0.2
    assert length == pytest.approx(0.2 if kind == "clipped" else norm, rel=1e-3)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_that_is_not_finite_on_one_rank_is_left_out_on_all(runs: Path, engine: str) -> None:
    """Taken, it destroys all weights; left out by one rank alone, or without a word, ranks or records drift apart."""
    run_dir = runs / f"{engine}_spoilt"
    first, second, third = (saved(run_dir, step, "mixformer", "adapter", "optimizer") for step in (1, 2, 3))
    assert tensors_sha256(second) == tensors_sha256(first)
    assert all(tensor.isfinite().all() for tensor in third.values())
    assert {float(tensor) for name, tensor in third.items() if name.endswith(".step")} == {2.0}
    assert losses(run_dir, "optim/skipped") == [0, 1, 0]
    assert losses(run_dir)[2] < losses(run_dir)[0]
    records = [json.loads(line) for line in (run_dir / SKIPPED_FILE).read_text().splitlines()]
    assert sorted((record["step"], record["rank"]) for record in records) == [(2, 0), (2, 1)]
    assert sorted(index for record in records for index in record["indices"]) == list(range(8, 16))


@pytest.mark.parametrize("engine", ENGINES)
def test_optimizers_hold_the_moments_of_what_is_trained_and_no_more(runs: Path, engine: str) -> None:
    """Moments of the frozen language model would be four times its memory."""
    tensors = saved(runs / engine, 2, "mixformer", "adapter")
    assert all(name.startswith("mixformer.") or ".lora_" in name for name in tensors)
    moments = 2 * sum(tensor.numel() for tensor in tensors.values())
    held = json.loads((runs / engine / "held.json").read_text())
    if engine == "ddp":
        assert held == 2 * moments
    else:  # shards are filled up to equal sizes
        assert moments <= held <= 1.1 * moments


def test_what_is_counted_does_not_depend_on_where_the_weights_are(runs: Path) -> None:
    """ZeRO-3 leaves empty tensors behind: disk that is needed, and arithmetic that is done, would not be counted."""
    sizes = re.findall("a checkpoint takes ([^,]+),", (runs / "printed.txt").read_text())
    assert len(sizes) == len(ENGINES)
    assert len(set(sizes)) == 1
    counts = []
    for engine in ENGINES:
        rates, seconds = (losses(runs / engine, f"perf/{name}") for name in ("tflops_per_s", "seconds"))
        counts.append([rate * second for rate, second in zip(rates[:2], seconds[:2], strict=True)])
    assert all(one == pytest.approx(counts[0], rel=1e-6) for one in counts)


@pytest.mark.parametrize("engine", ENGINES)
def test_losses_are_those_of_one_process_also_after_going_on_with_another_engine(runs: Path, engine: str) -> None:
    """Moments, their step and the float32 weights have to survive the way from one engine's shards to another's."""
    assert losses(runs / engine) == pytest.approx(losses(runs / "one"), rel=1e-4)
    validated = losses(runs / "one", "validation/total")
    assert len(validated) == 2
    assert losses(runs / engine, "validation/total") == pytest.approx(validated, rel=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_checkpoint_holds_the_same_whatever_the_engine(runs: Path, engine: str) -> None:
    """Shards are gathered, and nothing frozen comes along: names, shapes and moments are those of one process."""
    for stem in ("mixformer", "adapter", "optimizer"):
        found, expected = saved(runs / engine, 2, stem), saved(runs / "one", 2, stem)
        assert {name: tensor.shape for name, tensor in found.items()} == {
            name: tensor.shape for name, tensor in expected.items()
        }
        if stem == "optimizer":
            steps = {float(tensor) for name, tensor in found.items() if name.endswith(".step")}
            assert steps == {2.0}
            assert_close(
                {name: tensor for name, tensor in found.items() if name.endswith(".exp_avg")},
                {name: tensor for name, tensor in expected.items() if name.endswith(".exp_avg")},
                1e-3,
            )

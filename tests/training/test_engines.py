"""DDP, FSDP2 and DeepSpeed's three stages train as one process does, and go on from each other's checkpoints."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from omnichat.config import load_config
from omnichat.training import module
from omnichat.training.fit import fit
from tests.training.engines_job import QUICK, plain_sgd

JOB = Path(__file__).with_name("engines_job.py")
ENGINES = ["ddp", "fsdp", "deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_3"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs: of one process here, of two processes in one job."""
    pytest.importorskip("deepspeed")
    out = tmp_path_factory.mktemp("engines")
    one = ("trainer.micro_batch=8", "trainer.max_steps=4")
    assert fit(load_config(*QUICK, *one), out / "one") == 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "build_optimizer", plain_sgd)
        assert fit(load_config(*QUICK, "trainer.micro_batch=8", "trainer.max_steps=2"), out / "one_sgd") == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "DS_ACCELERATOR": "cpu",
    }
    ran = subprocess.run(
        [*command, str(JOB), str(out), *ENGINES], capture_output=True, text=True, timeout=280, env=environment
    )
    assert ran.returncode == 0, ran.stderr[-8000:]
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


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_are_those_of_one_process(runs: Path, engine: str) -> None:
    """A division too many (by ranks, by micro-batches, by both) or a clip of one rank's own norm shows in the steps."""
    one = runs / "one_sgd"
    assert losses(runs / f"{engine}_sgd") == pytest.approx(losses(one), rel=1e-5)
    for name in ("grad_norm/mixformer", "grad_norm/lora"):
        norms = losses(runs / f"{engine}_sgd", name)
        assert norms == ([] if "deepspeed" in engine else pytest.approx(losses(one, name), rel=1e-4))
    assert losses(one, "grad_norm/lora")
    start = saved(runs / "one", 2, "mixformer")  # another point of the same model, to take a step's size from
    for stem in ("mixformer", "adapter"):
        assert_close(saved(runs / f"{engine}_sgd", 2, stem), saved(one, 2, stem), 1e-5)
    moved = [(saved(one, 2, "mixformer")[name] - tensor).norm() for name, tensor in start.items()]
    assert torch.stack(moved).max() > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_losses_are_those_of_one_process_also_after_going_on_with_another_engine(runs: Path, engine: str) -> None:
    """Moments, their step and the float32 weights have to survive the way from one engine's shards to another's."""
    assert losses(runs / engine) == pytest.approx(losses(runs / "one"), rel=1e-4)


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

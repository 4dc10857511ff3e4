"""In bfloat16 every engine trains as one process does, on float32 weights, and goes on from them as they were."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from omnichat.checkpoint import tensors_sha256
from omnichat.config import load_config
from omnichat.training.fit import fit
from tests.training.bf16_job import BF16
from tests.training.engines_job import EACH_STEP, QUICK, run_sgd
from tests.training.test_engines import losses, moved, saved
from tests.training.two_processes import run_job

TRAINED = ("mixformer", "adapter")
JOB = Path(__file__).with_name("bf16_job.py")
# One engine that reduces float32 gradients and one that holds shards of float32 weights stand for the others.
GROUPS = [
    pytest.param(("ddp", "deepspeed_stage_2"), id="ddp-deepspeed_stage_2"),
    pytest.param(("fsdp", "deepspeed_stage_1", "deepspeed_stage_3"), id="others", marks=pytest.mark.full),
]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of one process, in bfloat16 and in float32."""
    out = tmp_path_factory.mktemp("one")
    run_sgd(out, "bf16", "trainer.micro_batch=8", *BF16, kinds=["unclipped"])
    run_sgd(out, "fp32", "trainer.micro_batch=8", kinds=["unclipped"])
    return out


@pytest.fixture(scope="module", params=GROUPS)
def job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[str, ...], Path]:
    """Some engines, and where their runs of two processes lie."""
    pytest.importorskip("deepspeed")
    out = tmp_path_factory.mktemp("engines")
    run_job(JOB, str(out), *request.param, timeout=280)
    return request.param, out


def length(tensors: dict[str, Tensor]) -> float:
    """Norm of all tensors together."""
    return float(torch.stack([tensor.norm() for tensor in tensors.values()]).norm())


def test_gradients_are_those_of_one_process(one: Path, job: tuple[tuple[str, ...], Path]) -> None:
    """A division too many, a micro-batch left out or weights rounded after a step show beside what rounding does."""
    expected, exact = (moved(one / f"{name}_unclipped", 2) for name in ("bf16", "fp32"))
    whole = length(expected)
    rounding = length({name: tensor - exact[name] for name, tensor in expected.items()})
    assert 0.002 * whole < rounding < 0.03 * whole  # bfloat16 rounds by up to 2^-8 = 0.004
    engines, out = job
    for engine in engines:
        found = moved(out / f"{engine}_unclipped", 2)
        assert losses(out / f"{engine}_unclipped") == pytest.approx(losses(one / "bf16_unclipped"), rel=2e-4), engine
        assert found.keys() == expected.keys()
        assert length({name: tensor - expected[name] for name, tensor in found.items()}) <= rounding, engine
        assert length(found) == pytest.approx(whole, rel=0.01), engine
        for name, tensor in expected.items():
            assert (found[name] - tensor).norm() <= 0.05 * tensor.norm() + 1e-3 * whole, (engine, name)


def test_layers_compute_in_bfloat16_and_weights_are_float32(job: tuple[tuple[str, ...], Path]) -> None:
    """A step is far less than a bfloat16 weight's last digit: without float32 weights most steps would be lost."""
    engines, out = job
    for engine in engines:
        # DeepSpeed rounds its float32 weights to those that the model computes with.
        trained = "torch.bfloat16" if "deepspeed" in engine else "torch.float32"
        noted = json.loads((out / f"{engine}.json").read_text())
        assert noted == {"computed": ["torch.bfloat16"], "trained": [trained]}, engine
        tensors = saved(out / f"{engine}_whole", 4, *TRAINED, "optimizer")
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}, engine
        weights = torch.cat([tensor.flatten() for tensor in saved(out / f"{engine}_whole", 4, *TRAINED).values()])
        # Biases that nothing moves are zeros in any format.
        assert (weights == weights.bfloat16()).float().mean() < 0.05, engine


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(job: tuple[tuple[str, ...], Path]) -> None:
    """Float32 weights that came back rounded would train on, a little worse after each stop."""
    engines, out = job
    for engine in engines:
        whole, stopped = (saved(out / f"{engine}_{how}", 4, *TRAINED, "optimizer") for how in ("whole", "stopped"))
        assert tensors_sha256(stopped) == tensors_sha256(whole), engine


def test_weights_that_lose_small_steps_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At a recipe's learning rate three of four weights would stay as they are, and nothing else would show it."""
    small = ("trainer.learning_rate=3.0e-5", "trainer.max_steps=2")
    for precision in ("bf16-mixed", "bf16-true"):
        assert fit(load_config(*QUICK, *EACH_STEP, *small, f"trainer.precision={precision}"), tmp_path / precision) == 0
        told = "use bf16-mixed" in capsys.readouterr().out
        steps = torch.cat([tensor.flatten() for tensor in moved(tmp_path / precision, 2).values()])
        assert told == ((steps == 0).float().mean() > 0.5) == (precision == "bf16-true")

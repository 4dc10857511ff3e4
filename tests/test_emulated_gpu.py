"""The tests marked `gpu`, on a GPU that is emulated on the CPU (tests/emulated_gpu/plugin.py says what that shows)."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulated_gpu.library import COMPILER

pytestmark = pytest.mark.skipif(COMPILER is None, reason="g++ builds the emulation's C++ part, and is not installed")
ROOT = Path(__file__).parents[1]

REFUSALS = """
import tests.emulated_gpu.plugin
import torch

def refused(action):
    try:
        action()
    except RuntimeError as error:
        return type(error).__name__

x = torch.arange(4.0, device="cuda", requires_grad=True)
(x * 2).sum().backward()
assert x.grad.is_cuda and x.grad.tolist() == [2, 2, 2, 2]
assert refused(lambda: x + torch.ones(4)) == "RuntimeError"
assert refused(lambda: x * torch.tensor(2.0)) is None
waits = {
    "item": lambda: x.sum().item(),
    "list": lambda: x.tolist(),
    "if": lambda: bool(x.sum() > 0),
    "mask": lambda: x[x > 1],
    "to the host": lambda: x.cpu(),
    "to the device": lambda: torch.ones(4).cuda(),
    "made on the host": lambda: torch.tensor([1.0, 2.0], device="cuda"),
    "places on the host": lambda: x[torch.tensor([0, 1])],
}
free = {
    "copy": lambda: torch.ones(4).to("cuda", non_blocking=True),
    "back": lambda: x.detach().to("cpu", non_blocking=True),
    "made there": lambda: torch.zeros(4, device="cuda") + x,
}
torch.cuda.set_sync_debug_mode("error")
assert {name: refused(wait) for name, wait in waits.items()} == dict.fromkeys(waits, "Waited")
assert {name: refused(step) for name, step in free.items()} == dict.fromkeys(free)
torch.cuda.set_sync_debug_mode("default")
assert {name: refused(wait) for name, wait in waits.items()} == dict.fromkeys(waits)
"""


SMOKE = (
    "recipe=smoke",
    "trainer.accelerator=gpu",
    "trainer.precision=bf16-mixed",
    "trainer.max_steps=2",
    "trainer.validate_every=0",
    "data.made_up=8",
    "preflight=off",
)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python from the repository's root."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=280)


def test_what_a_gpu_refuses_is_refused() -> None:
    """An emulation that lets a wait or a mix of devices pass would let the tests below pass for nothing."""
    ran = python("-c", REFUSALS)
    assert ran.returncode == 0, ran.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["tests/models", "tests/training"])
def test_the_tests_marked_gpu_pass(folder: str) -> None:
    """Fails when what runs on a GPU only, mixed precision with a fused update or a flash call, breaks."""
    ran = python("-m", "pytest", "-q", "-p", "tests.emulated_gpu.plugin", "-p", "no:cacheprovider", "-m", "gpu", folder)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    summary = ran.stdout.splitlines()[-1]
    assert int(re.findall(r"(\d+) passed", summary)[0]) >= 4
    assert "skipped" not in summary


@pytest.mark.full
def test_two_gpus_give_the_losses_of_one(tmp_path: Path) -> None:
    """Fails when gradients are not averaged over GPUs, or what a rank makes lies on another's device."""
    losses = []
    for count, job in ((1, ()), (2, ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"))):
        run_dir = tmp_path / str(count)
        program = ("-m", "tests.emulated_gpu", "train.py", *SMOKE, f"hydra.run.dir={run_dir}")
        ran = python(*job, *program, f"trainer.devices={count}", *(["trainer.strategy=ddp"] if count > 1 else []))
        assert ran.returncode == 0, ran.stderr[-8000:]
        lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        losses.append([line["loss/total"] for line in lines])
    assert len(losses[0]) == 2
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)

"""The benchmark at full size, tried at a toy size on a CPU: a device's time is too dear to find a typing error with."""

import dataclasses
import subprocess
import sys

import pytest
import torch

from benchmarks.gpu.report import is_equal, text
from benchmarks.gpu.run import ARMS, COMPILED, EAGER, EXPERTS, PAD30, PLAIN, SALMONN, SHARED, Found, Options, run
from benchmarks.gpu.scale import TOY

OPTIONS = Options(TOY, torch.device("cpu"), dialogues=2, plain_micro=1, salmonn_micro=1, warmup=0, steps=1, workers=0)
OPTIONS = dataclasses.replace(OPTIONS, arms=(ARMS[0], "no such arm", *ARMS[1:]))


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes a minute on a CPU, and says nothing about the script."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


def test_every_arm_runs_and_those_of_one_function_agree(eager: None) -> None:
    """Fails when an arm cannot run, trains on other targets, slots, frames or weights, or ends the run by failing."""
    torch.set_num_threads(1)
    said: list[str] = []
    found = run(OPTIONS, said.append)
    assert list(found.failed) == ["no such arm"], "\n".join(said)
    assert {*ARMS} < {*found.timings}
    assert {"whisper", "emotion2vec", "beats"} <= {*found.timings[EXPERTS].stages}
    assert found.experts["whisper pad30, as it is"].padded > 2 > found.experts["whisper trim, as it is"].padded >= 1
    assert all(one.gap < 0.02 for one in found.experts.values()), found.experts
    assert {EAGER, COMPILED, SHARED, PAD30} < {*found.gaps}
    assert all(is_equal(found, name) for name in found.gaps), found.gaps
    assert found.micro_batches[SALMONN] == found.micro_batches[PLAIN] == 2
    assert found.flops[SHARED] < found.flops[EAGER] == found.flops[COMPILED] < found.flops[PAD30]
    report = text(found, OPTIONS, peak=1e12)
    assert "cached step" in report
    assert "loader wait" in report
    assert "NOT EQUAL" not in report
    assert "no such arm: not measured" in report
    assert "beats, layers compiled" in report


def test_arms_that_differ_are_said_to() -> None:
    """Fails when a speed-up over something else passes for a speed-up."""
    report = text(Found(gaps={PLAIN: (1e-4, 0.01), PAD30: (1e-4, 0.1), EAGER: (1e-4, 0.011)}), OPTIONS, peak=None)
    assert f"{PAD30}: 1.0e-04, 1.0e-01 NOT EQUAL" in report
    assert f"{EAGER}: 1.0e-04, 1.1e-02 equal" in report


ABSENT = ("datasets", "deepspeed", "flash_attn", "hydra", "kernels", "librosa", "liger_kernel", "omegaconf", "pyarrow",
          "soundfile", "wandb")  # fmt: skip
BLOCKED = f"""
import sys
sys.modules |= dict.fromkeys({ABSENT!r})
from benchmarks.gpu.__main__ import main
sys.exit(main("--toy --dialogues 2 --steps 1 --warmup 0 --arms 1 4 5 --skip equality experts loader".split()))
"""


def test_it_runs_where_libraries_are_missing() -> None:
    """A device's image has torch, transformers and PEFT; an import of anything else would end the only run there is."""
    ran = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    assert "features, pad30" in ran.stdout

"""GPUs, kernels and compilers: what a config needs and is not here is named; what it does not need is no fault."""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from omnichat.config import RunConfig, load_config
from omnichat.doctor.computing import _attention, computing
from omnichat.doctor.findings import Finding

TURING = SimpleNamespace(name="Tesla T4", major=7, minor=5)
HOPPER = SimpleNamespace(name="H200", major=9, minor=0)


def by_name(found: Iterable[Finding]) -> dict[str, Finding]:
    return {one.name: one for one in found}


def attention(gpu: Any, config: RunConfig | None, used: bool = True) -> Finding:
    (found,) = _attention([gpu], config, used)
    return found


def test_the_attention_is_the_one_that_the_model_would_call() -> None:
    """On an old GPU a run in bfloat16 fails at its first step, after everything was loaded."""
    bf16, full = load_config("recipe=dailytalk"), load_config("recipe=dailytalk", "trainer.precision=32-true")
    assert attention(TURING, bf16).state == "missing"
    assert "trainer.precision=32-true" in attention(TURING, bf16).remedy
    assert attention(TURING, None).state == "doubtful"
    assert (attention(TURING, full).state, "float32" in attention(TURING, full).found) == ("ok", True)
    assert "varlen_attn" in attention(HOPPER, bf16).found
    assert "on a CPU" in attention(HOPPER, bf16, used=False).found


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_asked_for_and_not_here_is_missing() -> None:
    """The rest of the page may be in order, and the run could not start all the same."""
    asked = by_name(computing(load_config("recipe=dailytalk", "trainer.accelerator=gpu")))
    assert asked["trainer.accelerator"].state == "missing"
    assert asked["trainer.accelerator"].remedy == "use trainer.accelerator=auto, or trainer=cpu"
    assert "missing" not in {one.state for one in computing(None)}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_torch_that_cannot_use_the_gpu_is_doubtful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip's default may be PyTorch's build for CPUs, which trains on one core beside an idle GPU and says nothing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert by_name(computing(None))["GPU"].state == "absent"
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    for built, cure in ((None, "CUDA build"), ("13.0", "CUDA_VISIBLE_DEVICES")):
        monkeypatch.setattr(torch.version, "cuda", built)
        gpu = by_name(computing(None))["GPU"]
        assert gpu.state == "doubtful"
        assert cure in gpu.remedy


def test_tools_are_needed_by_what_calls_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found out at the first step, a compiler that is not there costs the loading of everything."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    plain, compiled, sharded = (
        by_name(computing(load_config("recipe=smoke", *keys)))
        for keys in ((), ("trainer.compile=true",), ("trainer.strategy=deepspeed_stage_2", "trainer.devices=1"))
    )
    states = [(one["ninja"].state, one["C++ compiler"].state) for one in (plain, compiled, sharded)]
    assert states == [("absent", "absent"), ("absent", "missing"), ("missing", "absent")]
    (tmp_path / "g++").write_text("#!/bin/sh\n")
    (tmp_path / "g++").chmod(0o755)
    assert by_name(computing(load_config("recipe=smoke", "trainer.compile=true")))["C++ compiler"].state == "ok"

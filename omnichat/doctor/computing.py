"""What computes here: GPUs, attention kernels, and the compilers that some settings call."""

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omnichat.config import RunConfig
from omnichat.doctor.findings import Finding, State, size

HALF = 8.0  # compute capability from which GPUs have bfloat16, and torch's flash kernels: Ampere
CUDA_BUILD = "install PyTorch's CUDA build: its 'Get started' page has the command"


def computing(config: RunConfig | None) -> Iterator[Finding]:
    """GPUs, the attention that would be used, DeepSpeed's and torch.compile's tools; needed where a config says so."""
    try:
        import torch
    except Exception as error:  # a broken install raises whatever its parts raise
        cure = "pip install --force-reinstall -c constraints.txt torch"
        yield Finding("computing", "torch", "missing", f"cannot be imported: {' '.join(str(error).split())}", cure)
        return
    there = torch.cuda.is_available()
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())] if there else []
    used = bool(gpus) and (config is None or config.trainer.accelerator != "cpu")
    yield from _gpus(torch, gpus, config)
    yield from _attention(gpus, config, used)
    yield from _compilers(config, used)


def _gpus(torch: Any, gpus: list[Any], config: RunConfig | None) -> Iterator[Finding]:
    for number, gpu in enumerate(gpus):
        free, total = torch.cuda.mem_get_info(number)
        capability = f"capability {gpu.major}.{gpu.minor}"
        yield Finding(
            "computing", f"GPU {number}", "ok", f"{gpu.name}, {size(free)} of {size(total)} free, {capability}"
        )
    if not gpus:
        built = torch.version.cuda or torch.version.hip
        if shutil.which("nvidia-smi") is None:
            yield Finding("computing", "GPU", "absent", "there is none, and no nvidia-smi")
        elif built is None:
            found = f"nvidia-smi is here, but torch {torch.__version__} is built for CPUs"
            yield Finding("computing", "GPU", "doubtful", found, CUDA_BUILD)
        else:
            found = f"nvidia-smi is here, but torch {torch.__version__} (CUDA {built}) sees no GPU"
            cure = "look at nvidia-smi and CUDA_VISIBLE_DEVICES; a driver older than CUDA's version needs an update"
            yield Finding("computing", "GPU", "doubtful", found, cure)
    if config is not None:
        from omnichat.training.opening import missing_gpus

        for line in missing_gpus(config.trainer):
            key, _, rest = line.partition(": ")
            yield Finding("computing", key, "missing", *rest.split("; ", 1))


def _attention(gpus: list[Any], config: RunConfig | None, used: bool) -> Iterator[Finding]:
    """See `omnichat.models.packed`: torch's own flash kernel, or SDPA; neither flash-attn nor flex attention."""
    half = config is None or config.trainer.precision != "32-true"
    old = [gpu for gpu in gpus if float(f"{gpu.major}.{gpu.minor}") < HALF]
    if used and half and old:
        found = f"{old[0].name} has neither bfloat16 nor torch's flash kernels, which trainer.precision=bf16-* calls"
        state: State = "missing" if config is not None else "doubtful"
        yield Finding("computing", "attention", state, found, "trainer.precision=32-true, or a GPU from Ampere on")
    elif used and half:
        yield Finding("computing", "attention", "ok", "torch's flash kernels (varlen_attn), for all dialogues at once")
    else:
        why = "in float32" if used else "on a CPU"
        yield Finding("computing", "attention", "ok", f"torch's SDPA, a call for each dialogue ({why})")


def _compilers(config: RunConfig | None, used: bool) -> Iterator[Finding]:
    trainer = config.trainer if config is not None else None
    deepspeed = trainer is not None and trainer.strategy.startswith("deepspeed")
    compiles = trainer is not None and (trainer.compile or trainer.compile_experts)
    beside = shutil.which("ninja", path=str(Path(sys.executable).parent))  # of the environment that is not activated
    ninja = shutil.which("ninja") or ""
    cure = f"activate the environment: {beside} is not on the PATH" if beside else "pip install -e '.[deepspeed]'"
    yield _tool("ninja", ninja, "DeepSpeed builds its parts with it at first use", deepspeed, cure)
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(home) / "bin")) or ""
    cure = "install the CUDA toolkit of torch's version, and set CUDA_HOME"
    found = _tool("nvcc", nvcc, "DeepSpeed's own kernels are built by it", False, cure)
    yield Finding(found.area, found.name, "doubtful", found.found, cure) if deepspeed and used and not nvcc else found
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), "")
    cure = "install g++, or trainer.compile=false trainer.compile_experts=false"
    yield _tool("C++ compiler", compiler, "torch.compile calls it", compiles, cure)
    if used:
        triton = "triton" if find_spec("triton") else ""
        yield _tool("triton", triton, "torch.compile's kernels on a GPU", compiles, CUDA_BUILD)


def _tool(name: str, path: str, use: str, needed: bool, cure: str) -> Finding:
    if path:
        return Finding("computing", name, "ok", path)
    return Finding("computing", name, "missing" if needed else "absent", f"is not there; {use}", cure)

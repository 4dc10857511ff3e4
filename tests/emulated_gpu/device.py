"""`torch.cuda` for the emulated GPU."""

import os
import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch

from tests.emulated_gpu.tensors import GPU, Emulation, Waits

NAME = "emulated GPU"


class Event:
    """A moment in the device's work."""

    done = 0.0  # when the device will have done what it was given

    def __init__(self, *_: Any, **__: Any) -> None:
        self.moment = 0.0

    def record(self, *_: Any) -> None:
        """Where the work that was handed over so far ends."""
        self.moment = max(Event.done, time.perf_counter())

    def synchronize(self) -> None:
        """Wait for it."""
        time.sleep(max(0.0, self.moment - time.perf_counter()))

    def elapsed_time(self, later: "Event") -> float:
        """Milliseconds."""
        return 1000 * (later.moment - self.moment)


class Stream:
    """The one there is."""


def sleep_on_device(cycles: int) -> None:
    """Work for the device that takes as many cycles of 2 GHz; the host goes on."""
    Event.done = max(Event.done, time.perf_counter()) + cycles / 2e9


def emulate() -> None:
    """Have this process find one GPU, from now on and for good."""
    cuda: Any = torch.cuda
    answers = {
        "is_available": True,
        "is_initialized": True,
        "is_bf16_supported": True,
        "device_count": int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        "current_device": GPU.index,
        "get_device_capability": (9, 0),
        "get_device_name": NAME,
        "get_device_properties": SimpleNamespace(name=NAME, total_memory=80 * 2**30, major=9, minor=0),
        "mem_get_info": (70 * 2**30, 80 * 2**30),
        "max_memory_allocated": 0,
        "max_memory_reserved": 0,
        "memory_allocated": 0,
        "synchronize": None,
        "empty_cache": None,
        "init": None,
        "set_device": None,
        "reset_peak_memory_stats": None,
        "_lazy_init": None,
    }
    for name, answer in answers.items():
        setattr(cuda, name, lambda *_, answer=answer, **__: answer)
    cuda._sleep = sleep_on_device
    cuda.Event = Event
    cuda.set_sync_debug_mode = Waits.set
    cuda.get_sync_debug_mode = lambda: ("default", "warn", "error").index(Waits.mode)
    torch.Tensor.pin_memory = lambda self, *_: self  # type: ignore[assignment, method-assign]  # all memory is as good
    # Inference mode hands over operations that are not taken apart, and forbids the aliases that stand for views here.
    torch.inference_mode = lambda mode=True: torch.set_grad_enabled(not mode)  # type: ignore[assignment, misc]
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") is made on the host, then copied
    cuda.Stream = Stream
    cuda.stream = lambda _: nullcontext()
    cuda.current_stream = lambda *_: Stream()
    _emulate_nccl()
    Emulation().__enter__()
    assert torch.ones(1).to(GPU).is_cuda


def _emulate_nccl() -> None:
    """Processes talk through gloo, which is given the numbers on the CPU."""
    distributed: Any = torch.distributed
    begin = distributed.init_process_group

    def init_process_group(backend: str | None = None, *given: Any, **named: Any) -> None:
        named.pop("device_id", None)
        begin("gloo" if backend == "nccl" else backend, *given, **named)

    distributed.init_process_group = init_process_group

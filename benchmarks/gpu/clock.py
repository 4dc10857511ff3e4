"""Time on the device, by stages, and what the device can do at most."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


class Clock:
    """Marks moments in a step's work; on a GPU by events in its stream, so that nothing has to be waited for."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.marks: list[tuple[str, Any]] = []

    def mark(self, stage: str) -> None:
        """The stage of this name ends here; it began at the mark before."""
        if self.cuda:
            moment = torch.cuda.Event(enable_timing=True)
            moment.record()
        else:
            moment = time.perf_counter()
        self.marks.append((stage, moment))

    def seconds(self) -> dict[str, float]:
        """Seconds of each stage, the stages of all micro-batches added up; the first mark only begins."""
        if self.cuda:
            torch.cuda.synchronize()
        spent: dict[str, float] = defaultdict(float)
        for (_, before), (stage, after) in zip(self.marks, self.marks[1:], strict=False):
            spent[stage] += before.elapsed_time(after) / 1e3 if self.cuda else after - before
        return dict(spent)


@dataclass(frozen=True)
class Timing:
    """What timed steps of an arm took.

    Attributes:
        seconds: of each step.
        stages: seconds of each stage, the median over steps.
        peak_bytes: the most that was allocated on the device; 0 on a CPU.
        reserved_bytes: the most that torch held of the device.
    """

    seconds: tuple[float, ...]
    stages: dict[str, float]
    peak_bytes: int
    reserved_bytes: int

    @property
    def median(self) -> float:
        """The middle step."""
        return statistics.median(self.seconds)


def time_steps(run: Callable[[int, Clock], object], warmup: int, count: int, device: torch.device) -> Timing:
    """Call `run` with the number of the step and a clock; the device is waited for after the last step only."""
    for number in range(warmup):
        run(number, Clock(device))
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    clocks = []
    for number in range(warmup, warmup + count):
        clock = Clock(device)
        clock.mark("start")
        run(number, clock)
        clocks.append(clock)
    found = [clock.seconds() for clock in clocks]
    stages = {stage: statistics.median(spent.get(stage, 0.0) for spent in found) for stage in found[0]}
    cuda = device.type == "cuda"
    return Timing(
        tuple(sum(spent.values()) for spent in found),
        stages,
        torch.cuda.max_memory_allocated() if cuda else 0,
        torch.cuda.max_memory_reserved() if cuda else 0,
    )


class Hooks:
    """Marks the ends of parts of a model while a `with` lasts."""

    def __init__(self, clock: Clock, before: dict[str, nn.Module], after: dict[str, nn.Module]) -> None:
        self.clock, self.before, self.after = clock, before, after
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        for stage, module in self.before.items():
            self.handles.append(module.register_forward_pre_hook(lambda *_, stage=stage: self.clock.mark(stage)))
        for stage, module in self.after.items():
            self.handles.append(module.register_forward_hook(lambda *_, stage=stage: self.clock.mark(stage)))

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()


def matmul_flops(device: torch.device, size: int = 8192) -> float:
    """FLOP/s of a bfloat16 product of two random square matrices, the median of ten."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / time_steps(lambda number, clock: (a @ b, clock.mark("product")), 3, 10, device).median


def copy_bandwidth(device: torch.device, size: int = 2**32) -> float:
    """Bytes/s of a copy on the device, read and written, the median of ten."""
    source = torch.randint(0, 256, (size,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * size / time_steps(lambda number, clock: (target.copy_(source), clock.mark("copy")), 3, 10, device).median

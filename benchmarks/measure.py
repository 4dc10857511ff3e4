"""How arms are compared: first shown equal, then timed in turns, and their peak memory counted.

An arm does one job from its inputs to gradients or updated weights. Times are CPU time of the process, so that other
work on the machine counts little; arms take turns, so that a slow spell meets all of them.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

TOLERANCE = 1e-5  # of the loss, and of each tensor's gradient, relative; float32
# A gradient below this share of the whole gradient's norm is zero but for float32's rounding: with one query per
# window, softmax runs over one key, and the self-attention's query and key change nothing.
ROUNDING = 1e-7


class NotEqualError(Exception):
    """Arms that should compute one function do not: timing them would say nothing."""


@dataclass(frozen=True)
class Outcome:
    """What an arm computed: its loss, and the gradient of each trainable tensor by name."""

    loss: float
    gradients: Mapping[str, Tensor]


@dataclass(frozen=True)
class Difference:
    """How far an arm is from its reference.

    Attributes:
        arm: its name.
        reference: the arm it is compared to.
        loss: |a - b| / |b|.
        gradient: the largest ||a - b|| / ||b|| over all tensors, b over the whole gradient where b is only rounding.
        tensor: the one with that largest difference.
    """

    arm: str
    reference: str
    loss: float
    gradient: float
    tensor: str


@dataclass(frozen=True)
class Timing:
    """CPU seconds of each repetition of an arm, and the most bytes of tensors it held beyond what was there before."""

    seconds: tuple[float, ...]
    peak_bytes: int

    @property
    def median(self) -> float:
        """The middle repetition."""
        return statistics.median(self.seconds)


def outcome(loss: Tensor, trainable: Mapping[str, Tensor]) -> Outcome:
    """Take the gradients of a loss and leave none behind.

    Raises:
        NotEqualError: a tensor got no gradient, which would make any comparison of it vain.
    """
    gradients = torch.autograd.grad(loss, list(trainable.values()), allow_unused=True)
    for name, gradient in zip(trainable, gradients, strict=True):
        if gradient is None:
            raise NotEqualError(f"{name} has no gradient")
    return Outcome(float(loss.detach()), dict(zip(trainable, gradients, strict=True)))


def difference(arm: str, found: Outcome, reference: str, expected: Outcome) -> Difference:
    """Compare an arm to its reference.

    Raises:
        NotEqualError: the arms train different tensors.
    """
    if found.gradients.keys() != expected.gradients.keys():
        names = sorted(found.gradients.keys() ^ expected.gradients.keys())
        raise NotEqualError(f"{arm} and {reference} train different tensors: {', '.join(names[:5])}")
    norms = {name: float(gradient.norm()) for name, gradient in expected.gradients.items()}
    whole = math.hypot(*norms.values())
    scales = {name: norm if norm > ROUNDING * whole else whole for name, norm in norms.items()}
    distances = {
        name: float((found.gradients[name] - gradient).norm()) / scales[name]
        for name, gradient in expected.gradients.items()
    }
    worst = max(distances, key=lambda name: math.inf if math.isnan(distances[name]) else distances[name])
    loss = abs(found.loss - expected.loss) / abs(expected.loss)
    return Difference(arm, reference, loss, distances[worst], worst)


def require_equal(arm: str, found: Outcome, reference: str, expected: Outcome) -> Difference:
    """The difference, if it is only rounding.

    Raises:
        NotEqualError: loss or gradients differ by more than `TOLERANCE`.
    """
    gap = difference(arm, found, reference, expected)
    if not (gap.loss <= TOLERANCE and gap.gradient <= TOLERANCE):
        raise NotEqualError(
            f"{arm} is not {reference}: the loss differs by {gap.loss:.1e}, the gradient of {gap.tensor} by "
            f"{gap.gradient:.1e} (relative; {TOLERANCE:.0e} is allowed). Nothing is timed"
        )
    return gap


def time_arms(arms: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, Timing]:
    """One warm-up of each arm, in which its memory is counted, then `repetitions` rounds in which each has one turn."""
    peaks = {name: peak_bytes(run) for name, run in arms.items()}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(repetitions):
        for name, run in arms.items():
            gc.collect()
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return {name: Timing(tuple(seconds[name]), peaks[name]) for name in arms}


def peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes that torch's CPU allocator held during `run` beyond what it held before.

    Every allocation and release is counted, so the figure does not depend on what malloc keeps. Weights and inputs are
    not in it, as they are there before; nor are numpy arrays and the matrix library's own buffers.
    """
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    assert profiler.profiler is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def trainable_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters by name, without the prefix that PEFT's wrapper puts in."""
    return {
        name.replace("base_model.model.", ""): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }

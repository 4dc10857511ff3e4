"""What each expert costs by itself, and what changes that: the clips of a step, in the groups that training makes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.clock import Clock, time_steps
from omnichat.models.encoders import Encoder, base
from omnichat.models.layers import compile_layers
from omnichat.training.flops import encoder_flops

AS_IT_IS, COMPILED = "as it is", "layers compiled"


@dataclass(frozen=True)
class Cost:
    """Of one pass over a step's clips.

    Attributes:
        seconds: the median of several passes.
        flops: that the clips need, without padding.
        padded: samples computed over samples heard.
        gap: how far the frames are from those of the expert as it is, relative.
        kernels: launched on a GPU; 0 on a CPU.
        busy: seconds in which they ran; 0 on a CPU.
    """

    seconds: float
    flops: float
    padded: float
    gap: float
    kernels: int
    busy: float


@contextmanager
def padding_up_to(share: float) -> Iterator[None]:
    """Groups of clips that are padded by more, or less."""
    before = base.MAX_PADDING
    base.MAX_PADDING = share
    try:
        yield
    finally:
        base.MAX_PADDING = before


def cudnn_attention() -> AbstractContextManager[None]:
    """Attention by cuDNN where it can, else as usual."""
    wanted = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    context: AbstractContextManager[None] = sdpa_kernel(wanted, set_priority=True)
    return context


VARIANTS: Mapping[str, Callable[[], AbstractContextManager[object]]] = {
    AS_IT_IS: nullcontext,
    "inference_mode": torch.inference_mode,
    "padded by half at most": lambda: padding_up_to(0.5),
    "padded by an eighth at most": lambda: padding_up_to(0.125),
    "attention by cuDNN": cudnn_attention,
    COMPILED: nullcontext,
}


def cost(expert: Encoder, change: str, waves: Tensor, lengths: Sequence[int], warmup: int, count: int) -> Cost:
    """The expert with one change of `VARIANTS`; (A, S) waves lie on the device, (A,) lengths on the host."""
    usual = expert.encode(waves, lengths)[0].float()

    def run(number: int, clock: Clock) -> None:
        expert.encode(waves, lengths)
        clock.mark("experts")

    compile_layers(expert, change == COMPILED)
    try:
        with VARIANTS[change]():
            seconds = time_steps(run, warmup, count, waves.device).median
            frames = expert.encode(waves, lengths)[0].float()
            kernels, busy = _kernels(expert, waves, lengths) if waves.is_cuda else (0, 0.0)
            padded = expert.padding(lengths, waves.device)
    finally:
        compile_layers(expert, False)
    needed = float(sum(encoder_flops(expert, length) for length in lengths))
    return Cost(seconds, needed, padded, float((frames - usual).norm() / usual.norm()), kernels, busy)


def _kernels(expert: Encoder, waves: Tensor, lengths: Sequence[int]) -> tuple[int, float]:
    """How many kernels a pass launches, and for how many seconds they run."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        expert.encode(waves, lengths)
        torch.cuda.synchronize()
    found = [one for one in profiler.key_averages() if one.self_device_time_total]
    return sum(one.count for one in found), sum(one.self_device_time_total for one in found) / 1e6


def table(found: Mapping[str, Cost], ceiling: float) -> Iterator[str]:
    """One line each."""
    yield (
        f"{'expert, what is changed':<44}{'ms':>8}{'TFLOP':>8}{'of ceiling':>12}{'padded':>8}{'kernels':>9}"
        f"{'busy ms':>9}  gap"
    )
    for name, one in found.items():
        share = f"{one.flops / one.seconds / ceiling:.1%}" if ceiling else "-"
        yield (
            f"{name:<44}{1e3 * one.seconds:>8.1f}{one.flops / 1e12:>8.2f}{share:>12}{one.padded:>8.2f}"
            f"{one.kernels or '-':>9}{f'{1e3 * one.busy:.1f}' if one.busy else '-':>9}  {one.gap:.0e}"
        )

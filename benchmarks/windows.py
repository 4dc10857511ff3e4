"""The Q-Former over all windows of a batch in one call, and window by window."""

import torch
from torch import Tensor

from benchmarks.measure import outcome, require_equal, time_arms, trainable_tensors
from benchmarks.report import Ratio, Report
from benchmarks.workload import Sizes, draw_dialogues
from omnichat.audio import num_frames
from omnichat.models.qformer import WindowedQFormer

LOOP, TOGETHER = "a call for each window", "one call for all windows"


def one_call(qformer: WindowedQFormer, frames: Tensor, lengths: Tensor) -> Tensor:
    """Clips (A, N, D) of the given lengths -> all windows' outputs (windows, K, hidden), in order."""
    windows = -(-lengths // qformer.window)
    output = qformer(frames, lengths)
    return output[torch.arange(output.shape[1]) < windows[:, None]]


def call_per_window(qformer: WindowedQFormer, frames: Tensor, lengths: Tensor) -> Tensor:
    """The same, each window cut out and given to the Q-Former alone."""
    outputs = []
    for clip, length in zip(frames, lengths.tolist(), strict=True):
        for window in clip[:length].split(qformer.window):
            outputs.append(qformer(window[None], torch.tensor([len(window)]))[0, 0])
    return torch.stack(outputs)


def run(repetitions: int, num_dialogues: int, sizes: Sizes) -> Report:
    """Compare one call to a loop, forward and backward.

    Raises:
        NotEqualError: they compute different things.
    """
    torch.manual_seed(0)
    qformer = WindowedQFormer(sizes.width, **sizes.qformer)
    clips = [turn.audio.num_samples for d in draw_dialogues(num_dialogues) for turn in d.turns if turn.audio]
    lengths = torch.tensor([num_frames(samples) for samples in clips])
    frames = torch.randn(len(clips), int(lengths.max()), sizes.width)
    num_windows = int((-(-lengths // qformer.window)).sum())
    weights = torch.randn(num_windows, 1, sizes.width)  # a loss to which every output matters

    def together() -> Tensor:
        return (one_call(qformer, frames, lengths) * weights).sum()

    def loop() -> Tensor:
        return (call_per_window(qformer, frames, lengths) * weights).sum()

    def backward(loss: Tensor) -> None:
        qformer.zero_grad()
        loss.backward()

    trainable = trainable_tensors(qformer)
    equal = [require_equal(TOGETHER, outcome(together(), trainable), LOOP, outcome(loop(), trainable))]
    timings = time_arms({LOOP: lambda: backward(loop()), TOGETHER: lambda: backward(together())}, repetitions)
    return Report(
        title="windowed Q-Former: forward, backward",
        workload={"clips heard": len(clips), "windows": num_windows},
        equal=equal,
        other=[],
        timings=timings,
        ratios=[Ratio(LOOP, TOGETHER, 6.0)],
    )

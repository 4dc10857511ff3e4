"""A training step with SALMONN's shapes, written for comparison (Tang et al., ICLR 2024; `models/salmonn.py`).

Whisper on 30 s for each clip, one Q-Former shared by the experts' frames side by side, 88 windows a clip whatever its
length, padded rows, eager attention, the logits of all positions. What is ours is kind to it: Whisper's attention is
SDPA, the Q-Former is the project's (all windows in one call), and several turns of a dialogue are trained in one pass.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.plain_loop import PaddedBatch, PaddedCollator, load_whisper, plain_llm
from benchmarks.rows import padded_loss
from benchmarks.workload import Checkpoints, Sizes
from omnichat.audio import WINDOW
from omnichat.models.qformer import WindowedQFormer

SALMONN_WINDOWS = 88  # of 17 frames in Whisper's 1,500: the last 4 are dropped (SALMONN models/salmonn.py)


class SalmonnFront(nn.Module):
    """One Q-Former over the experts' frames side by side, 88 windows a clip, and a projection."""

    def __init__(self, widths: Sequence[int], out_dim: int, qformer: Mapping[str, int]) -> None:
        super().__init__()
        self.qformer = WindowedQFormer(sum(widths), window=WINDOW, queries=1, **qformer)
        self.project = nn.Linear(qformer["hidden"], out_dim)

    def forward(self, experts: Sequence[Tensor]) -> Tensor:
        """(A, N, D) of each expert, cut or filled with zeros to 88 windows -> (88 A, out_dim)."""
        size = SALMONN_WINDOWS * WINDOW
        frames = torch.cat([F.pad(x, (0, 0, 0, max(0, size - x.shape[1])))[:, :size] for x in experts], dim=-1)
        lengths = torch.full((len(frames),), size)
        dtype = self.project.weight.dtype
        windows = self.qformer(frames.to(dtype), lengths.to(frames.device, non_blocking=True), lengths)
        projected: Tensor = self.project(windows[:, :, 0])
        return projected.flatten(0, 1)


class SalmonnLoop(nn.Module):
    """The step on a CPU, with Whisper as the only expert."""

    def __init__(self, checkpoints: Checkpoints, sizes: Sizes) -> None:
        super().__init__()
        self.collate = PaddedCollator(windows=SALMONN_WINDOWS)
        self.whisper = load_whisper(checkpoints)
        self.front = SalmonnFront([sizes.width], sizes.width, sizes.qformer)
        self.llm = plain_llm(checkpoints, sizes, attention="eager")

    def forward(self, batch: PaddedBatch) -> Tensor:
        """The mean loss over all targets."""
        with torch.no_grad():
            frames = self.whisper(batch.mel).last_hidden_state
        return padded_loss(self.llm, batch.rows, self.front([frames]))

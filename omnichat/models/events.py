"""What happens at a moment of a conversation, from the same frozen experts and Mix-Former and a small head.

Shapes: A clips, N frames, W windows, K queries, D width, C classes.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from omnichat.models.encoders import Encoder
from omnichat.models.mixformer import MixFormer

HEAD = 32  # width of a window in the head: the order of windows matters, and there are few examples; ours


class EventModel(nn.Module):
    """Classifies clips of one length.

    Args:
        encoders: the frozen experts by name.
        mixformer: has the same experts; its output is as wide as `width`.
        width: of the Mix-Former's output.
        windows: W of every clip.
        classes: C.
    """

    def __init__(
        self, encoders: Mapping[str, Encoder], mixformer: MixFormer, width: int, windows: int, classes: int
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(dict(encoders))
        self.mixformer = mixformer
        self.windows = windows
        self.narrow = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, HEAD), nn.GELU())
        self.classify = nn.Linear(windows * mixformer.queries * HEAD, classes)

    @torch.no_grad()
    def hear(self, waves: Tensor) -> dict[str, Tensor]:
        """(A, S) at 16 kHz, all of one length -> frames (A, N, D) of each expert."""
        lengths = [waves.shape[1]] * len(waves)
        return {name: cast(Encoder, encoder).encode(waves, lengths)[0] for name, encoder in self.encoders.items()}

    def forward(self, frames: Mapping[str, Tensor]) -> Tensor:
        """Frames (A, N, D) of each expert -> logits (A, C).

        Raises:
            ValueError: the clips do not have W windows.
        """
        counts = {name: torch.full((len(one),), one.shape[1], device=one.device) for name, one in frames.items()}
        features = {name: (one, counts[name]) for name, one in frames.items()}
        longest = max(one.shape[1] for one in frames.values())
        mixed = self.mixformer(features, torch.full((len(next(iter(frames.values()))),), longest)).embeds
        if mixed.shape[1] != self.windows:
            raise ValueError(f"clips of {mixed.shape[1]} windows; the head takes {self.windows}")
        logits: Tensor = self.classify(self.narrow(mixed).flatten(1))
        return logits

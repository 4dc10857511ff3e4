"""The Mix-Former: what each expert heard in a window, weighed by a gate, side by side, as LLM embeddings.

OmniChat (ICLR 2025): per expert a windowed Q-Former gives h, a gate w = sigmoid(linear(h)) weighs it, and the weighed
vectors are concatenated and projected. Shapes: A clips, N frames, W windows, K queries, D width, E experts.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from omnichat.models.qformer import WindowedQFormer

Gate = Literal["scalar", "channel", "none"]


class Mixed(NamedTuple):
    """What a Mix-Former gives; of a clip of n frames the first ceil(n / window) windows are its own.

    Attributes:
        embeds: (A, W, K, D), for the language model.
        gates: (A, W, E). A gate per channel is reported by its mean; that of a window in which the expert has no frame
            weighs zeros and says nothing.
        norms: (A, W, E), without gradient: the length of what the expert's Q-Former gives before its gate, the mean
            over queries.
    """

    embeds: Tensor
    gates: Tensor
    norms: Tensor


class MixFormer(nn.Module):
    """Mixes any number of experts.

    Args:
        widths: frame width D by expert name; their order is the order of E.
        out_dim: width of the LLM's embeddings.
        gate: `scalar`, one weight per window and expert, from the mean over its queries; `channel`, one per query and
            channel; `none`, no weights: the paper's "without Mix-Former" with the same shapes.
        qformer: options of `WindowedQFormer`, the same for every expert.

    Raises:
        ValueError: no expert, an unknown gate, or a Q-Former size that cannot be.
    """

    def __init__(self, widths: Mapping[str, int], out_dim: int, gate: Gate = "scalar", **qformer: Any) -> None:
        super().__init__()
        if not widths:
            raise ValueError("the Mix-Former needs at least one expert; name some in model.experts")
        if gate not in get_args(Gate):
            raise ValueError(f"gate {gate!r} is not one of {', '.join(get_args(Gate))}")
        self.gate = gate
        self.widths = dict(widths)
        experts = {name: WindowedQFormer(width, **qformer) for name, width in widths.items()}
        first = next(iter(experts.values()))
        hidden, self.window, self.stride, self.queries = first.hidden, first.window, first.stride, len(first.queries)
        self.experts = nn.ModuleDict(experts)
        gated = () if gate == "none" else tuple(widths)
        self.gates = nn.ModuleDict({name: nn.Linear(hidden, hidden if gate == "channel" else 1) for name in gated})
        self.project = nn.Linear(len(widths) * hidden, out_dim)

    def forward(self, features: Mapping[str, tuple[Tensor, Tensor]], num_frames: Tensor) -> Mixed:
        """Mix the experts' frames of each clip.

        Args:
            features: per expert, frames (A, N, D) and the valid lengths (A,); N may differ between experts.
            num_frames: (A,), the frames that each clip is taken to have, `omnichat.audio.num_frames` of its samples.
                Every expert is padded or cut to it *before* windowing, so that window counts agree. On the CPU: on a
                GPU they would have to be waited for.

        Returns:
            Windows W of the longest clip; see `Mixed`.

        Raises:
            ValueError: an expert is missing from `features`, or its frames have another width.
        """
        self._check(features)
        covered = num_frames.cpu()
        num_frames = covered.to(self.project.weight.device, non_blocking=True)
        heard, gates, norms = [], [], []
        for name, expert in self.experts.items():
            frames, lengths = features[name]
            hidden = expert(frames, torch.minimum(lengths, num_frames), covered)
            weight = self._weight(name, hidden)
            heard.append(hidden * weight)
            gates.append(weight.mean((2, 3)))
            norms.append(torch.linalg.vector_norm(hidden.detach(), dim=-1, dtype=torch.float32).mean(2))
        return Mixed(self.project(torch.cat(heard, dim=-1)), torch.stack(gates, dim=-1), torch.stack(norms, dim=-1))

    def _weight(self, name: str, hidden: Tensor) -> Tensor:
        if self.gate == "none":
            return torch.ones_like(hidden[..., :1])
        return torch.sigmoid(self.gates[name](hidden if self.gate == "channel" else hidden.mean(2, keepdim=True)))

    def _check(self, features: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        missing = [name for name in self.widths if name not in features]
        if missing:
            raise ValueError(
                f"no frames of {', '.join(missing)} were given (given: {', '.join(features) or 'none'}); "
                "the experts of the model and of the features must be the same"
            )
        for name, wanted in self.widths.items():
            width = features[name][0].shape[-1]
            if width != wanted:
                raise ValueError(
                    f"{name}: frames of width {width} were given, the model was made for {wanted}; "
                    "the features come from another checkpoint"
                )

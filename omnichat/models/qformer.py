"""The windowed Q-Former: a few learnt queries read each window of frames, all windows of a batch in one call.

The architecture is SALMONN's (`models/Qformer.py`, branch salmonn, a58bba7): BERT layers, post-norm, with
cross-attention in every layer. Shapes: A clips, N frames, W windows, L frames per window, K queries, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnichat.audio import WINDOW
from omnichat.models.layers import Layers

BERT_EPS = 1e-12  # bert-base-uncased config.json, which SALMONN's Q-Former is built from
BERT_STD = 0.02  # the same file's initializer_range


class WindowedQFormer(nn.Module):
    """Summarises each window of `window` frames in `queries` vectors.

    The default depth and sizes are SALMONN's. Dropout is left out: the same frames always give the same output.

    Args:
        width: D of the frames.
        hidden: width of queries and output.
        layers: self-attention, cross-attention and feed-forward blocks.
        heads: attention heads; divides `hidden`.
        ffn: width inside the feed-forward block.
        window: frames per window.
        queries: K, output vectors per window.
        stride: frames from one window's start to the next; `window` by default.

    Raises:
        ValueError: a size below 1, or `heads` that do not divide `hidden`.
    """

    def __init__(
        self,
        width: int,
        hidden: int = 768,
        layers: int = 2,
        heads: int = 12,
        ffn: int = 3072,
        window: int = WINDOW,
        queries: int = 1,
        stride: int | None = None,
    ) -> None:
        super().__init__()
        stride = window if stride is None else stride
        sizes = {"width": width, "hidden": hidden, "layers": layers, "heads": heads, "ffn": ffn}
        sizes |= {"window": window, "queries": queries, "stride": stride}
        wrong = [f"{name}={size}" for name, size in sizes.items() if size < 1]
        if wrong:
            raise ValueError(f"Q-Former sizes must be at least 1, got {', '.join(wrong)}")
        if hidden % heads:
            raise ValueError(f"Q-Former: heads={heads} must divide hidden={hidden}; change one of them")
        self.hidden, self.window, self.stride = hidden, window, stride
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.zeros(queries, hidden))
        self.query_norm = nn.LayerNorm(hidden, eps=BERT_EPS)
        self.layers = Layers(QFormerLayer(width, hidden, heads, ffn) for _ in range(layers))
        self.apply(_init_bert)
        nn.init.normal_(self.queries, std=BERT_STD)

    def num_windows(self, num_frames: int) -> int:
        """Windows that cover `num_frames` frames, the last possibly partial: ceil(N / window) at the default stride."""
        return 1 + max(0, -(-(num_frames - self.window) // self.stride))

    def forward(self, frames: Tensor, lengths: Tensor, covered: Tensor | None = None) -> Tensor:
        """Frames (A, N, D) with their lengths (A,) -> (A, W, K, hidden).

        Frames beyond a clip's length count for nothing. A window without a valid frame gives zeros, and gradients
        stay finite.

        Args:
            frames: (A, N, D), finite also beyond the lengths.
            lengths: (A,).
            covered: (A,) on the CPU, at least `lengths`, perhaps more than N: the frames that windows are made for; W
                is for the longest. By default `lengths`, W for N; on a GPU the CPU then has to wait for them.
        """
        num_clips, num_frames, _ = frames.shape
        num_windows = self.num_windows(num_frames if covered is None else max(covered.tolist(), default=0))
        covered = (lengths if covered is None else covered).cpu()
        if num_clips and not num_frames:  # an expert without any frame still has windows, of nothing
            frames, num_frames = F.pad(frames, (0, 0, 0, 1)), 1
        places = (torch.arange(num_windows) * self.stride < covered[:, None]).nonzero()
        clip, window = places.to(frames.device, non_blocking=True).unbind(1)
        index = window[:, None] * self.stride + torch.arange(self.window, device=frames.device)
        valid = index < lengths[clip, None]
        heard = valid.any(dim=1, keepdim=True)
        valid = valid | ~heard  # no softmax over nothing: what comes of it is replaced by zeros below
        # LayerNorm works on each frame alone, so it may follow the cut into windows; padding is then never normalised.
        windows = self.norm(frames[clip[:, None], index.clamp(max=num_frames - 1)].to(self.queries.dtype))
        # One row of queries serves all windows: the first self-attention is computed once and broadcast.
        hidden = self.layers(self.query_norm(self.queries)[None], windows, valid)
        hidden = hidden.masked_fill(~heard[..., None], 0.0)
        output = hidden.new_zeros(num_clips * num_windows, *hidden.shape[1:])
        output = output.index_copy(0, clip * num_windows + window, hidden)
        return output.view(num_clips, num_windows, *hidden.shape[1:])


class QFormerLayer(nn.Module):
    """Self-attention, cross-attention to the frames, feed-forward; each with residual, then LayerNorm."""

    def __init__(self, width: int, hidden: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.self_attention = SelfAttention(hidden, heads)
        self.self_norm = nn.LayerNorm(hidden, eps=BERT_EPS)
        self.cross_attention = CrossAttention(width, hidden, heads)
        self.cross_norm = nn.LayerNorm(hidden, eps=BERT_EPS)
        self.up = nn.Linear(hidden, ffn)
        self.down = nn.Linear(ffn, hidden)
        self.ffn_norm = nn.LayerNorm(hidden, eps=BERT_EPS)

    def forward(self, hidden: Tensor, windows: Tensor, valid: Tensor) -> Tensor:
        """Queries (n or 1, K, hidden), windows (n, L, D) with their valid frames (n, L) -> (n, K, hidden)."""
        hidden = self.self_norm(hidden + self.self_attention(hidden))
        hidden = self.cross_norm(hidden + self.cross_attention(hidden, windows, valid))
        return self.ffn_norm(hidden + self.down(F.gelu(self.up(hidden))))


class SelfAttention(nn.Module):
    """Multi-head attention of the queries of a window to each other; its key has no bias, see `CrossAttention`."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.value = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        """(n, K, hidden) -> (n, K, hidden)."""
        query, key, value = (
            project(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.output(attended.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Multi-head attention of the queries of a window to its frames.

    A score is q·(W x) = (W'q)·x, and a mixture of W x is W times the mixture of x. So the key and value projections
    are applied to the few queries instead of the many frames: the same function at a fraction of the work as long as
    there are fewer queries than frames. The key has no bias: it would shift all scores of a query alike, which
    softmax does not see.
    """

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(width, hidden, bias=False)
        self.value = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, hidden)

    def forward(self, hidden: Tensor, windows: Tensor, valid: Tensor) -> Tensor:
        """Queries (n or 1, K, hidden), windows (n, L, D), valid (n, L) -> (n, K, hidden)."""
        query = self.query(hidden).unflatten(-1, (self.heads, -1))
        key = self.key.weight.unflatten(0, (self.heads, -1))
        value = self.value.weight.unflatten(0, (self.heads, -1))
        query = torch.einsum("nkhd,hdw->nhkw", query, key).flatten(1, 2)
        scores = query @ windows.transpose(1, 2) * key.shape[1] ** -0.5
        weights = scores.masked_fill(~valid[:, None], float("-inf")).softmax(-1)
        mixed = (weights @ windows).unflatten(1, (self.heads, hidden.shape[1]))
        attended = torch.einsum("nhkw,hdw->nkhd", mixed, value).flatten(2)
        return self.output(attended + self.value.bias)


def _init_bert(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=BERT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

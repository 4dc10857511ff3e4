"""What torch's variable-length attention computes on a GPU, written out for the CPU, forward and backward.

Shapes: Q queries and K keys of all sequences end to end, H heads, G heads of keys, d width of a head.
"""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


def varlen_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_starts: Tensor,
    key_starts: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool = False,
    scale: float | None = None,
    window_size: list[int] | None = None,
    enable_gqa: bool = False,
    *others: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """(Q, H, d), (K, G, d), (K, G, d) -> (Q, H, d), log-sum-exp (H, Q), and a state that nobody reads."""
    _refuse(query, key, value, query_starts, key_starts, (max_q, max_k), enable_gqa)
    attended, normaliser = torch.empty_like(query), query.new_empty(query.shape[1], len(query), dtype=torch.float32)
    for rows, columns in _sequences(query_starts, key_starts):
        scores = _scores(query[rows], key[columns], scale, is_causal or _causal(window_size))
        attended[rows] = _weighted(scores.softmax(-1), value[columns]).to(query.dtype)
        normaliser[:, rows] = scores.logsumexp(-1)
    return attended, normaliser, torch.zeros(2, dtype=torch.uint64)


def varlen_attention_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attended: Tensor,
    normaliser: Tensor,
    query_starts: Tensor,
    key_starts: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool,
    state: Tensor,
    scale: float | None = None,
    window_size: list[int] | None = None,
    *others: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    found = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
    groups = query.shape[1] // key.shape[1]
    factor = _factor(query, scale)
    for rows, columns in _sequences(query_starts, key_starts):
        weights = _scores(query[rows], key[columns], scale, is_causal or _causal(window_size)).softmax(-1)
        upstream, output = (x[rows].float().transpose(0, 1) for x in (gradient, attended))
        keys, values = (x[columns].float().transpose(0, 1).repeat_interleave(groups, 0) for x in (key, value))
        error = weights * (upstream @ values.transpose(1, 2) - (upstream * output).sum(-1, keepdim=True)) * factor
        found[0][rows] = (error @ keys).transpose(0, 1).to(query.dtype)
        to_key = error.transpose(1, 2) @ query[rows].float().transpose(0, 1)
        to_value = weights.transpose(1, 2) @ upstream
        for place, whole in ((found[1], to_key), (found[2], to_value)):
            place[columns] = whole.unflatten(0, (-1, groups)).sum(1).transpose(0, 1).to(place.dtype)
    return found


def _refuse(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_starts: Tensor,
    key_starts: Tensor,
    longest: tuple[int, int],
    grouped: bool,
) -> None:
    """What the GPU's kernel does not take, or would read past the end of."""
    assert query.dtype == key.dtype == value.dtype, "one type"
    assert query.dtype in (torch.float16, torch.bfloat16), "half precision"
    assert query.shape[1] == key.shape[1] or grouped, "as many heads"
    for x, starts, length in ((query, query_starts, longest[0]), (key, key_starts, longest[1])):
        assert x.ndim == 3
        assert x.stride(-1) == 1
        assert starts.dtype == torch.int32
        assert int(starts[0]) == 0
        assert int(starts[-1]) == len(x)
        assert int(starts.diff().max()) <= length, "a sequence longer than was said"


def _causal(window: list[int] | None) -> bool:
    assert window in (None, [-1, -1], [-1, 0]), "no other window is emulated"
    return window == [-1, 0]


def _sequences(query_starts: Tensor, key_starts: Tensor) -> list[tuple[slice, slice]]:
    pairs = zip(pairwise(query_starts.tolist()), pairwise(key_starts.tolist()), strict=True)
    return [(slice(*rows), slice(*columns)) for rows, columns in pairs]


def _factor(query: Tensor, scale: float | None) -> float:
    return 1 / math.sqrt(query.shape[2]) if scale is None else scale


def _scores(query: Tensor, key: Tensor, scale: float | None, causal: bool) -> Tensor:
    """(H, q, k) in float32; where causal, the last query sees all keys."""
    factor = _factor(query, scale)
    keys = key.float().transpose(0, 1).repeat_interleave(query.shape[1] // key.shape[1], 0)
    scores = query.float().transpose(0, 1) @ keys.transpose(1, 2) * factor
    if not causal:
        return scores
    seen = torch.ones(len(query), len(key), dtype=torch.bool).tril(len(key) - len(query))
    return scores.masked_fill(~seen, -math.inf)


def _weighted(weights: Tensor, value: Tensor) -> Tensor:
    values = value.float().transpose(0, 1).repeat_interleave(weights.shape[0] // value.shape[1], 0)
    return (weights @ values).transpose(0, 1)

"""Dialogues as model input: one `Example` each, any number packed end to end without padding.

Shapes: T tokens of all dialogues, B dialogues, A audio pieces (30 s at most), S samples, N frames, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from omnichat.audio import pieces
from omnichat.prompt import IGNORE, Tokens


@dataclass(frozen=True, slots=True)
class Example:
    """A rendered dialogue with what is to be heard in it.

    Attributes:
        waves: float32 (S,) at 16 kHz for each 30 s piece, flattened over the slots in order; empty with `features`.
        features: for each piece the frames (N, D) of each expert by name, instead of waves; uint16 holds the bits of
            bfloat16, which numpy lacks.
        index: the position in the training stream, -1 outside it.

    Raises:
        ValueError: pieces that do not match the slots' audio in number or length.
    """

    tokens: Tokens
    waves: tuple[NDArray[np.float32], ...]
    features: tuple[dict[str, NDArray[np.generic]], ...] | None
    dialogue_id: str
    source: str = ""
    scene: Mapping[str, str] = field(default_factory=dict)
    index: int = -1

    def __post_init__(self) -> None:
        expected = self.piece_lengths()
        given = len(self.waves) if self.features is None else len(self.features)
        if given != len(expected):
            raise ValueError(
                f"dialogue {self.dialogue_id!r}: {given} audio pieces given, the slots hold {len(expected)}"
            )
        lengths = [len(wave) for wave in self.waves]
        if self.features is None and lengths != expected:
            raise ValueError(f"dialogue {self.dialogue_id!r}: audio pieces of {lengths} samples, slots for {expected}")

    def piece_lengths(self) -> list[int]:
        """Samples of each piece, as the slots' audio references promise."""
        return [length for slot in self.tokens.slots for _, length in pieces(slot.audio.num_samples)]


class SharedPrefix(NamedTuple):
    """How dialogues that begin alike are computed with their common beginning only once, with the same result.

    The row that is computed holds the P common tokens, then what is each dialogue's own, T' = T - P (B - 1) tokens. A
    dialogue's own tokens attend to the common ones and, causally, to themselves.

    Attributes:
        length: P.
        kept: (T',) int64, the positions of the packed row that are computed.
        places: (T,) int64, where each position of the packed row is found among them.
        query_starts: (B + 2,) int32, cumulative lengths: the common tokens, then each dialogue's own.
        keys: (T' + P B,) int64, what these attend to, end to end; as places in the computed row with the P common
            tokens put B times behind it.
        key_starts: (B + 2,) int32, cumulative lengths of that.
    """

    length: int
    kept: Tensor
    places: Tensor
    query_starts: Tensor
    keys: Tensor
    key_starts: Tensor


class PackedBatch(NamedTuple):
    """B dialogues end to end. `labels`, `kinds` as in `Tokens`; a NamedTuple, because Lightning moves those.

    Attributes:
        ids: (T,) int64.
        labels: (T,) int64, -100 where there is no target.
        kinds: (T,) uint8.
        positions: (T,) int64, from 0 in each dialogue.
        starts: (B + 1,) int32, cumulative lengths: dialogue b is [starts[b], starts[b + 1]).
        max_length: tokens of the longest dialogue.
        slots: int64, token positions of all audio slots in order, for the windows of all pieces in order.
        wave_lengths: (A,) int64, samples of each piece.
        num_samples: the same on the host: asking the device for them would make the CPU wait for it.
        targets: int64, token positions of all targets.
        waves: (A, S) float32, zero at padding; None with `features`.
        features: per expert (sum of N, D) frames of all pieces end to end, and each piece's N on the host; None with
            `waves`. Padded they would be more than twice as many to carry.
        num_targets: targets in this micro-batch.
        global_targets: targets of the whole step over all ranks and micro-batches; the loss is divided by it.
        dialogue_ids, sources, scenarios, indices: one per dialogue.
        dialogue_targets: targets of each dialogue.
        clip_dialogues: (A,) int64, the dialogue each piece belongs to.
        shared: for the model to compute what all dialogues begin with once; None: it does so for each.
    """

    ids: Tensor
    labels: Tensor
    kinds: Tensor
    positions: Tensor
    starts: Tensor
    max_length: int
    slots: Tensor
    wave_lengths: Tensor
    num_samples: tuple[int, ...]
    targets: Tensor
    waves: Tensor | None
    features: dict[str, tuple[Tensor, tuple[int, ...]]] | None
    num_targets: int
    global_targets: int
    dialogue_ids: tuple[str, ...]
    sources: tuple[str, ...]
    scenarios: tuple[str, ...]
    indices: tuple[int, ...]
    dialogue_targets: tuple[int, ...]
    clip_dialogues: Tensor
    shared: SharedPrefix | None = None


def pack(examples: Sequence[Example], global_targets: int | None = None, share_prefix: bool = False) -> PackedBatch:
    """Put dialogues end to end; `global_targets` defaults to the targets in these examples.

    With `share_prefix` the model computes the tokens that all dialogues begin with (the system message) only once.

    Raises:
        ValueError: no examples, waves mixed with features, or experts that differ between pieces.
    """
    if not examples:
        raise ValueError("a batch needs at least one dialogue")
    cached = {example.features is not None for example in examples if example.tokens.slots}
    if len(cached) > 1:
        raise ValueError("a batch holds either waves or cached features, not both")
    lengths = [len(example.tokens.ids) for example in examples]
    starts = [0, *accumulate(lengths)]
    slots = [
        np.arange(start + slot.start, start + slot.start + slot.length)
        for start, example in zip(starts, examples, strict=False)
        for slot in example.tokens.slots
    ]
    wave_lengths = [length for example in examples for length in example.piece_lengths()]
    owners = [number for number, example in enumerate(examples) for _ in example.piece_lengths()]
    targets = tuple(example.tokens.num_targets for example in examples)
    labels = _concat([example.tokens.labels for example in examples])
    features = [piece for example in examples for piece in example.features or ()]
    return PackedBatch(
        ids=_concat([example.tokens.ids for example in examples]),
        labels=labels,
        kinds=_concat([example.tokens.kinds for example in examples]),
        positions=_concat([np.arange(length) for length in lengths]),
        starts=torch.tensor(starts, dtype=torch.int32),
        max_length=max(lengths),
        slots=_concat(slots) if slots else torch.zeros(0, dtype=torch.int64),
        wave_lengths=torch.tensor(wave_lengths, dtype=torch.int64),
        num_samples=tuple(wave_lengths),
        targets=(labels != IGNORE).nonzero()[:, 0],
        waves=None if True in cached else _pad_waves([wave for example in examples for wave in example.waves]),
        features=_concat_features(features) if True in cached else None,
        num_targets=sum(targets),
        global_targets=sum(targets) if global_targets is None else global_targets,
        dialogue_ids=tuple(example.dialogue_id for example in examples),
        sources=tuple(example.source for example in examples),
        scenarios=tuple(example.scene.get("scenario", "") for example in examples),
        indices=tuple(example.index for example in examples),
        dialogue_targets=targets,
        clip_dialogues=torch.tensor(owners, dtype=torch.int64),
        shared=_shared_prefix([example.tokens for example in examples]) if share_prefix else None,
    )


def to_device(batch: PackedBatch, device: torch.device) -> PackedBatch:
    """The batch with all its tensors on `device`."""

    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, non_blocking=True)
        if isinstance(value, dict):
            return {name: (moved(frames), counts) for name, (frames, counts) in value.items()}
        return SharedPrefix(*map(moved, value)) if isinstance(value, SharedPrefix) else value

    return PackedBatch(*map(moved, batch))


def _shared_prefix(dialogues: Sequence[Tokens]) -> SharedPrefix | None:
    """Of dialogues that are put end to end; None where they have no beginning in common, or there is one dialogue."""
    lengths = [len(dialogue.ids) for dialogue in dialogues]
    # Up to the first audio, which differs where the ids do not; and every dialogue keeps a token of its own.
    bounds = [dialogue.slots[0].start for dialogue in dialogues if dialogue.slots]
    size = min([*bounds, *(length - 1 for length in lengths)])
    first = np.stack([dialogue.ids[:size] for dialogue in dialogues])
    shared = int(np.cumprod((first == first[0]).all(0)).sum())
    if not shared or len(dialogues) == 1:
        return None
    common, starts, own = np.arange(shared), [0, *accumulate(lengths)], [length - shared for length in lengths]
    total = shared + sum(own)
    own_starts = list(accumulate(own, initial=shared))
    kept = [common, *(np.arange(start + shared, stop) for start, stop in pairwise(starts))]
    pieces = [np.arange(start, stop) for start, stop in pairwise(own_starts)]
    copies = [total + shared * number + common for number in range(len(dialogues))]
    return SharedPrefix(
        length=shared,
        kept=_concat(kept),
        places=_concat([place for piece in pieces for place in (common, piece)]),
        query_starts=torch.tensor([0, *own_starts], dtype=torch.int32),
        keys=_concat([common, *(place for copy, piece in zip(copies, pieces, strict=True) for place in (copy, piece))]),
        key_starts=torch.tensor([0, *accumulate(lengths, initial=shared)], dtype=torch.int32),
    )


def _concat(arrays: Sequence[NDArray[np.generic]]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))


def _pad_waves(waves: Sequence[NDArray[np.float32]]) -> Tensor:
    padded = _blank((len(waves), max(map(len, waves), default=0)), torch.float32)
    for place, wave in zip(padded.numpy(), waves, strict=True):
        place[: len(wave)] = wave
        place[len(wave) :] = 0
    return padded


def _concat_features(pieces: Sequence[Mapping[str, NDArray[np.generic]]]) -> dict[str, tuple[Tensor, tuple[int, ...]]]:
    """Straight from where the frames are mapped to where they are read: one copy."""
    names = list(pieces[0])
    if any(set(piece) != set(names) for piece in pieces):
        raise ValueError("every audio piece needs cached features of the same experts")
    packed = {}
    for name in names:
        frames = [piece[name] for piece in pieces]
        counts = tuple(map(len, frames))
        stored = torch.from_numpy(np.zeros(0, frames[0].dtype)).dtype
        tensor = _blank((sum(counts), frames[0].shape[1]), stored)
        np.concatenate(frames, out=tensor.numpy())
        packed[name] = (tensor.view(torch.bfloat16) if stored == torch.uint16 else tensor, counts)
    return packed


def _blank(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory for a tensor, not yet written; a data worker takes it where the process that trains will read it.

    As torch's own `default_collate` does: a tensor made elsewhere is copied there on its way out.
    """
    if get_worker_info() is None or not prod(shape):
        return torch.empty(shape, dtype=dtype)
    shared = torch.UntypedStorage._new_shared(prod(shape) * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(shared).view(shape)

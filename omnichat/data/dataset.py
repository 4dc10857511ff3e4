"""Dialogues as examples: one store in order, or several mixed into an endless stream."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnichat.audio import load_audio, pieces
from omnichat.batch import Example
from omnichat.data.features import FeatureReader
from omnichat.data.mixture import BLOCK, Mixture
from omnichat.data.overlong import without_oldest
from omnichat.data.scan import Scan, raise_faults
from omnichat.data.shares import Drawn, Shares
from omnichat.data.store import Store
from omnichat.dialogue import STYLE_FIELDS, DataError, Dialogue
from omnichat.prompt import Prompt


def make_example(
    dialogue: Dialogue,
    prompt: Prompt,
    features: FeatureReader | None = None,
    generation: bool = False,
    source: str = "",
    index: int = -1,
    place: str = "",
    first_turn: int = 0,
) -> Example:
    """Render a dialogue and read its audio, or the cached features of it.

    Args:
        dialogue: to be rendered.
        prompt: renders it.
        features: cached features to read instead of audio.
        generation: whether the example ends at the header of the last assistant turn.
        source: of the mixture.
        index: in its stream.
        place: of the dialogue in its store, for errors.
        first_turn: of the stored dialogue that is left in this one, for errors too.

    Raises:
        DataError: what `Prompt.render`, `load_audio` or `FeatureReader.read` find, with place, dialogue and turn.
    """
    tokens = prompt.render(dialogue, generation)
    cached: list[dict[str, NDArray[np.generic]]] = []
    waves: list[NDArray[np.float32]] = []
    for slot in tokens.slots:
        try:
            if features is not None:
                cached += features.read(slot.audio)
            else:
                wave = load_audio(slot.audio)
                waves += [wave[start : start + length] for start, length in pieces(len(wave))]
        except DataError as error:
            number = next(n for n, turn in enumerate(dialogue.turns, first_turn) if turn.audio is slot.audio)
            where = f"{place}: " if place else ""
            raise error.at(f"{where}dialogue {dialogue.id!r}: turn {number}") from None
    kept = tuple(cached) if features is not None else None
    return Example(tokens, tuple(waves), kept, dialogue.id, source, dialogue.scene, index)


class StoreDataset:
    """The dialogues of one store, in its order: validation and test sets.

    Args:
        store: the dialogues, or their path (see `Store`).
        prompt: renders them.
        features: cached features to read instead of audio.
        generation: whether examples end at the header of the last assistant turn.
        rows: the dialogues to take; all of them by default.
        first_turns: of each of these, how many turns are left out at its start; none by default.
    """

    def __init__(
        self,
        store: Store | Path | str,
        prompt: Prompt,
        features: FeatureReader | None = None,
        generation: bool = False,
        rows: Sequence[int] | NDArray[np.int64] | None = None,
        first_turns: NDArray[np.int32] | NDArray[np.int64] | None = None,
    ) -> None:
        self.store = store if isinstance(store, Store) else Store(store)
        self.prompt, self.features, self.generation = prompt, features, generation
        self.rows = np.arange(len(self.store)) if rows is None else np.asarray(rows, dtype=np.int64)
        self.first_turns = np.zeros(len(self.rows), dtype=np.int32) if first_turns is None else first_turns

    def __len__(self) -> int:
        """Number of dialogues."""
        return len(self.rows)

    def dialogue(self, number: int) -> Dialogue:
        """The dialogue behind an example, as far as it is shown to the model."""
        return without_oldest(self.store[int(self.rows[number])], int(self.first_turns[number]))

    def __getitem__(self, number: int) -> Example:
        """An example; its source is the corpus the dialogue names."""
        dialogue, first = self.dialogue(number), int(self.first_turns[number])
        place = self.store.place(int(self.rows[number]))
        return make_example(
            dialogue, self.prompt, self.features, self.generation, dialogue.source, place=place, first_turn=first
        )


class DialogueDataset:
    """The endless stream of a training run: `dataset[index]` is a pure function of the index.

    Args:
        sources: a scanned store for each source by name; a source whose weight is 0 may be absent.
        weights: the share of each source. Their order numbers the sources, so keep it when shares change: a source's
            draws then stay prefixes of one stream.
        prompt: renders the dialogues; the scans must have been made with it.
        seed: of the mixture.
        features: cached features to read instead of audio.

    Raises:
        DataError: all faults of the scans; `bad_weights`, `empty_source`, `no_source` (a weight without a source).
    """

    def __init__(
        self,
        sources: Mapping[str, Scan],
        weights: Mapping[str, float],
        prompt: Prompt,
        seed: int = 0,
        features: FeatureReader | None = None,
    ) -> None:
        raise_faults([fault for part in sources.values() for fault in part.faults])
        if without := [name for name in sources if name not in weights]:
            raise DataError("bad_weights", f"no weight for {', '.join(without)}; give each source its share")
        for name, weight in weights.items():
            if weight > 0 and name not in sources:
                raise DataError("no_source", f"{name} has the weight {weight}, but there are only {', '.join(sources)}")
            if weight > 0 and not len(sources[name].rows):
                message = f"has no usable dialogue, {len(sources[name].dropped)} are over the limit; raise max_tokens"
                raise DataError("empty_source", message, str(sources[name].store.path))
        self.names = tuple(weights)
        self.scans = sources
        self.prompt, self.features = prompt, features
        parts = [sources[name] for name in self.names if name in sources]
        sizes = [len(sources[name].rows) if name in sources else 0 for name in self.names]
        self.mixture = Mixture(sizes, list(weights.values()), seed)
        # The scans' columns end to end: place p of source k is at offsets[k] + p.
        self._offsets = np.cumsum([0, *sizes[:-1]])
        self._lengths = np.concatenate([part.lengths for part in parts])
        self._targets = np.concatenate([part.targets for part in parts])
        self._seconds = np.concatenate([part.seconds for part in parts])

    def __getitem__(self, index: int) -> Example:
        """The example at an index of the stream."""
        source, place = self.mixture[index]
        return self._example(self.names[source], place, index)

    def longest(self, count: int) -> list[Example]:
        """The `count` longest dialogues of the sources that are drawn, longest first."""
        places = [
            (-int(part.lengths[place]), name, int(place))
            for name, part in self.drawn_scans()
            for place in np.argsort(-part.lengths, kind="stable")[:count]
        ]
        return [self._example(name, place) for _, name, place in sorted(places)[:count]]

    def lengths(self, indices: range) -> NDArray[np.int32]:
        """Tokens of each of the dialogues at these consecutive indices, known without reading them."""
        return self._lengths[self._places(indices)[1]]

    def num_targets(self, indices: range) -> int:
        """Target tokens of these consecutive indices together, known without reading them."""
        return int(self._targets[self._places(indices)[1]].sum())

    def shares(self, stop: int) -> Shares:
        """What the indices [0, stop) hold of each source that is drawn."""
        totals = np.zeros((len(self.names), 3))
        for start in range(0, stop, BLOCK):
            sources, places = self._places(range(start, min(start + BLOCK, stop)))
            for unit, weights in enumerate((None, self._seconds[places], self._targets[places])):
                totals[:, unit] += np.bincount(sources, weights, minlength=len(self.names))
        sizes = dict(zip(self.names, self.mixture.sizes, strict=True))
        drawn = {name: Drawn(*total) for name, total in zip(self.names, totals.tolist(), strict=True)}
        left_out = Counter(fault.reason for _, part in self.drawn_scans() for fault in part.dropped)
        return Shares({name: sizes[name] for name, _ in self.drawn_scans()}, drawn, left_out)

    def overlong(self) -> list[str]:
        """A line for each dialogue that is over the limit: its place, and what was done with it."""
        lines = []
        for _, part in self.drawn_scans():
            lines += [
                f"{part.store.place(int(part.rows[place]))}: without its first {part.first_turns[place]} turns"
                for place in np.flatnonzero(part.first_turns)
            ]
            lines += [f"left out: {fault}" for fault in part.dropped]
        return lines

    def drawn_scans(self) -> list[tuple[str, Scan]]:
        """The sources whose weight is not 0."""
        weights = zip(self.names, self.mixture.weights, strict=True)
        return [(name, self.scans[name]) for name, weight in weights if weight > 0]

    def style_fields(self) -> tuple[str, ...]:
        """The style fields that some source which is drawn teaches; the others are unknown in all its dialogues."""
        known = np.any([part.style_fields for _, part in self.drawn_scans()], axis=0)
        return tuple(name for name, is_known in zip(STYLE_FIELDS, known, strict=True) if is_known)

    def fingerprint(self) -> str:
        """A short hash of all that the stream depends on: sizes, weights, seed, the scans' choices, what is learnt."""
        digest = hashlib.sha256(self.mixture.fingerprint().encode())
        for name, part in [(name, self.scans[name]) for name in self.names if name in self.scans]:
            columns = (part.rows, part.lengths, part.first_turns)
            digest.update(name.encode() + b"".join(column.tobytes() for column in columns))
            if part.context_only.any():  # else the stream is that of before turns could be left unlearnt
                digest.update(part.context_only.tobytes() + part.targets.tobytes())
        return digest.hexdigest()[:16]

    def _example(self, name: str, place: int, index: int = -1) -> Example:
        part = self.scans[name]
        row, first = int(part.rows[place]), int(part.first_turns[place])
        dialogue, where = without_oldest(part.store[row], first), part.store.place(row)
        return make_example(
            dialogue, self.prompt, self.features, source=name, index=index, place=where, first_turn=first
        )

    def _places(self, indices: range) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """The source of each of these consecutive indices, and its place in the columns of all scans."""
        sources, places = self.mixture.draw(indices.start, indices.stop)
        return sources, self._offsets[sources] + places

"""Dialogues as examples: one store in order, or several mixed into an endless stream."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnichat.audio import load_audio, pieces
from omnichat.batch import Example
from omnichat.data.features import FeatureReader
from omnichat.data.mixture import Mixture
from omnichat.data.scan import Scan, raise_faults
from omnichat.data.store import Store
from omnichat.dialogue import DataError, Dialogue
from omnichat.prompt import Prompt


def make_example(
    dialogue: Dialogue,
    prompt: Prompt,
    features: FeatureReader | None = None,
    generation: bool = False,
    source: str = "",
    index: int = -1,
) -> Example:
    """Render a dialogue and read its audio, or the cached features of it.

    Raises:
        DataError: what `Prompt.render`, `load_audio` or `FeatureReader.read` find, with the dialogue.
    """
    tokens = prompt.render(dialogue, generation)
    try:
        if features is not None:
            cached = tuple(piece for slot in tokens.slots for piece in features.read(slot.audio))
            return Example(tokens, (), cached, dialogue.id, source, dialogue.scene, index)
        waves = []
        for slot in tokens.slots:
            wave = load_audio(slot.audio)
            waves += [wave[start : start + length] for start, length in pieces(len(wave))]
    except DataError as error:
        raise error.at(f"dialogue {dialogue.id!r}") from None
    return Example(tokens, tuple(waves), None, dialogue.id, source, dialogue.scene, index)


class StoreDataset:
    """The dialogues of one store, in its order: validation and test sets.

    Args:
        store: the dialogues, or the path of their JSONL file.
        prompt: renders them.
        features: cached features to read instead of audio.
        generation: whether examples end at the header of the last assistant turn.
        rows: the dialogues to take; all of them by default.
    """

    def __init__(
        self,
        store: Store | Path | str,
        prompt: Prompt,
        features: FeatureReader | None = None,
        generation: bool = False,
        rows: Sequence[int] | NDArray[np.int64] | None = None,
    ) -> None:
        self.store = store if isinstance(store, Store) else Store(store)
        self.prompt, self.features, self.generation = prompt, features, generation
        self.rows = np.arange(len(self.store)) if rows is None else np.asarray(rows, dtype=np.int64)

    def __len__(self) -> int:
        """Number of dialogues."""
        return len(self.rows)

    def dialogue(self, number: int) -> Dialogue:
        """The dialogue behind an example."""
        return self.store[int(self.rows[number])]

    def __getitem__(self, number: int) -> Example:
        """An example; its source is the corpus the dialogue names."""
        dialogue = self.dialogue(number)
        return make_example(dialogue, self.prompt, self.features, self.generation, dialogue.source)


class DialogueDataset:
    """The endless stream of a training run: `dataset[index]` is a pure function of the index.

    Args:
        sources: a scanned store for each source, by name; an example's `source` is that name.
        weights: the share of each source.
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
        if unknown := [name for name in weights if name not in sources]:
            raise DataError("no_source", f"weights for {', '.join(unknown)}, but there are only {', '.join(sources)}")
        raise_faults([fault for part in sources.values() for fault in part.faults])
        for name, part in sources.items():
            if weights.get(name, 0) > 0 and not len(part.rows):
                message = f"has no usable dialogue, {len(part.dropped)} are over the limit; raise max_tokens"
                raise DataError("empty_source", message, str(part.store.path))
        self.names = tuple(sources)
        self.scans = tuple(sources.values())
        self.prompt, self.features = prompt, features
        self.mixture = Mixture(
            [len(part.rows) for part in self.scans], [weights.get(name, 0.0) for name in self.names], seed
        )

    def __getitem__(self, index: int) -> Example:
        """The example at an index of the stream."""
        source, place = self.mixture[index]
        part = self.scans[source]
        dialogue = part.store[int(part.rows[place])]
        return make_example(dialogue, self.prompt, self.features, source=self.names[source], index=index)

    def lengths(self, indices: Sequence[int]) -> list[int]:
        """Tokens of the dialogues at these indices, known without reading them."""
        return [int(self.scans[source].lengths[place]) for source, place in map(self.mixture.__getitem__, indices)]

    def num_targets(self, indices: Sequence[int]) -> int:
        """Target tokens of these indices together, known without reading them."""
        return sum(int(self.scans[source].targets[place]) for source, place in map(self.mixture.__getitem__, indices))

    def fingerprint(self) -> str:
        """A short hash of all that the stream depends on: sizes, weights, seed, and what the scans left out."""
        digest = hashlib.sha256(self.mixture.fingerprint().encode())
        for name, part in zip(self.names, self.scans, strict=True):
            digest.update(name.encode() + part.rows.tobytes() + part.lengths.tobytes())
        return digest.hexdigest()[:16]

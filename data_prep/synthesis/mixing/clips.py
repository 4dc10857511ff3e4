"""The clips that may be heard beside the voices, and the choice among them by caption."""

import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from data_prep.synthesis.contracts import Contract, Sound
from data_prep.synthesis.stage import Reject

Pool = Literal["train", "val", "test"]
POOLS: tuple[Pool, ...] = ("train", "val", "test")
EventClass = Literal["temporary", "continuous", "music"]


class Clip(Contract):
    """A recording.

    Attributes:
        id: unique in its catalogue.
        kind: "audio" for events, "music".
        caption: what is heard.
        event_class: whether it happens once or goes on; music may be either.
        pool: the split it may be heard in; no clip is heard in two.
        licence, credit: as its source states them.
        file: of its recording; empty for a synthesised one.
    """

    id: str
    kind: Literal["audio", "music"]
    caption: str
    event_class: EventClass
    pool: Pool
    licence: str
    credit: str = ""
    file: str = ""


def pool_of(split: str) -> Pool:
    """Where the clips of a store's split come from: every split but train and val is some test set."""
    for pool in POOLS[:2]:
        if split == pool or split.startswith(f"{pool}_"):
            return pool
    return "test"


class Catalogue(ABC):
    """Clips by id and by caption; their samples are read or rendered when they are asked for."""

    def __init__(self, clips: Iterable[Clip]) -> None:
        self.clips: dict[str, Clip] = {clip.id: clip for clip in clips}
        self._by_caption: dict[tuple[str, str, str], list[Clip]] = defaultdict(list)
        for clip in self.clips.values():
            self._by_caption[clip.pool, clip.kind, self.key(clip.caption)].append(clip)

    def sounds(self, kind: Literal["audio", "music"], split: str) -> list[Sound]:
        """What a script of a split may be written about: one for each caption, in alphabetical order."""
        captions = {clip.caption for clip in self.clips.values() if (clip.pool, clip.kind) == (pool_of(split), kind)}
        return [Sound(kind=kind, caption=caption) for caption in sorted(captions)]

    def choose(self, sound: Sound, split: str, rng: np.random.Generator) -> Clip:
        """The clip that the sound names, or one with its caption.

        Raises:
            Reject: `clip_missing` where there is none in the split's pool.
        """
        pool = pool_of(split)
        if sound.clip:
            clip = self.clips.get(sound.clip)
            if clip is None:
                raise Reject("clip_missing", f"the catalogue has no clip {sound.clip!r}")
            if clip.pool != pool:
                raise Reject("clip_missing", f"clip {clip.id!r} belongs to {clip.pool}, the dialogue to {split}")
            return clip
        found = self._by_caption.get((pool, sound.kind, self.key(sound.caption)), [])
        if not found:
            raise Reject("clip_missing", f"no clip of {pool} has the caption {sound.caption!r}")
        return found[int(rng.integers(len(found)))]

    def key(self, caption: str) -> str:
        """What is equal for captions of the same sound."""
        return plain(caption)

    @abstractmethod
    def wave(self, clip: Clip) -> NDArray[np.float32]:
        """(S,) samples at 16 kHz.

        Raises:
            Reject: `clip_missing`, `clip_silent`, `clip_short` or `clip_voice`.
        """

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """What the samples depend on, as JSON."""


def plain(caption: str) -> str:
    """A caption by which equal ones are known: small letters, no punctuation."""
    return " ".join(re.findall(r"\w+", caption.lower()))

"""The catalogue that is always there: the sounds of `mixing.sounds`, rendered when they are heard."""

import hashlib
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.synthesis.mixing import sounds
from data_prep.synthesis.mixing.clips import Catalogue, Clip, EventClass, Pool, plain
from data_prep.synthesis.mixing.loudness import from_db, loudness
from data_prep.synthesis.stage import Reject
from omnichat.audio import SAMPLE_RATE

LICENCE = "Apache-2.0"
LOUDNESS = -20.0  # LUFS as it stands in the catalogue: the middle of the clips in the published dialogues
# What goes on by itself and what happens; the published prompt asks a language model for the same two classes.
CONTINUOUS = ("rain", "engine", "bird", "siren")
_SEED = 5  # of all recordings, whatever the run's: a clip's id stands for its samples


class BuiltinCatalogue(Catalogue):
    """`variants` recordings of each sound, the last two tenths of them kept for val and test."""

    def __init__(self, variants: int, seconds: float) -> None:
        self._variants, self._seconds = variants, seconds
        held = max(1, variants // 10)
        counts: dict[Pool, int] = {"train": variants - 2 * held, "val": held, "test": held}
        pools = [pool for pool, count in counts.items() for _ in range(count)]
        super().__init__(
            Clip(
                id=f"{name}-{number:04d}",
                kind="music" if kind == "music" else "audio",
                caption=name,
                event_class=_event_class(kind, name),
                pool=pool,
                licence=LICENCE,
            )
            for kind, names in sounds.SOUNDS.items()
            for name in names
            for number, pool in enumerate(pools)
        )

    def key(self, caption: str) -> str:
        """The name of the sound that the caption speaks of: "a bell rings" is the bell."""
        words = plain(caption)
        return next((word for word in words.split() if word in sounds.SOUND_NAMES), words)

    def wave(self, clip: Clip) -> NDArray[np.float32]:
        """A recording of `seconds`, at `LOUDNESS`."""
        if clip.id not in self.clips:
            raise Reject("clip_missing", f"the catalogue has no clip {clip.id!r}")
        return _render(clip.id, round(self._seconds * SAMPLE_RATE))

    def identity(self) -> Mapping[str, Any]:
        """The code that makes the sounds."""
        code = hashlib.sha256(Path(sounds.__file__).read_bytes()).hexdigest()
        return {"sounds": code[:16], "variants": self._variants, "seconds": self._seconds}


@lru_cache(maxsize=64)  # 40 MB of 10 s clips
def _render(name: str, num_samples: int) -> NDArray[np.float32]:
    rng = np.random.default_rng([_SEED, zlib.crc32(name.encode())])
    wave = sounds.render(name.rpartition("-")[0], num_samples, rng)
    wave = wave * np.float32(from_db(LOUDNESS - loudness(wave)))
    wave.setflags(write=False)
    return wave


def _event_class(kind: str, name: str) -> EventClass:
    if kind == "music":
        return "music"
    return "continuous" if name in CONTINUOUS else "temporary"

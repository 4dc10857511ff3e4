"""The dialogues that are measured on as a corpus on disk: Arrow shards of FLAC, frames of three full-size experts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from benchmarks.workload import draw_dialogues
from omnichat.audio import SAMPLE_RATE, num_frames, pieces
from omnichat.data.features import FeatureKey, FeatureWriter, PieceDigests
from omnichat.data.shards import finish_store, write_shard
from omnichat.data.store import Store
from omnichat.dialogue import Dialogue

# Whisper large-v3, emotion2vec and BEATs: 281.6 kB for each second that is heard, in bfloat16.
WIDTHS = {"whisper": 1280, "emotion2vec": 768, "beats": 768}
SPEECH_KB_PER_SECOND = 17.8  # of 16 kHz FLAC, of real speech; what is written here is printed beside it


@dataclass(frozen=True)
class Corpus:
    """A split of a store, and the features of all that is heard in it.

    Attributes:
        split: folder of the split's Arrow shards.
        features: root of the feature store.
        keys: what its features are called.
        audio_bytes: of all FLAC that is heard.
        seconds: that are heard.
    """

    split: Path
    features: Path
    keys: Sequence[FeatureKey]
    audio_bytes: int
    seconds: float


def write_corpus(folder: Path, num_dialogues: int, seed: int = 0) -> Corpus:
    """Write a store as the readers make them, and features as `precompute` writes them, of drawn numbers."""
    random = np.random.default_rng(seed)
    dialogues = [_spoken(folder / "wav", dialogue, random) for dialogue in draw_dialogues(num_dialogues, seed)]
    shard = write_shard(folder / "data.arrow", dialogues)
    finish_store(folder / "store", name="drawn", licence="CC0-1.0", source="benchmarks", splits={"train": [shard]})
    store = Store(folder / "store" / "train")
    heard = [turn.audio for row in range(len(store)) for turn in store[row].turns if turn.audio is not None]
    keys, digests_of = [FeatureKey(name, "0" * 64) for name in WIDTHS], PieceDigests()
    for key in keys:
        with FeatureWriter(folder / "features", key, WIDTHS[key.expert]) as writer:
            for ref in heard:
                for digest, (_, length) in zip(digests_of(ref), pieces(ref.num_samples), strict=True):
                    frames = random.standard_normal((num_frames(length), WIDTHS[key.expert]), dtype=np.float32)
                    writer.add(digest, frames, ref.path)
    seconds = sum(ref.num_samples for ref in heard) / SAMPLE_RATE
    return Corpus(folder / "store" / "train", folder / "features", keys, sum(ref.size for ref in heard), seconds)


def _spoken(folder: Path, dialogue: Dialogue, random: np.random.Generator) -> Dialogue:
    """The dialogue with audio behind its references."""
    folder.mkdir(exist_ok=True)
    turns = []
    for turn in dialogue.turns:
        if turn.audio is not None:
            path = folder / f"{dialogue.id}-{turn.audio.path}.wav"
            soundfile.write(path, _voice(turn.audio.num_samples, random), SAMPLE_RATE, subtype="PCM_16")
            turn = replace(turn, audio=replace(turn.audio, path=str(path)))
        turns.append(turn)
    return replace(dialogue, turns=tuple(turns))


def _voice(length: int, random: np.random.Generator) -> NDArray[np.float32]:
    """(length,) a buzz in syllables over faint noise: about as hard for FLAC as speech is."""
    time = np.arange(length) / SAMPLE_RATE
    pitch = 120 + 40 * np.sin(2 * np.pi * 0.7 * time + random.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    buzz = sum(np.sin(number * phase) / number for number in range(1, 16))
    syllables = np.clip(np.sin(2 * np.pi * 2.2 * time + random.uniform(0, 6)), 0, 1) ** 2
    noise = random.standard_normal(length)
    return np.asarray(0.1 * syllables * (buzz + 0.15 * noise) + 0.002 * noise, dtype=np.float32)

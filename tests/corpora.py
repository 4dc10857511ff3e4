"""What the tests of the readers share: reading a folder, and recordings whose stretches are told by their levels."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from omnichat.audio import load_audio
from omnichat.data.corpora.emotions import emotion_map
from omnichat.data.corpora.reading import Choices, Corpus, Reading, RolePolicy, read_all
from omnichat.dialogue import Dialogue, Turn

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"


def needs(name: str) -> pytest.MarkDecorator:
    """Skip where a corpus's real files are not at hand."""
    return pytest.mark.skipif(not (SAMPLES / name).is_dir(), reason=f"{name} is not at ../shared/samples")


def read(corpus: Corpus, folder: Path, roles: RolePolicy = "last_speaker") -> Reading:
    """All of a folder, with the corpus's own table of emotions."""
    return read_all(corpus, folder, Choices(roles, emotion_map(corpus.labels) if corpus.labels is not None else None))


def reasons(reading: Reading) -> Counter[str]:
    """How often each reason was given."""
    return Counter(error.reason for error in reading.rejects)


def write_levels(path: Path, *channels: Sequence[float], rate: int = 16_000, seconds: float = 0.5) -> Path:
    """A WAV that holds half a second at each level, a list of levels for each channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.repeat(np.array(channels).T, round(rate * seconds), axis=0)
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def levels(dialogue: Dialogue) -> list[float | None]:
    """The level in the middle of what each turn is heard from, rounded; None where it is not heard."""
    return [level(turn) for turn in dialogue.turns]


def level(turn: Turn) -> float | None:
    """The same of one turn."""
    if turn.audio is None:
        assert turn.meta["audio"] == "none", "a turn without audio says so"
        return None
    wave = load_audio(turn.audio)
    return round(float(np.median(wave[len(wave) // 4 : -len(wave) // 4])), 2)


def roles(dialogue: Dialogue) -> str:
    """Of all turns: u for the user's, a for the assistant's."""
    return "".join(turn.role[0] for turn in dialogue.turns)

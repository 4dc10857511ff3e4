"""Made-up dialogues: tones for speech, so that a whole run can be tried in seconds without any corpus.

The assistant answers a user turn that is heard, never spelled out, as the task of the paper: the pitch of the tone
decides the style and the words of the reply. All values of all style fields occur.
"""

from pathlib import Path
from zlib import crc32

import numpy as np
import soundfile
from numpy.typing import NDArray

from omnichat.audio import SAMPLE_RATE
from omnichat.data.store import write_store
from omnichat.dialogue import EMOTIONS, GENDERS, PITCHES, SPEEDS, AudioRef, Dialogue, Style, Turn

_BASE_HZ, _STEP = 150.0, 1.5  # tone of emotion e: 150 Hz * 1.5 ** e, up to 1.7 kHz
_MIN_SECONDS, _MAX_SECONDS = 0.3, 1.2
_TEXTS = ("I have been to the lake.", "The letter came today.", "We will see about that.")
_REPLIES = {
    "neutral": "I see, tell me more.",
    "happy": "How lovely, I am glad!",
    "angry": "Calm down, we can mend it.",
    "sad": "I am sorry, that is hard.",
    "surprised": "Really? I did not expect that.",
    "fearful": "Do not worry, you are safe.",
    "disgusted": "That sounds awful indeed.",
}


def made_up_dialogues(folder: Path | str, count: int, seed: int = 0, split: str = "train") -> list[Dialogue]:
    """Write `count` dialogues of one to three rounds to `folder/<split>.jsonl`, with their audio, and return them.

    The current turn's emotion walks through all seven; the dialogues are a pure function of (count, seed, split).

    Args:
        folder: of the store; other splits in it stay.
        count: dialogues.
        seed: of everything drawn.
        split: name of the file, and of the dialogues.
    """
    folder = Path(folder)
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    generator = np.random.Generator(np.random.Philox(key=[seed, crc32(split.encode())]))
    dialogues = [_dialogue(folder, f"{split}-{number}", number, generator) for number in range(count)]
    others = {path.stem: sum(1 for _ in path.open("rb")) for path in folder.glob("*.jsonl") if path.stem != split}
    write_store(folder, {split: dialogues}, "made-up", "CC0-1.0", "omnichat.data.made_up", seed, "tones", others)
    return dialogues


def _dialogue(folder: Path, name: str, number: int, generator: np.random.Generator) -> Dialogue:
    rounds = int(generator.integers(1, 4))
    turns: list[Turn] = []
    for place in range(rounds):
        # The last round, which is always learnt, walks through all emotions; history is drawn.
        heard = (number if place == rounds - 1 else int(generator.integers(len(EMOTIONS)))) % len(EMOTIONS)
        path = folder / "audio" / f"{name}-{place}.wav"
        wave = _tone(heard, generator)
        soundfile.write(path, wave, SAMPLE_RATE, subtype="PCM_16")
        text = _TEXTS[int(generator.integers(len(_TEXTS)))]
        turns.append(Turn("user", text, Style(emotion=EMOTIONS[heard]), AudioRef(str(path), len(wave))))
        turns.append(Turn("assistant", _REPLIES[EMOTIONS[heard]], _style(heard)))
    return Dialogue(name, tuple(turns), "made-up", {"scenario": "tones"})


def _style(heard: int) -> Style:
    """The style of the reply to an emotion: every field follows from what is heard."""
    return Style(GENDERS[heard % 2], EMOTIONS[heard], SPEEDS[heard % 3], PITCHES[heard // 2 % 3])


def _tone(emotion: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """(S,) a tone with two overtones and a little noise."""
    seconds = generator.uniform(_MIN_SECONDS, _MAX_SECONDS)
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * np.pi * _BASE_HZ * _STEP**emotion * generator.uniform(0.97, 1.03) * time
    tone = 0.3 * np.sin(phase) + 0.1 * np.sin(2 * phase) + 0.05 * np.sin(3 * phase)
    return np.asarray(tone + 0.005 * generator.standard_normal(len(time)))

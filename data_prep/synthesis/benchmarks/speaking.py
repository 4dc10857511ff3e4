"""Speaking with espeak-ng: an utterance synthesised, resampled, coloured, checked, encoded and on the disk."""

import asyncio
import os
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from data_prep.synthesis.backends.gates import GateSettings
from data_prep.synthesis.backends.speech import SpeechSettings
from data_prep.synthesis.benchmarks.figure import Figure
from data_prep.synthesis.contracts import Utterance
from data_prep.synthesis.speak_stage import SpeakStage
from data_prep.synthesis.stage import Attempt
from omnichat.dialogue import EMOTIONS, PITCHES, SPEEDS, Style

TARGET = 200.0  # times real time on a core
WARM_UP = 10
SENTENCES = (
    "I have been waiting for the train to the city for more than an hour now.",
    "My sister called me and said that she can not come to the party on Friday.",
    "Do you know a good place where we could have dinner tonight?",
    "It started to rain when we were half way up the hill, so we turned around.",
)


def run(quick: bool = False) -> list[Figure]:
    """Times real time of the whole stage, its engine's process included."""
    count = 40 if quick else 500
    asyncio.run(_spoken(0))  # imports
    start, _ = asyncio.run(_spoken(0))  # of an engine, and the warm-up: paid once per worker
    whole, seconds = asyncio.run(_spoken(count))
    spent = whole - start
    about = f"{count} utterances, {seconds:.0f} s of audio, {spent / seconds * 1000:.2f} ms of CPU time a second"
    return [Figure("speaking", seconds / spent, "x real time", about, TARGET)]


async def _spoken(count: int) -> tuple[float, float]:
    """CPU seconds, the engine's included, of `WARM_UP` and `count` utterances; audio seconds of the latter."""
    stage = SpeakStage(SpeechSettings(), GateSettings())
    voices, styles = stage.speech.voices, list(product(EMOTIONS, SPEEDS, PITCHES))
    rng = np.random.default_rng(0)
    with TemporaryDirectory(prefix="omnichat-bench-") as folder:
        before = os.times()
        await stage.open()
        seconds = 0.0
        for number in range(WARM_UP + count):
            voice = voices[number % len(voices)]
            emotion, speed, pitch = styles[int(rng.integers(len(styles)))]
            item = Utterance(
                text=SENTENCES[number % len(SENTENCES)],
                style=Style(voice.gender, emotion, speed, pitch),
                voice=voice,
            )
            attempt = Attempt(0, np.random.default_rng(number), Path(folder))
            await stage.run(item, attempt)
            seconds += attempt.cost.audio_seconds if number >= WARM_UP else 0.0
        await stage.close()  # the engine's time is counted once it has ended
        after = os.times()
    return sum(after[:4]) - sum(before[:4]), seconds

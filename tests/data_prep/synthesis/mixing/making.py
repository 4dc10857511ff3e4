"""Made-up plans and turns for the tests of the mixing."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_prep.synthesis.blobs import write_audio
from data_prep.synthesis.contracts import Brief, Line, Mixed, Plan, Sound, Speaker, Speech, ToMix, Voice
from data_prep.synthesis.mixing.mix_stage import MixStage
from data_prep.synthesis.mixing.settings import MixSettings
from data_prep.synthesis.stage import Attempt
from omnichat.audio import SAMPLE_RATE
from omnichat.dialogue import Style

VOICES: dict[Speaker, Voice] = {
    "user": Voice(name="anna", gender="female"),
    "assistant": Voice(name="ben", gender="male"),
}


def voiced(seconds: float, rng: np.random.Generator, level: float = 0.1) -> NDArray[np.float32]:
    """Something with the spectrum and the pauses of speech: pulses through a resonance, three syllables a second."""
    count = round(seconds * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    pitch = rng.uniform(90, 220)
    tone = sum(np.sin(2 * np.pi * pitch * n * time) / n for n in range(1, 12))
    syllables = np.maximum(0.0, np.sin(2 * np.pi * 3 * time + rng.uniform(0, 6)))
    wave = tone * syllables + 0.02 * rng.standard_normal(count)
    return (level * wave / np.abs(wave).max()).astype(np.float32)


def plan(
    sound: Sound | None = None, number: int = 0, split: str = "train", turns: int = 4, branch: int = 0, recipe: str = ""
) -> Plan:
    """A dialogue that begins with the user and ends with the assistant."""
    speakers: list[Literal["user", "assistant"]] = ["user", "assistant"]
    lines = tuple(
        Line(speaker=speakers[n % 2], text=f"This is turn {n} of script {number}.", style=Style("female", "happy"))
        for n in range(turns)
    )
    brief = Brief(
        recipe=recipe or "test", number=number, split=split, topic="tests", history_turns=turns - 2, sound=sound
    )
    name = f"test-{number:05d}"
    return Plan(id=f"{name}-{branch}", group=name, brief=brief, branch=branch, lines=lines, voices=VOICES)


def to_mix(
    plan: Plan, blobs: Path, rng: np.random.Generator, seconds: Sequence[float] = (0.5, 1.2), assistant: bool = False
) -> ToMix:
    """The plan with clean recordings, each of a length between `seconds`, at levels up to 10 dB apart."""
    speech: list[Speech | None] = []
    for line in plan.lines:
        if line.speaker == "assistant" and not assistant:
            speech.append(None)
            continue
        wave = voiced(rng.uniform(*seconds), rng, level=float(rng.uniform(0.1, 0.3)))
        speech.append(Speech(blob=write_audio(blobs, wave), num_samples=len(wave)))
    return ToMix(plan=plan, speech=tuple(speech))


def run(stage: MixStage, item: ToMix, blobs: Path, seed: int = 0) -> Mixed:
    """The stage's result for one item."""
    return asyncio.run(stage.run(item, Attempt(0, np.random.Generator(np.random.Philox(seed)), blobs)))


def stage(**settings: object) -> MixStage:
    """The stage with these settings."""
    return MixStage(MixSettings.model_validate(settings))

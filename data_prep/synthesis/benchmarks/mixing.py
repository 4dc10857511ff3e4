"""Mixing: a conversation's clean turns read, measured, mixed with a sound and written, on one core."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from data_prep.synthesis.benchmarks.figure import Figure
from data_prep.synthesis.blobs import write_audio
from data_prep.synthesis.contracts import Brief, Line, Plan, Sound, Speaker, Speech, ToMix, Voice
from data_prep.synthesis.mixing.loudness import loudness
from data_prep.synthesis.mixing.mix_stage import MixStage
from data_prep.synthesis.mixing.settings import MixSettings
from data_prep.synthesis.stage import Attempt
from omnichat.audio import SAMPLE_RATE
from omnichat.dialogue import Style

TARGET = 100.0  # times real time on a core
CONVERSATIONS, TURNS, SECONDS = 24, 8, 4.3  # the length of ShareChatX's mean turn: 1,130 h in 947,236
SOUNDS = (
    Sound(kind="audio", caption="rain"),
    Sound(kind="audio", caption="bell"),
    Sound(kind="music", caption="guitar"),
)


def run(quick: bool = False) -> list[Figure]:
    """Times real time of the whole stage, and how much faster than pyloudnorm the loudness is measured."""
    with TemporaryDirectory(prefix="omnichat-bench-") as folder:
        blobs, rng = Path(folder), np.random.default_rng(0)
        count = 3 if quick else CONVERSATIONS
        items = [_conversation(number, blobs, rng) for number in range(count)]
        stage = MixStage(MixSettings())
        for item in items[: len(SOUNDS)]:  # imports and the rendering of clips are paid once per worker
            _mix(stage, item, blobs)
        started, seconds = time.process_time(), 0.0
        for item in items:
            seconds += _mix(stage, item, blobs)
        spent = time.process_time() - started
    about = f"{count} conversations, {seconds:.0f} s of audio, {spent / seconds * 1000:.2f} ms of CPU time a second"
    return [Figure("mixing", seconds / spent, "x real time", about, TARGET), _against_pyloudnorm(rng)]


def _against_pyloudnorm(rng: np.random.Generator) -> Figure:
    import pyloudnorm

    wave, meter = _speech(60.0, rng), pyloudnorm.Meter(SAMPLE_RATE)
    ours, theirs = loudness(wave), float(meter.integrated_loudness(wave))
    assert abs(ours - theirs) < 0.01, f"{ours} LUFS, pyloudnorm finds {theirs}: nothing to compare"
    rounds = [(_spent(lambda: loudness(wave)), _spent(lambda: meter.integrated_loudness(wave))) for _ in range(5)]
    ratio = float(np.median([slow / fast for fast, slow in rounds]))
    return Figure("loudness", ratio, "x pyloudnorm's speed", f"60 s, both {ours:.2f} LUFS, medians of 5 pairs")


def _spent(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _mix(stage: MixStage, item: ToMix, blobs: Path) -> float:
    attempt = Attempt(0, np.random.default_rng(item.plan.brief.number), blobs)
    asyncio.run(stage.run(item, attempt))
    return attempt.cost.audio_seconds


def _conversation(number: int, blobs: Path, rng: np.random.Generator) -> ToMix:
    speakers: tuple[Speaker, Speaker] = ("user", "assistant")
    lines = tuple(Line(speaker=speakers[turn % 2], text="...", style=Style()) for turn in range(TURNS))
    brief = Brief(
        recipe="benchmark",
        number=number,
        split="train",
        topic="",
        history_turns=TURNS - 2,
        sound=SOUNDS[number % len(SOUNDS)],
    )
    voices = {speaker: Voice(name=speaker, gender="female") for speaker in speakers}
    plan = Plan(id=str(number), group=str(number), brief=brief, branch=0, lines=lines, voices=voices)
    waves = [_speech(SECONDS, rng) for _ in lines]
    speech = [Speech(blob=write_audio(blobs, wave), num_samples=len(wave)) for wave in waves]
    return ToMix(plan=plan, speech=tuple(speech))


def _speech(seconds: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise with the slope and the syllables of speech: FLAC takes as long for it."""
    count = round(seconds * SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum /= 1 + np.fft.rfftfreq(count, 1 / SAMPLE_RATE) / 500
    wave = np.fft.irfft(spectrum, count) * np.abs(np.sin(np.pi * 3 * np.arange(count) / SAMPLE_RATE))
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)

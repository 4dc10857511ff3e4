"""From an utterance to a checked recording."""

import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.synthesis.backends.embedded.espeak import Espeak
from data_prep.synthesis.backends.gates import GateSettings
from data_prep.synthesis.backends.speech import SpeechSettings, make_speech
from data_prep.synthesis.blobs import read_audio
from data_prep.synthesis.contracts import Speech, Utterance, Voice
from data_prep.synthesis.speak_stage import SpeakStage
from data_prep.synthesis.stage import Attempt, BackendError, Refused, Reject, Retry
from omnichat.audio import SAMPLE_RATE
from omnichat.dialogue import EMOTIONS, PITCHES, SPEEDS, Style

WORDS = "I have been waiting for the train to the city for more than an hour now."
MAN = Voice(name="en-us+m3", gender="male")
WOMAN = Voice(name="en-us+f2", gender="female")


def attempt(blobs: Path, number: int = 0) -> Attempt:
    return Attempt(number, np.random.Generator(np.random.Philox(key=number)), blobs)


def utterance(text: str = WORDS, voice: Voice = WOMAN, **style: Any) -> Utterance:
    return Utterance(text=text, voice=voice, style=Style(**style))


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def stage(loop: asyncio.Runner, espeak: Espeak) -> Iterator[SpeakStage]:
    """An opened one; `espeak` skips where there is no engine."""
    stage = SpeakStage(SpeechSettings(), GateSettings())
    loop.run(stage.open())
    yield stage
    loop.run(stage.close())


def pitch(wave: np.ndarray) -> float:
    """Median pitch in Hz of the loud 40 ms frames, by autocorrelation."""
    frames = [wave[at : at + 640] for at in range(0, len(wave) - 640, 320)]
    loud = sorted(frames, key=lambda frame: -float(np.abs(frame).mean()))[: len(frames) // 2]
    pitches = []
    for frame in loud:
        correlation = np.correlate(frame, frame, "full")[639:]
        lag = 40 + int(np.argmax(correlation[40:320]))
        pitches.append(SAMPLE_RATE / lag)
    return float(np.median(pitches))


def test_speech_is_kept_as_a_blob_with_what_was_measured(
    stage: SpeakStage, loop: asyncio.Runner, tmp_path: Path
) -> None:
    """The mixer reads the blob, the report the measures."""
    work = attempt(tmp_path)
    speech = loop.run(stage.run(utterance(), work))
    assert isinstance(speech, Speech)
    assert len(read_audio(tmp_path, speech.blob)) == speech.num_samples
    assert speech.measures["seconds"] == pytest.approx(speech.num_samples / SAMPLE_RATE)
    assert 0.022 < speech.measures["seconds_per_character"] < 0.18
    assert work.cost.calls == 1
    assert work.cost.audio_seconds == pytest.approx(speech.measures["seconds"])


def test_the_same_attempt_gives_the_same_bytes_whatever_came_before(
    stage: SpeakStage, loop: asyncio.Runner, tmp_path: Path
) -> None:
    """Shards and workers meet the same items in other orders and must agree."""
    first = loop.run(stage.run(utterance(emotion="fearful"), attempt(tmp_path, 3)))
    loop.run(stage.run(utterance("Something else."), attempt(tmp_path)))
    assert loop.run(stage.run(utterance(emotion="fearful"), attempt(tmp_path, 3))) == first


def test_another_attempt_sounds_different(stage: SpeakStage, loop: asyncio.Runner, tmp_path: Path) -> None:
    """A retry that repeats a deterministic call would be refused ten times over."""
    blobs = {loop.run(stage.run(utterance(), attempt(tmp_path, number))).blob for number in range(4)}
    assert len(blobs) == 4


def test_every_field_of_the_style_is_heard(stage: SpeakStage, loop: asyncio.Runner, tmp_path: Path) -> None:
    """A style that is written and not spoken teaches the model that styles mean nothing."""

    def said(voice: Voice = WOMAN, **style: Any) -> np.ndarray:
        speech = loop.run(stage.run(utterance(voice=voice, **style), attempt(tmp_path)))
        return read_audio(tmp_path, speech.blob)

    seconds = {speed: len(said(speed=speed)) for speed in SPEEDS}
    assert seconds["slow"] > 1.15 * seconds["normal"] > 1.15 * 1.15 * seconds["fast"]
    heights = {height: pitch(said(pitch=height)) for height in PITCHES}
    assert heights["low"] < 0.95 * heights["normal"] < 0.95 * 0.95 * heights["high"]
    assert pitch(said(MAN)) < 0.75 * pitch(said(WOMAN))
    lengths = {emotion: len(said(emotion=emotion)) for emotion in EMOTIONS}
    assert len(set(lengths.values())) == len(EMOTIONS)


def test_all_styles_and_voices_pass_the_gates(stage: SpeakStage, loop: asyncio.Runner, tmp_path: Path) -> None:
    """A limit that is too tight would thin out one emotion, silently."""
    voices = (*stage.speech.voices, *stage.speech.unseen_voices)
    texts = ("Wow!", "Hi, how are you?", WORDS)
    refused = []
    for number, emotion in enumerate(EMOTIONS * 6):
        voice = voices[number % len(voices)]
        style = {"emotion": emotion, "speed": SPEEDS[number % 3], "pitch": PITCHES[number // 3 % 3]}
        try:
            loop.run(stage.run(utterance(texts[number // 7 % 3], voice, **style), attempt(tmp_path, number)))
        except Refused as error:
            refused.append(f"{style} {voice.name}: {error.reason} {error}")
    assert not refused


def test_a_voice_of_the_other_gender_or_none_is_refused(
    stage: SpeakStage, loop: asyncio.Runner, tmp_path: Path
) -> None:
    """The style would contradict what is heard."""
    with pytest.raises(Reject) as refused:
        loop.run(stage.run(utterance(gender="male"), attempt(tmp_path)))
    assert refused.value.reason == "internal"
    with pytest.raises(Reject, match="has no female 'nobody'") as refused:
        loop.run(stage.run(utterance(voice=Voice(name="nobody", gender="female")), attempt(tmp_path)))
    assert refused.value.reason == "tts_engine"


def test_an_engine_that_died_costs_an_attempt_and_comes_back(
    stage: SpeakStage, loop: asyncio.Runner, tmp_path: Path
) -> None:
    """One crash must not refuse everything that is still to be spoken."""
    backend: Any = stage.speech
    backend._engine._process.kill()
    backend._engine._process.wait()
    with pytest.raises(Retry, match="ended early") as refused:
        loop.run(stage.run(utterance(), attempt(tmp_path)))
    assert refused.value.reason == "tts_engine"
    loop.run(stage.run(utterance(), attempt(tmp_path)))


def test_limits_of_a_configuration_take_the_place_of_the_backend_s(
    espeak: Espeak, loop: asyncio.Runner, tmp_path: Path
) -> None:
    """They stand in the identity, so that speech of other limits is not taken over."""
    stage = SpeakStage(SpeechSettings(), GateSettings(seconds_per_character=(0.5, 0.6)))
    loop.run(stage.open())
    with pytest.raises(Retry, match=r"less than 0.5 s each") as refused:
        loop.run(stage.run(utterance(), attempt(tmp_path)))
    loop.run(stage.close())
    assert refused.value.reason == "dur_ratio"
    other = SpeakStage(SpeechSettings(), GateSettings())
    assert stage.identity() != other.identity()
    assert str(stage.identity()["speech"]["engine"]).startswith("espeak-ng ")


def test_a_stage_travels_to_a_worker(stage: SpeakStage) -> None:
    """Workers get it pickled; an engine's process cannot go along."""
    there = pickle.loads(pickle.dumps(stage))
    assert there.identity() == stage.identity()
    assert there.speech._engine is None


def test_without_jitter_nothing_is_retried(espeak: Espeak) -> None:
    """The second call would give the first's samples."""
    assert SpeakStage(SpeechSettings(jitter=False), GateSettings()).max_attempts == 1
    assert SpeakStage(SpeechSettings(), GateSettings()).max_attempts == 10


def test_an_engine_that_is_missing_is_told_at_the_start(tmp_path: Path) -> None:
    """Otherwise every item is tried in vain."""
    backend = make_speech(SpeechSettings(engine_file=str(tmp_path / "nothing.so")))
    with pytest.raises(BackendError, match=r"nothing\.so"):
        asyncio.run(backend.open())
    with pytest.raises(BackendError, match=r"nothing\.so"):
        backend.identity()

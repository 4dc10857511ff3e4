"""What a recording must pass before it is kept: its form and length here, its words, voice and emotion by checkers."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_prep.synthesis.backends.checker import Checker
from data_prep.synthesis.backends.emotion_check import EmotionSettings, make_emotion_check
from data_prep.synthesis.backends.recognise import RecogniserSettings, make_recogniser
from data_prep.synthesis.backends.speaker_check import SpeakerSettings, make_speaker_check
from data_prep.synthesis.backends.words import word_errors
from data_prep.synthesis.contracts import Contract, Utterance
from data_prep.synthesis.stage import Retry
from omnichat.audio import SAMPLE_RATE
from omnichat.dialogue import shown

FRAME = SAMPLE_RATE // 50
FULL_SCALE = 0.99
SPEECH_BELOW_PEAK = 40.0  # dB: a frame that is quieter against the loudest frame is no speech
DIGIT_CHARACTERS = 5  # of a digit when it is spoken: "7" is "seven"


class GateSettings(Contract):
    """What is let pass: the section `gates` of a configuration. None of a limit stands for the speech backend's own.

    Attributes:
        seconds_per_character: least and most, of speech; the most is on top of `pause_seconds`.
        pause_seconds: silence that is allowed beside it: a breath before, within and after.
        silence_db: a recording of which no 20 ms are louder is silent, dBFS.
        clipped_share: of the samples at full scale; above it the recording is clipped.
        turn_errors, turn_wer: word errors, or their share of the words, that a turn may have; the rate of the whole
            conversation is checked afterwards. For a recogniser that judges.
        recogniser, speaker, emotion: who checks the words, the voice and the emotion; without one, nobody.
    """

    seconds_per_character: tuple[float, float] | None = None
    pause_seconds: float = Field(default=0.6, ge=0)
    silence_db: float = -50.0
    clipped_share: float = Field(default=0.001, ge=0, le=1)
    turn_errors: int = Field(default=1, ge=0)
    turn_wer: float = Field(default=0.25, ge=0)
    recogniser: RecogniserSettings | None = None
    speaker: SpeakerSettings | None = None
    emotion: EmotionSettings | None = None


def spoken_characters(text: str) -> int:
    """Letters, and the spaces between words; a digit counts as the word that it is spoken as."""
    words = re.findall(r"[^\W\d_]+|\d", text.replace("'", "").replace("’", ""))
    return sum(DIGIT_CHARACTERS if word.isdigit() else len(word) for word in words) + max(0, len(words) - 1)


def measure(wave: NDArray[np.float32], text: str) -> dict[str, float]:
    """Of (S,) at 16 kHz, by name.

    `speech_seconds` go from the first speech to the last, `loudest_db` is of the loudest 20 ms, `clipped` the share of
    samples at full scale. The level of silence is -120 dBFS.
    """
    frames = wave[: len(wave) // FRAME * FRAME].reshape(-1, FRAME)
    levels = (
        _decibels(np.sqrt(np.mean(np.square(frames, dtype=np.float64), axis=1))) if len(frames) else np.array([-120.0])
    )
    loudest = float(levels.max())
    speech = np.flatnonzero(levels > max(loudest - SPEECH_BELOW_PEAK, -90.0))
    spoken = (speech[-1] - speech[0] + 1) * FRAME / SAMPLE_RATE if len(speech) else 0.0
    magnitude = np.abs(wave)
    return {
        "seconds": len(wave) / SAMPLE_RATE,
        "speech_seconds": float(spoken),
        "seconds_per_character": float(spoken) / max(1, spoken_characters(text)),
        "peak_db": float(_decibels(magnitude.max(initial=0.0))),
        "loudest_db": loudest,
        "clipped": float(np.mean(magnitude >= FULL_SCALE)) if len(wave) else 0.0,
    }


def check_form(
    wave: NDArray[np.float32], text: str, settings: GateSettings, seconds_per_character: tuple[float, float]
) -> dict[str, float]:
    """What was measured of a recording that is sound as a recording, whatever was said.

    Raises:
        Retry: `tts_empty`, `tts_format`, `tts_silent`, `tts_clipped`, `dur_ratio`.
    """
    if wave.ndim != 1 or not np.isfinite(wave).all():
        raise Retry("tts_format", f"{wave.ndim} dimensions" if wave.ndim != 1 else "samples that are no numbers")
    if len(wave) < FRAME:
        raise Retry("tts_empty", f"{len(wave)} samples")
    found = measure(wave, text)
    if found["loudest_db"] < settings.silence_db:
        raise Retry("tts_silent", f"nowhere louder than {found['loudest_db']:.0f} dBFS")
    if found["clipped"] > settings.clipped_share:
        raise Retry("tts_clipped", f"{100 * found['clipped']:.2f} % of the samples are at full scale")
    least, most = settings.seconds_per_character or seconds_per_character
    characters = max(1, spoken_characters(text))
    shown = f"{found['seconds']:.2f} s, {found['speech_seconds']:.2f} s of it speech, for {characters} characters"
    if found["speech_seconds"] < least * characters:
        raise Retry("dur_ratio", f"{shown}: less than {least} s each")
    if found["seconds"] > most * characters + settings.pause_seconds:
        raise Retry("dur_ratio", f"{shown}: more than {most} s each")
    return found


def _decibels(amplitude: Any) -> Any:
    return 20 * np.log10(np.maximum(amplitude, 1e-6))


class Passed(NamedTuple):
    """Of a recording that is let pass: what was measured, what was heard, and the words and errors that count."""

    measures: dict[str, float]
    transcript: str | None
    words: int
    errors: int


class Gates:
    """All gates of a configuration for the recordings of one speech backend, the cheap ones first."""

    def __init__(self, settings: GateSettings, seconds_per_character: tuple[float, float]) -> None:
        self.settings = settings
        self.seconds_per_character = settings.seconds_per_character or seconds_per_character
        self.recogniser = make_recogniser(settings.recogniser) if settings.recogniser else None
        self.speaker = make_speaker_check(settings.speaker) if settings.speaker else None
        self.emotion = make_emotion_check(settings.emotion) if settings.emotion else None

    def identity(self) -> Mapping[str, Any]:
        """The limits in force, and who checks."""
        limits = self.settings.model_dump(mode="json", exclude={"recogniser", "speaker", "emotion"})
        found = {name: dict(checker.identity()) for name, checker in self._checkers().items()}
        return limits | {"seconds_per_character": list(self.seconds_per_character)} | found

    async def open(self) -> None:
        """Load the checkers, or connect to them.

        Raises:
            BackendError: one is missing.
        """
        for checker in self._checkers().values():
            await checker.open()

    async def close(self) -> None:
        """End what `open` started."""
        for checker in self._checkers().values():
            await checker.close()

    def _checkers(self) -> dict[str, Checker[Any]]:
        checkers = {"recogniser": self.recogniser, "speaker": self.speaker, "emotion": self.emotion}
        return {name: checker for name, checker in checkers.items() if checker is not None}

    async def check(self, wave: NDArray[np.float32], utterance: Utterance) -> Passed:
        """What is known of a recording that passes. The speaker's reference must be remembered before.

        Raises:
            Retry: it does not: see `check_form`; `wer`, `speaker`, `emotion`; `asr_http` where a checker fails.
        """
        measures = check_form(wave, utterance.text, self.settings, self.seconds_per_character)
        if self.speaker is not None:
            measures["speaker"] = cosine = await self.speaker.similarity(utterance.voice.name, wave)
            if cosine < self.speaker.settings.least:
                raise Retry("speaker", f"cosine {cosine:.2f} to the voice {utterance.voice.name!r}")
        if self.emotion is not None and utterance.style.emotion is not None:
            scores = await self.emotion.scores(wave)
            measures["emotion"] = scores.get(utterance.style.emotion, 0.0)
            if not self.emotion.agrees(scores, utterance.style.emotion):
                first = max(scores, key=lambda name: scores[name])
                raise Retry(
                    "emotion", f"{first} {scores[first]:.2f}, {utterance.style.emotion} {measures['emotion']:.2f}"
                )
        if self.recogniser is None:
            return Passed(measures, None, 0, 0)
        heard = await self.recogniser.transcribe(wave)
        measures |= await self.recogniser.measures(wave, utterance.text)
        words, errors = word_errors(utterance.text, heard)
        measures["wer"] = errors / max(1, words)
        if not self.recogniser.judges:  # its errors say more of itself than of the recording
            return Passed(measures, heard, 0, 0)
        if errors > max(self.settings.turn_errors, self.settings.turn_wer * words):
            raise Retry("wer", f"{errors} errors in {words} words; heard {shown(heard)}")
        return Passed(measures, heard, words, errors)

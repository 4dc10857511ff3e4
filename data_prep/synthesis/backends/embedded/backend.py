"""espeak-ng and flite as speech backends: an engine that is kept running, and the style as prosody."""

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.synthesis.backends.embedded.engine import Engine, EngineError, speak
from data_prep.synthesis.backends.embedded.espeak import Espeak
from data_prep.synthesis.backends.embedded.flite import Flite
from data_prep.synthesis.backends.embedded.prosody import PITCH_SHIFTS, SPEED_FACTORS
from data_prep.synthesis.backends.speech import SpeechBackend, SpeechSettings
from data_prep.synthesis.contracts import Utterance
from data_prep.synthesis.memory import keep_freed_memory
from data_prep.synthesis.stage import Attempt, BackendError, Reject, Retry

ENGINES: dict[str, type[Engine]] = {"espeak": Espeak, "flite": Flite}
TIMEOUT = 60.0  # seconds; an utterance takes a hundredth of one
# espeak-ng: from 0.030 of fast fear to 0.134 of slow sadness were measured, eight sentences in all styles. flite: ours.
SECONDS_PER_CHARACTER = {"espeak": (0.022, 0.18), "flite": (0.022, 0.20)}
# Changes when the same request gives other samples, whatever the engine: prosody, jitter, colour.
PROSODY_VERSION = "1"


class EmbeddedSpeech(SpeechBackend):
    """An engine in a process of its own; see `SpeechBackend`. It is started again when it has died."""

    def __init__(self, settings: SpeechSettings) -> None:
        self.settings = settings
        engine = ENGINES[settings.kind]
        self.voices, self.unseen_voices = engine.train_voices, engine.unseen_voices
        self.seconds_per_character = SECONDS_PER_CHARACTER[settings.kind]
        self.deterministic = not settings.jitter
        self._known = {*self.voices, *self.unseen_voices}
        self._engine: Engine | None = None

    def identity(self) -> Mapping[str, Any]:
        """See `SpeechBackend.identity`. Starts the engine once to learn its version.

        Raises:
            BackendError: there is no engine.
        """
        return {
            "engine": _version(self.settings.kind, self.settings.engine_file),
            "prosody": PROSODY_VERSION,
            "jitter": self.settings.jitter,
            "speeds": SPEED_FACTORS,
            "pitches": PITCH_SHIFTS,
        }

    async def open(self) -> None:
        """See `SpeechBackend.open`."""
        keep_freed_memory()
        self._engine = _start(self.settings.kind, self.settings.engine_file)

    async def close(self) -> None:
        """See `SpeechBackend.close`."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    async def speak(self, utterance: Utterance, attempt: Attempt) -> NDArray[np.float32]:
        """See `SpeechBackend.speak`."""
        if utterance.voice not in self._known:
            raise Reject("tts_engine", f"{self.settings.kind} has no {utterance.voice.gender} {utterance.voice.name!r}")
        if self._engine is None:
            await self.open()
        assert self._engine is not None
        rng = attempt.rng if self.settings.jitter else None
        work = asyncio.to_thread(speak, self._engine, utterance.text, utterance.voice, utterance.style, rng)
        attempt.cost.calls += 1
        try:
            return (await asyncio.wait_for(work, TIMEOUT)).pcm
        except TimeoutError:
            await self.close()  # which ends the thread that waits for it, too
            raise Retry("tts_timeout", f"{self.settings.kind}: no answer in {TIMEOUT:.0f} s") from None
        except EngineError as error:
            await self.close()
            raise Retry("tts_engine", str(error)) from None


def _start(kind: str, file: str | None) -> Engine:
    try:
        return ENGINES[kind](file)
    except EngineError as error:
        raise BackendError(str(error)) from None


@lru_cache
def _version(kind: str, file: str | None) -> str:
    with _start(kind, file) as engine:
        return engine.version

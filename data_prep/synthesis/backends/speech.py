"""What a speech backend is, whichever it is; and its settings."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from data_prep.synthesis.contracts import Contract, Utterance, Voice
from data_prep.synthesis.stage import Attempt

# Seconds of speech per spoken character: the least and the most that are believed, ours. People are within them.
SECONDS_PER_CHARACTER = (0.04, 0.16)


class SpeechSettings(Contract):
    """Who speaks: the section `speech` of a configuration.

    Attributes:
        kind: "espeak" and "flite" run here; the others are servers.
        engine_file: the embedded engine to use instead of the one that is found: a libespeak-ng, or a program flite.
        jitter: whether each utterance and each attempt has a rate, pitch and level of its own, as people do.
    """

    kind: Literal["espeak", "flite"] = "espeak"
    engine_file: str | None = None
    jitter: bool = True


class SpeechBackend(ABC):
    """A speech synthesiser with a set of voices.

    Attributes:
        voices: who speaks in training, with their genders.
        unseen_voices: other speakers, for tests on voices that training has not heard; none where the backend does not
            set any aside.
        seconds_per_character: what `gates` lets pass, of its recordings.
        concurrency: utterances side by side in one worker.
        deterministic: whether the same request gives the same samples, so that only another request is worth a retry.
    """

    voices: tuple[Voice, ...]
    unseen_voices: tuple[Voice, ...] = ()
    seconds_per_character: tuple[float, float] = SECONDS_PER_CHARACTER
    concurrency: int = 1
    deterministic: bool = True

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """What its recordings depend on besides the utterance, as JSON; neither addresses nor keys."""

    @abstractmethod
    async def open(self) -> None:
        """Start it.

        Raises:
            BackendError: it cannot be started; says how to mend it.
        """

    @abstractmethod
    async def close(self) -> None:
        """End what `open` started."""

    @abstractmethod
    async def speak(self, utterance: Utterance, attempt: Attempt) -> NDArray[np.float32]:
        """(S,) float32 at 16 kHz in -1..1: the words in the voice and the style. Another attempt sounds different.

        Raises:
            Retry: `tts_...`: it went wrong this time.
            Reject: `tts_engine`: it cannot speak this at all, as an unknown voice.
        """


def make_speech(settings: SpeechSettings) -> SpeechBackend:
    """The backend of these settings, not yet opened."""
    from data_prep.synthesis.backends.embedded.backend import EmbeddedSpeech

    return EmbeddedSpeech(settings)

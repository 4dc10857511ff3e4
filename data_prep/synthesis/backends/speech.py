"""What a speech backend is, whichever it is; and its settings."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from data_prep.synthesis.backends.http import ServerSettings
from data_prep.synthesis.contracts import Contract, Utterance, Voice
from data_prep.synthesis.stage import Attempt

# Seconds of speech per spoken character: the least and the most that are believed, ours. People are within them.
SECONDS_PER_CHARACTER = (0.04, 0.16)
# Spoken to try a server, and as a voice's reference.
CANARY = "The quick brown fox jumps over the lazy dog near the river bank."


class Speaker(Contract):
    """A voice of a server.

    Attributes:
        name: what the server calls it.
        gender: one of `omnichat.dialogue.GENDERS`.
        unseen: set aside for tests on voices that training has not heard.
        prompt_wav: a recording of the voice, for servers that copy it (CosyVoice's `inference_instruct2`).
    """

    name: str
    gender: Literal["male", "female"]
    unseen: bool = False
    prompt_wav: str = ""


class SpeechServerSettings(ServerSettings):
    """A speech server, and how it is asked.

    Attributes:
        speakers: its voices that are used.
        model: what the server calls it; with `version` all that is known of what speaks.
        version: of the server's model, in words of yours: speech of another version is made anew.
        format: of the audio that is asked for (OpenAI's kind; CosyVoice's server sends pcm).
        sample_rate: of pcm, which does not say it: 24000 for most, 22050 for CosyVoice 1.
        instructions: a table of `backends/instructions/` by name, or a YAML file of that form; empty: the kind's own.
        send_speed: say a style's speed as a number, too, for models that take no instructions.
        send_seed: say the attempt's seed; servers that do not know it may refuse it.
        repeats: whether the same words give the same audio, whatever the seed; each recording has its own speed then.
        route: of CosyVoice's server.
        extra: further fields of the request, as {"language": "English"}.
    """

    speakers: tuple[Speaker, ...] = Field(min_length=1)
    model: str = ""
    version: str = ""
    format: Literal["wav", "flac", "pcm"] = "wav"
    sample_rate: int = Field(default=24000, ge=8000, le=192000)
    instructions: str = ""
    send_speed: bool = False
    send_seed: bool = False
    repeats: bool = False
    route: Literal["inference_sft", "inference_instruct", "inference_instruct2"] = "inference_instruct"
    extra: dict[str, Any] = Field(default_factory=dict)


class SpeechSettings(Contract):
    """Who speaks: the section `speech` of a configuration.

    Attributes:
        kind: "espeak" and "flite" run here; "openai" and "cosyvoice" are servers.
        engine_file: the embedded engine to use instead of the one that is found: a libespeak-ng, or a program flite.
        jitter: whether each utterance and each attempt has a rate, pitch and level of its own, as people do.
        server: of the kinds that are servers.
    """

    kind: Literal["espeak", "flite", "openai", "cosyvoice"] = "espeak"
    engine_file: str | None = None
    jitter: bool = True
    server: SpeechServerSettings | None = None

    @model_validator(mode="after")
    def _whole(self) -> "SpeechSettings":
        if (self.server is None) != (self.kind in ("espeak", "flite")):
            raise ValueError(f"kind {self.kind}: {'needs' if self.server is None else 'takes no'} section server")
        return self


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
    if settings.server is not None:
        from data_prep.synthesis.backends.cosyvoice import CosyVoice
        from data_prep.synthesis.backends.openai_speech import OpenAISpeech

        return (CosyVoice if settings.kind == "cosyvoice" else OpenAISpeech)(settings.server)
    from data_prep.synthesis.backends.embedded.backend import EmbeddedSpeech

    return EmbeddedSpeech(settings)

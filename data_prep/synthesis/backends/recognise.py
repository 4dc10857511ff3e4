"""Recognisers, which hear whether a recording says its words: Whisper, a server, or pocketsphinx."""

import asyncio
import io
import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from data_prep.synthesis.backends.checker import Checker, Loaded
from data_prep.synthesis.backends.http import Reasons, Server, ServerSettings
from data_prep.synthesis.contracts import Contract
from data_prep.synthesis.stage import BackendError, Retry
from omnichat.audio import SAMPLE_RATE, pieces
from omnichat.dialogue import shown

REASONS = Reasons("asr_http", "asr_http")


class RecogniserSettings(Contract):
    """Who listens: the part `recogniser` of the section `gates`.

    Attributes:
        kind: "whisper" runs here on a checkpoint, "http" is a server with OpenAI's `audio/transcriptions`,
            "pocketsphinx" runs anywhere and hears well what flite's best voices say, and little else.
        model: folder of Hugging Face's or openai-whisper's `.pt`; for a server, what it calls the model.
        tokenizer: folder with Whisper's tokenizer, for a `.pt` that stands without.
        device: of Whisper: "cpu", "cuda".
        language: of the speech.
        server: of the kind "http".
        judges: whether a recording is refused for wrong words; else its errors are only counted. By default,
            pocketsphinx does not judge: on espeak-ng's speech three words in four are misheard.
    """

    kind: Literal["whisper", "http", "pocketsphinx"]
    model: str = ""
    tokenizer: str = ""
    device: str = "cpu"
    language: str = "en"
    server: ServerSettings | None = None
    judges: bool | None = None
    max_tokens: int = Field(default=200, ge=1)

    @model_validator(mode="after")
    def _whole(self) -> "RecogniserSettings":
        if (self.server is None) == (self.kind == "http"):
            raise ValueError(f"kind {self.kind}: {'needs' if self.server is None else 'takes no'} section server")
        if self.kind == "whisper" and not self.model:
            raise ValueError("kind whisper: needs model, a folder of Hugging Face's or a .pt of openai-whisper")
        return self


class Recogniser(Checker[RecogniserSettings]):
    """Speech to words."""

    depends_on = ("kind", "language", "max_tokens")

    def __init__(self, settings: RecogniserSettings) -> None:
        super().__init__(settings)
        self.judges = settings.judges if settings.judges is not None else settings.kind != "pocketsphinx"

    def identity(self) -> Mapping[str, Any]:
        """See `Checker.identity`."""
        return {**super().identity(), "judges": self.judges}

    @abstractmethod
    async def transcribe(self, wave: NDArray[np.float32]) -> str:
        """What is said in (S,) at 16 kHz.

        Raises:
            Retry: `asr_http`.
        """

    async def measures(self, wave: NDArray[np.float32], text: str) -> dict[str, float]:
        """What else is measured of a recording of `text`."""
        return {}


class HttpRecogniser(Recogniser):
    """`POST /audio/transcriptions` of OpenAI's API, which vLLM, speaches and others speak too."""

    async def open(self) -> None:
        """See `Checker.open`."""
        assert self.settings.server is not None
        self._server = Server(self.settings.server, REASONS, "recognition server")
        await self._server.open()

    async def close(self) -> None:
        """See `Checker.close`."""
        await self._server.close()

    async def transcribe(self, wave: NDArray[np.float32]) -> str:
        """See `Recogniser.transcribe`."""
        fields = {"response_format": "json", "language": self.settings.language, "temperature": "0"}
        fields |= {"model": self.settings.model} if self.settings.model else {}
        files = {"file": ("speech.wav", wav_bytes(wave), "audio/wav")}
        answer = await self._server.post("audio/transcriptions", data=fields, files=files)
        try:
            return str(json.loads(answer.body)["text"])
        except (ValueError, KeyError, TypeError):
            text = shown(answer.body.decode(errors="replace"))
            raise Retry("asr_http", f"recognition server: not a transcription: {text}") from None


class WhisperRecogniser(Loaded, Recogniser):
    """A Whisper checkpoint in transformers, greedy; clips beyond 30 s in pieces."""

    def _load(self) -> None:
        from omnichat.models.encoders.checkpoint_files import EncoderError
        from omnichat.models.whisper_checkpoint import load_whisper

        try:
            self._whisper = load_whisper(Path(self.settings.model), self.settings.tokenizer, self.settings.device)
        except EncoderError as error:
            raise BackendError(str(error)) from None

    async def transcribe(self, wave: NDArray[np.float32]) -> str:
        """See `Recogniser.transcribe`."""
        return await asyncio.to_thread(self._transcribe, wave)

    def _transcribe(self, wave: NDArray[np.float32]) -> str:
        cut = [wave[start : start + length] for start, length in pieces(len(wave))]
        said = [self._whisper.transcribe([one], self.settings.language, self.settings.max_tokens)[0] for one in cut]
        return " ".join(said).strip()


class Pocketsphinx(Loaded, Recogniser):
    """CMU's recogniser with the model that comes with it: free words, and how well the right words fit the sound."""

    def _load(self) -> None:
        try:
            import pocketsphinx
        except ImportError:
            raise BackendError("pocketsphinx is missing: pip install pocketsphinx") from None
        quiet = "FATAL"
        self._decoder = pocketsphinx.Decoder(samprate=SAMPLE_RATE, loglevel=quiet)
        self._aligner = pocketsphinx.Decoder(samprate=SAMPLE_RATE, lm=None, loglevel=quiet)

    async def transcribe(self, wave: NDArray[np.float32]) -> str:
        """See `Recogniser.transcribe`."""
        hypothesis = await asyncio.to_thread(self._decode, self._decoder, wave)
        return "" if hypothesis is None else str(hypothesis.hypstr)

    async def measures(self, wave: NDArray[np.float32], text: str) -> dict[str, float]:
        """`alignment`: log-likelihood of the right words, a frame; -inf becomes a missing value.

        It has no fixed scale: it is for comparing recordings of one voice. Words that are not in its dictionary are
        left out.
        """
        bare = "".join(c if c.isalpha() or c == "'" else " " for c in text.lower()).split()
        words = [word for word in bare if self._aligner.lookup_word(word)]
        if not words:
            return {}
        self._aligner.set_align_text(" ".join(words))
        hypothesis = await asyncio.to_thread(self._decode, self._aligner, wave)
        return {} if hypothesis is None else {"alignment": hypothesis.score / max(1, len(wave) * 100 // SAMPLE_RATE)}

    @staticmethod
    def _decode(decoder: Any, wave: NDArray[np.float32]) -> Any:
        decoder.start_utt()
        decoder.process_raw(np.round(wave * 32767).astype("<i2").tobytes(), no_search=False, full_utt=True)
        decoder.end_utt()
        return decoder.hyp()


KINDS: dict[str, type[Recogniser]] = {
    "whisper": WhisperRecogniser,
    "http": HttpRecogniser,
    "pocketsphinx": Pocketsphinx,
}


def make_recogniser(settings: RecogniserSettings) -> Recogniser:
    """The recogniser of these settings, not yet opened."""
    return KINDS[settings.kind](settings)


def wav_bytes(wave: NDArray[np.float32]) -> bytes:
    """(S,) at 16 kHz as a 16-bit WAV file."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.round(np.clip(wave, -1, 1) * 32767).astype(np.int16), SAMPLE_RATE, format="WAV")
    return buffer.getvalue()

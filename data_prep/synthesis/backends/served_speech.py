"""What speech backends behind a server share: instructions, retries that differ, audio that is read strictly."""

import hashlib
import io
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from data_prep.synthesis.backends.gates import GateSettings, check_form
from data_prep.synthesis.backends.http import Answer, Reasons, Server
from data_prep.synthesis.backends.speech import CANARY, SpeechBackend, SpeechServerSettings
from data_prep.synthesis.contracts import Utterance, Voice
from data_prep.synthesis.stage import Attempt, BackendError, Refused, Reject, Retry
from omnichat.audio import SAMPLE_RATE
from omnichat.dialogue import STYLE_VALUES, Style, shown

REASONS = Reasons("tts_http", "tts_timeout")
TABLES = Path(__file__).with_name("instructions")
# As numbers, where a server takes them: OpenAI's `speed`, 1 being the voice's own. Ours.
SPEEDS = {"slow": 0.8, "normal": 1.0, "fast": 1.25}
REPEAT_SPEEDS = 0.06  # a server that repeats itself is asked for a speed drawn up to this share off


class Instructions:
    """A table that says a style in words.

    Raises:
        BackendError: the table is missing, or has no words for a value of the style.
    """

    def __init__(self, name: str) -> None:
        path = Path(name) if name.endswith((".yaml", ".yml")) else TABLES / f"{name}.yaml"
        try:
            text = path.read_text(encoding="utf-8")
            table = yaml.safe_load(text)
            self._template = str(table["template"])
            fields = ("emotion", "speed", "pitch")
            self._words = {
                field: {value: str(table[field][value]) for value in STYLE_VALUES[field]} for field in fields
            }
            self._template.format(emotion="", speed="", pitch="")
        except OSError as error:
            known = ", ".join(sorted(known.stem for known in TABLES.glob("*.yaml")))
            raise BackendError(f"instructions {name!r}: {error.strerror}; the tables are {known}") from None
        except (yaml.YAMLError, KeyError, IndexError, TypeError, ValueError) as error:
            raise BackendError(f"{path}: not a table of instructions ({type(error).__name__}: {error})") from None
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()

    def words(self, style: Style) -> str:
        """What is said to the server; unknown values are neutral or normal."""
        values = {
            "emotion": style.emotion or "neutral",
            "speed": style.speed or "normal",
            "pitch": style.pitch or "normal",
        }
        said = self._template.format(**{field: self._words[field][value] for field, value in values.items()})
        return " ".join(said.split()).replace(" <|", "<|")


class ServedSpeech(SpeechBackend):
    """A speech server; see `SpeechBackend`. A backend of this kind says how a request looks."""

    kind: str
    form: str

    def __init__(self, settings: SpeechServerSettings, table: str) -> None:
        self.settings = settings
        self.instructions = Instructions(settings.instructions or table)
        self.speakers = {speaker.name: speaker for speaker in settings.speakers}
        voices = [(Voice(name=one.name, gender=one.gender), one.unseen) for one in settings.speakers]
        self.voices = tuple(voice for voice, unseen in voices if not unseen)
        self.unseen_voices = tuple(voice for voice, unseen in voices if unseen)
        self.concurrency = settings.concurrency * len(settings.endpoints)
        self.deterministic = settings.repeats and not settings.send_speed
        self.server = Server(settings, REASONS, f"{self.kind} speech server")

    def identity(self) -> Mapping[str, Any]:
        """See `SpeechBackend.identity`."""
        kept = ("model", "version", "format", "sample_rate", "send_speed", "send_seed", "repeats", "route", "extra")
        settings = self.settings.model_dump(mode="json", include=set(kept))
        prompts = {
            name: hashlib.sha256(self.prompt_wav(name)).hexdigest()
            for name, speaker in self.speakers.items()
            if speaker.prompt_wav
        }
        return {"engine": self.kind, **settings, "instructions": self.instructions.sha256, "prompts": prompts}

    def prompt_wav(self, speaker: str) -> bytes:
        """The recording of a voice that is to be copied.

        Raises:
            BackendError: it cannot be read.
        """
        path = Path(self.speakers[speaker].prompt_wav)
        try:
            return path.read_bytes()
        except OSError as error:
            raise BackendError(f"prompt_wav of the voice {speaker!r}: {path}: {error.strerror}") from None

    async def open(self) -> None:
        """Connect, and have one sentence spoken: a wrong address, route or rate is found before a thousand items are.

        Raises:
            BackendError: what came back is no speech of about the right length.
        """
        await self.server.open()
        voice = (*self.voices, *self.unseen_voices)[0]
        canary = Utterance(text=CANARY, style=Style(), voice=voice)
        try:
            wave = await self.speak(canary, Attempt(0, np.random.default_rng(0), Path()))
            check_form(wave, CANARY, GateSettings(clipped_share=1.0), self.seconds_per_character)
        except BackendError:
            await self.close()
            raise
        except Refused as error:
            await self.close()
            hint = f"; is sample_rate {self.settings.sample_rate} right?" if error.reason == "dur_ratio" else ""
            raise BackendError(
                f"the {self.kind} speech server fails at a first sentence: {error.message} [{error.reason}]{hint}"
            ) from None

    async def close(self) -> None:
        """See `SpeechBackend.close`."""
        await self.server.close()

    async def speak(self, utterance: Utterance, attempt: Attempt) -> NDArray[np.float32]:
        """See `SpeechBackend.speak`."""
        known = self.speakers.get(utterance.voice.name)
        if known is None or known.gender != utterance.voice.gender:
            raise Reject("tts_engine", f"no {utterance.voice.gender} voice {utterance.voice.name!r} in speakers")
        seed = int(attempt.rng.integers(2**31))
        speed = SPEEDS[utterance.style.speed or "normal"]
        if self.settings.repeats:  # at the first attempt too: it may be of a turn's second recording
            speed *= 1 + REPEAT_SPEEDS * float(attempt.rng.uniform(-1, 1))
        attempt.cost.calls += 1
        answer = await self.ask(utterance, self.instructions.words(utterance.style), seed, round(speed, 3))
        return decoded(answer, self.form, self.settings.sample_rate)

    @abstractmethod
    async def ask(self, utterance: Utterance, instruction: str, seed: int, speed: float) -> Answer:
        """Send one request.

        Raises:
            Retry, Reject: see `Server.post`.
        """


def decoded(answer: Answer, form: str, sample_rate: int) -> NDArray[np.float32]:
    """(S,) float32 at 16 kHz of a server's answer; channels are averaged.

    Args:
        answer: of the server.
        form: "pcm" is raw int16, little-endian, mono; "wav" and "flac" are files.
        sample_rate: of pcm.

    Raises:
        Retry: `tts_empty`, `tts_format`.
    """
    import soundfile
    import soxr

    body = answer.body
    if not body:
        raise Retry("tts_empty", "an answer without a byte")
    text = answer.content_type.split(";")[0].strip().lower()
    if text.startswith("text/") or text in ("application/json", "application/xhtml+xml") or body[:1] in (b"<", b"{"):
        raise Retry("tts_format", f"{text or 'text'} instead of audio: {shown(body[:200].decode(errors='replace'))}")
    if form == "pcm":
        if body[:4] in (b"RIFF", b"fLaC", b"OggS"):
            raise Retry("tts_format", f"a {body[:4].decode()} file instead of raw samples; set format")
        if len(body) % 2:
            raise Retry("tts_format", f"{len(body)} bytes are no whole number of 16-bit samples")
        wave = np.frombuffer(body, "<i2").astype(np.float32) / np.float32(32768)
    else:
        try:
            read, sample_rate = soundfile.read(io.BytesIO(body), dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
            raise Retry("tts_format", f"no {form} file: {error}") from None
        wave = read.mean(axis=1)
    if not len(wave):
        raise Retry("tts_empty", "audio without a sample")
    if sample_rate != SAMPLE_RATE:
        wave = soxr.resample(wave, sample_rate, SAMPLE_RATE)
    return np.ascontiguousarray(np.clip(wave, -1, 1), dtype=np.float32)

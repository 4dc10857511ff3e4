"""Client of the espeak-ng worker: text to 16 kHz speech with phone times; and `speak`, speech with an emotion."""

import contextlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from data_prep.quickstart.prosody import PROSODIES, Prosody, colour, jittered
from data_prep.quickstart.voices import Voice
from omnichat.audio import SAMPLE_RATE

WORKER = Path(__file__).with_name("espeak_worker.py")
VOLUME = 60  # of espeak-ng's 0..200; at its default of 100 some voices clip, and `colour` sets the level anyway
STRESS_MARKS = "',%="  # espeak-ng writes them before a vowel's mnemonic; they are no phones


class EspeakError(RuntimeError):
    """espeak-ng is missing, refused a request or died; the message says which and how to mend it."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """Speech and what was said when.

    pcm: (S,) float32 at 16 kHz. phones: (espeak-ng mnemonic without stress, first sample, last sample + 1), in
    order and without gaps from the first phone on; names that start with "_" are pauses.
    """

    pcm: NDArray[np.float32]
    phones: tuple[tuple[str, int, int], ...]


class Espeak:
    """One running worker. A context manager; not to be shared between threads.

    Raises:
        EspeakError: on start where no library loads.
    """

    def __init__(self, library: str | None = None) -> None:
        # A file and not a pipe, as nobody reads it while the worker runs.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        command = [sys.executable, str(WORKER)] + (["--library", library] if library else [])
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=-1
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        try:
            hello = self._line()
        except EspeakError:
            self.close()
            raise
        self.version: str = hello["version"]
        self.sample_rate: int = hello["sample_rate"]

    def __enter__(self) -> "Espeak":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker."""
        with contextlib.suppress(BrokenPipeError):  # it is gone already, which is what is wanted
            self._requests.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        self._errors.close()

    def say(self, text: str, voice: Voice, prosody: Prosody) -> Utterance:
        """The plain synthesis, before `prosody.colour`.

        Raises:
            EspeakError: the worker died, or refused the voice or a value.
        """
        request = {
            "text": text.rstrip(".!? ") + prosody.ending if prosody.ending else text,
            "voice": voice.name,
            "rate": round(prosody.rate),
            "pitch": round(prosody.pitch),
            "range": round(prosody.pitch_range),
            "volume": VOLUME,
            "word_gap": prosody.word_gap,
        }
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
        except (BrokenPipeError, ValueError):
            raise self._dead() from None
        answer = self._line()
        pcm = self._answers.read(2 * answer["num_samples"])
        if len(pcm) != 2 * answer["num_samples"]:
            raise self._dead()
        if all(name.startswith("_") for name, _ in answer["phones"]):
            raise EspeakError(f"espeak-ng made no sound for {text!r} with voice {voice.name}")
        wave = np.frombuffer(pcm, dtype=np.int16).astype(np.float32) / np.float32(32768)
        return self._at_16k(wave, answer["phones"])

    def _at_16k(self, wave: NDArray[np.float32], events: list[tuple[str, int]]) -> Utterance:
        resampled = np.ascontiguousarray(soxr.resample(wave, self.sample_rate, SAMPLE_RATE), dtype=np.float32)
        bounds = [min(len(resampled), round(start * SAMPLE_RATE / self.sample_rate)) for _, start in events]
        names = [name.lstrip(STRESS_MARKS) for name, _ in events]
        ends = [*bounds[1:], len(resampled)]
        phones = tuple(phone for phone in zip(names, bounds, ends, strict=True) if phone[0] and phone[2] > phone[1])
        return Utterance(resampled, phones)

    def _line(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise self._dead()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EspeakError(answer["error"])
        return answer

    def _dead(self) -> EspeakError:
        self._process.kill()
        status = self._process.wait()
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
        return EspeakError(f"the espeak-ng worker ended early (status {status}): {''.join(last) or 'no message'}")


def speak(espeak: Espeak, text: str, voice: Voice, emotion: str, rng: np.random.Generator | None = None) -> Utterance:
    """`text` as `voice` says it in `emotion`.

    Args:
        espeak: a running worker.
        text: the words; their final mark is the emotion's.
        voice: the speaker.
        emotion: a key of `PROSODIES`.
        rng: draws the utterance's jitter; without it, the emotion's exact values (noise from seed 0).

    Raises:
        EspeakError: see `Espeak.say`.
        KeyError: an emotion without a prosody.
    """
    prosody = PROSODIES[emotion]
    if rng is None:
        rng = np.random.default_rng(0)
    else:
        prosody = jittered(prosody, rng)
    utterance = espeak.say(text, voice, prosody)
    return Utterance(colour(utterance.pcm, prosody, rng), utterance.phones)

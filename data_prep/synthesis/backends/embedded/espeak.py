"""espeak-ng: the client of its worker, and its speakers.

The speakers are American English with espeak-ng's speaker variants (files of espeak-ng-data/voices/!v), which differ
in pitch, formants, breath and stress. The unseen ones are other variants, not other settings of the same ones. Robots,
whisperers and voices whose level clips are left out.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.synthesis.backends.embedded.engine import Engine, EngineError, Utterance
from data_prep.synthesis.backends.embedded.prosody import Prosody
from data_prep.synthesis.contracts import Voice

WORKER = Path(__file__).with_name("espeak_worker.py")
VOLUME = 60  # of espeak-ng's 0..200; at its default of 100 some voices clip, and `colour` sets the level anyway
STRESS_MARKS = "',%="  # espeak-ng writes them before a vowel's mnemonic; they are no phones


def _voices(gender: str, *variants: str) -> tuple[Voice, ...]:
    return tuple(Voice(name=f"en-us+{variant}", gender=gender) for variant in variants)


TRAIN_VOICES = (
    *_voices("male", "m1", "m3", "m4", "m7", "Mike", "Nguyen"),
    *_voices("female", "f1", "f2", "f3", "f4", "aunty", "belinda"),
)
UNSEEN_VOICES = (
    *_voices("male", "m6", "m8", "Diogo"),
    *_voices("female", "f5", "Annie", "Andrea"),
)


class Espeak(Engine):
    """One running worker; see `Engine`."""

    train_voices = TRAIN_VOICES
    unseen_voices = UNSEEN_VOICES

    def __init__(self, file: str | None = None) -> None:
        # A file and not a pipe, as nobody reads it while the worker runs.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        command = [sys.executable, str(WORKER)] + (["--library", file] if file else [])
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=-1
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        try:
            hello = self._line()
        except EngineError:
            self.close()
            raise
        self.version = f"espeak-ng {hello['version']}"
        self.sample_rate: int = hello["sample_rate"]

    def close(self) -> None:
        """See `Engine.close`."""
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
        """See `Engine.say`."""
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
            raise EngineError(f"espeak-ng made no sound for {text!r} with voice {voice.name}")
        wave = np.frombuffer(pcm, dtype=np.int16).astype(np.float32) / np.float32(32768)
        phones = [(name.lstrip(STRESS_MARKS), start) for name, start in answer["phones"]]
        return Utterance.resampled(wave, self.sample_rate, phones)

    def _line(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise self._dead()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineError(answer["error"])
        return answer

    def _dead(self) -> EngineError:
        self._process.kill()
        status = self._process.wait()
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
        return EngineError(f"the espeak-ng worker ended early (status {status}): {''.join(last) or 'no message'}")

"""flite, a program of its own where it is installed, and its speakers.

flite has three speakers whose pitch can be set: kal16 (male), awb (male, Scottish) and slt (female); rms takes no
notice of it. A voice of ours is a speaker at a pitch, liveliness and tempo of its own. The unseen voices are the one
speaker who is not in training, and the only woman at other settings: of the women only those are new.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import soundfile

from data_prep.synthesis.backends.embedded.engine import Engine, EngineError, Utterance
from data_prep.synthesis.backends.embedded.prosody import NEUTRAL_RATE, Prosody
from data_prep.synthesis.contracts import Voice

INSTALL = "install the system package flite (Debian, Ubuntu: apt-get install flite)"
PAUSE = "pau"  # flite's phone of silence
MARGIN = 0.03  # seconds of its long silences that are left before and after the speech
TIMEOUT = 60.0  # seconds; an utterance takes a hundredth of one


@dataclass(frozen=True, slots=True)
class Settings:
    """How a speaker of flite becomes a voice.

    pitch: Hz, mean. spread: of the pitch, standard deviation over mean. stretch: of durations; flite's own is 1.
    """

    speaker: str
    gender: str
    pitch: float
    spread: float
    stretch: float


# Ours: men no lower than kal16's own 95 Hz, as it breaks up in the anger of a deeper voice; tempi near espeak-ng's.
VOICES = {
    "kal16-deep": Settings("kal16", "male", 98, 0.10, 0.95),
    "kal16-plain": Settings("kal16", "male", 108, 0.12, 0.85),
    "kal16-lively": Settings("kal16", "male", 118, 0.16, 0.80),
    "kal16-light": Settings("kal16", "male", 132, 0.14, 0.90),
    "slt-deep": Settings("slt", "female", 156, 0.16, 0.90),
    "slt-plain": Settings("slt", "female", 174, 0.16, 0.80),
    "slt-lively": Settings("slt", "female", 190, 0.24, 0.75),
    "slt-light": Settings("slt", "female", 214, 0.18, 0.85),
    "awb-plain": Settings("awb", "male", 126, 0.16, 0.90),
    "awb-deep": Settings("awb", "male", 112, 0.20, 0.85),
    "slt-calm": Settings("slt", "female", 165, 0.20, 0.85),
    "slt-bright": Settings("slt", "female", 202, 0.20, 0.80),
}
UNSEEN = ("awb-plain", "awb-deep", "slt-calm", "slt-bright")


class Flite(Engine):
    """Runs flite once an utterance; see `Engine`."""

    train_voices = tuple(
        Voice(name=name, gender=settings.gender) for name, settings in VOICES.items() if name not in UNSEEN
    )
    unseen_voices = tuple(Voice(name=name, gender=VOICES[name].gender) for name in UNSEEN)

    def __init__(self, file: str | None = None) -> None:
        self.program = file or "flite"
        self._folder = TemporaryDirectory(prefix="omnichat-flite-")
        try:
            self.version = self._version()
            # A speaker that is not there would be spoken by another one, without a word.
            _, _, there = self._run("-lv").partition(":")
            if lacking := sorted({settings.speaker for settings in VOICES.values()} - set(there.split())):
                raise EngineError(f"{self.program}: lacks the voices {', '.join(lacking)}; {INSTALL}")
        except EngineError:
            self.close()
            raise

    def close(self) -> None:
        """See `Engine.close`."""
        self._folder.cleanup()

    def say(self, text: str, voice: Voice, prosody: Prosody) -> Utterance:
        """See `Engine.say`. flite's intonation takes no notice of a final mark, so `prosody.ending` does nothing."""
        if voice.name not in VOICES:
            raise EngineError(f"flite has no voice {voice.name!r}; it has {', '.join(VOICES)}")
        settings = VOICES[voice.name]
        # espeak-ng's scale (its wavegen.c: "y = pow(2,x) * 128, x=-1 to 1"): an octave from 50 to either end.
        pitch = settings.pitch * 2 ** ((prosody.pitch - 50) / 50)
        # flite knows no pause between words: they are stretched by the time that it would take.
        seconds_a_word = 60 / prosody.rate + prosody.word_gap / 100
        features = {
            "int_f0_target_mean": pitch,
            "int_f0_target_stddev": pitch * settings.spread * prosody.pitch_range / 50,
            "duration_stretch": settings.stretch * seconds_a_word * NEUTRAL_RATE / 60,
        }
        path = Path(self._folder.name) / "said.wav"
        path.unlink(missing_ok=True)
        options = [part for name, value in features.items() for part in ("--setf", f"{name}={value:.3f}")]
        segments = self._run("-voice", settings.speaker, *options, "-psdur", "-t", text, "-o", str(path))
        return self._read(path, segments, f"{text!r} with voice {voice.name}")

    def _read(self, path: Path, segments: str, request: str) -> Utterance:
        """The samples from the first phone to the last, and a little of the silences around them."""
        ends = [(name, float(end)) for name, _, end in (part.partition(":") for part in segments.split())]
        starts = [0.0, *(end for _, end in ends)]
        spoken = [number for number, (name, _) in enumerate(ends) if name != PAUSE]
        if not spoken:
            raise EngineError(f"flite made no sound for {request}")
        try:
            wave, rate = soundfile.read(path, dtype="float32")
        except (OSError, RuntimeError) as error:
            raise EngineError(f"flite wrote no speech for {request} ({error}); is the disk full?") from None
        first = max(0, round((starts[spoken[0]] - MARGIN) * rate))
        last = round((ends[spoken[-1]][1] + MARGIN) * rate)
        phones = [
            ("_" if name == PAUSE else name, max(0, round(start * rate) - first))
            for (name, _), start in zip(ends, starts, strict=False)
            if start * rate < last
        ]
        return Utterance.resampled(wave[first:last], rate, phones)

    def _version(self) -> str:
        _, found, rest = self._run("--version", status=None).partition("version:")  # ends with 1, as all its help
        if not found:
            raise EngineError(f"{self.program}: is not flite; {INSTALL}")
        return rest.split()[0].replace("flite-", "flite ", 1)

    def _run(self, *arguments: str, status: int | None = 0) -> str:
        """What flite prints, if it ends with that status."""
        try:
            ended = subprocess.run(
                [self.program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT,
            )
        except OSError as error:
            raise EngineError(f"{self.program}: cannot be started ({error.strerror}); {INSTALL}") from None
        except subprocess.TimeoutExpired:
            raise EngineError(f"{self.program}: gave no answer in {TIMEOUT:.0f} s to {arguments}") from None
        said = ended.stdout.decode(errors="replace")
        if status is not None and ended.returncode != status:
            raise EngineError(
                f"{self.program}: ended with status {ended.returncode} on {arguments}: {said.strip() or 'no message'}"
            )
        return said

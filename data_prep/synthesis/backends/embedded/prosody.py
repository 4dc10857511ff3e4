"""Emotion as prosody: what the synthesiser is asked for, and what is done to its samples.

The seven emotions differ in several voice-independent ways at once (rate, pitch range, contour, spectral tilt,
tremor, roughness, breath), so that none hangs on absolute pitch or loudness: the encoders normalise level away, and
pitch is the speaker's before it is the emotion's. The directions are those reviewed by Scherer, "Vocal communication
of emotion", Speech Communication 40 (2003), where it treats them; the amounts are ours, set so that a linear
classifier tells them apart.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from omnichat.audio import SAMPLE_RATE
from omnichat.dialogue import Style

LEVEL = 10 ** (-23 / 20)  # RMS of neutral speech, full scale = 1: leaves loud emotions room for their peaks
NEPERS = math.log(10) / 20  # of a decibel: exp is several times faster than a power of 10
NEUTRAL_RATE = 165.0  # words per minute
PEAK = 0.94  # -0.5 dBFS, the peak rule of Divide-and-Remaster (dnr-utils config.py)


@dataclass(frozen=True, slots=True)
class Prosody:
    """How an utterance is spoken.

    rate: words per minute. pitch, pitch_range: espeak-ng's 0..99, 50 = the voice's own. word_gap: pause between
    words, units of 10 ms. ending: the mark that sets the intonation ("." falls, "?" rises), "" for the text's own.
    gain: dB against neutral. tilt: dB per octave around 1 kHz. swell: dB from the first to the last sample. tremor:
    pitch and loudness wobble at 10 Hz, faster than syllables follow; 1 = 6 % of pitch, 0.8 of depth.
    roughness: depth of a 40 Hz loudness wobble (creak). drive: soft clipping. breath: noise against speech, amplitude.
    """

    rate: float = NEUTRAL_RATE
    pitch: float = 50
    pitch_range: float = 50
    word_gap: int = 0
    ending: str = ""
    gain: float = 0.0
    tilt: float = 0.0
    swell: float = 0.0
    tremor: float = 0.0
    roughness: float = 0.0
    drive: float = 0.0
    breath: float = 0.0


PROSODIES: dict[str, Prosody] = {
    "neutral": Prosody(),
    "happy": Prosody(rate=195, pitch=68, pitch_range=99, ending="!", gain=3, tilt=3.0),
    "angry": Prosody(rate=185, pitch=34, pitch_range=60, ending="!", gain=6, tilt=3.5, drive=1.5),
    "sad": Prosody(rate=118, pitch=36, pitch_range=10, ending=".", gain=-5, tilt=-4.0, swell=-6, breath=0.03),
    "surprised": Prosody(rate=145, pitch=80, pitch_range=99, ending="?", gain=2, swell=14),
    "fearful": Prosody(rate=205, pitch=70, pitch_range=20, ending=".", gain=-2, tremor=0.6, breath=0.06),
    "disgusted": Prosody(rate=138, pitch=26, pitch_range=75, word_gap=3, ending=".", gain=-1, tilt=-1, roughness=0.75),
}


# Of a style's speed and pitch, on top of the emotion's; ours. 14 of the pitch scale are three to four semitones.
SPEED_FACTORS = {"slow": 0.8, "normal": 1.0, "fast": 1.25}
PITCH_SHIFTS = {"low": -14.0, "normal": 0.0, "high": 14.0}


def styled(style: Style) -> Prosody:
    """The prosody of a style: its emotion's, faster or slower, higher or lower. What is unknown is neutral or normal.

    The gender is the voice's.
    """
    prosody = PROSODIES[style.emotion or "neutral"]
    return replace(
        prosody,
        rate=prosody.rate * SPEED_FACTORS[style.speed or "normal"],
        pitch=float(np.clip(prosody.pitch + PITCH_SHIFTS[style.pitch or "normal"], 0, 99)),
    )


def jittered(prosody: Prosody, rng: np.random.Generator) -> Prosody:
    """The same emotion as another utterance would have it: a few percent of rate, pitch, range, level and tilt."""
    rate, pitch, pitch_range, gain, tilt = rng.uniform(-1, 1, size=5)
    return replace(
        prosody,
        rate=prosody.rate * (1 + 0.05 * rate),
        pitch=float(np.clip(prosody.pitch + 4 * pitch, 0, 99)),
        pitch_range=float(np.clip(prosody.pitch_range * (1 + 0.12 * pitch_range), 0, 99)),
        gain=prosody.gain + 1.0 * gain,
        tilt=prosody.tilt + 0.4 * tilt,
    )


def colour(wave: NDArray[np.float32], prosody: Prosody, rng: np.random.Generator) -> NDArray[np.float32]:
    """The (S,) waveform with the emotion's colour and level; same length, phones within 2 ms of where they were."""
    samples = wave.astype(np.float64)
    samples /= max(_rms(samples), 1e-6)
    seconds = np.arange(len(samples)) / SAMPLE_RATE
    envelope = _envelope(samples) if prosody.breath else None
    if prosody.tremor:
        phase = 2 * np.pi * 10 * seconds + rng.uniform(0, 2 * np.pi)
        shift = 0.001 * prosody.tremor * np.sin(phase)  # seconds; its slope is the pitch deviation
        samples = np.interp(seconds + shift, seconds, samples) * (1 + 0.8 * prosody.tremor * np.sin(phase))
    if prosody.roughness:
        samples = samples * (1 + prosody.roughness * np.sin(2 * np.pi * 40 * seconds + rng.uniform(0, 2 * np.pi)))
    if prosody.drive:
        samples = np.tanh(prosody.drive * samples)
    if prosody.tilt:
        samples = _tilted(samples, prosody.tilt)
        samples /= max(_rms(samples), 1e-6)
    if prosody.swell:
        samples = samples * np.exp(np.linspace(-0.5, 0.5, len(samples)) * prosody.swell * NEPERS)
    if envelope is not None:
        samples = samples + prosody.breath * (0.3 + envelope) * _tilted(rng.standard_normal(len(samples)), 1.0)
    samples *= LEVEL * 10 ** (prosody.gain / 20) / max(_rms(samples), 1e-6)
    samples *= min(1.0, PEAK / max(float(samples.max()), -float(samples.min()), 1e-6))
    return samples.astype(np.float32)


def _rms(samples: NDArray[np.float64]) -> float:
    return math.sqrt(float(samples @ samples) / len(samples))


def _envelope(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Loudness over time: the mean magnitude of 20 ms around each sample."""
    width = SAMPLE_RATE // 50
    sums = np.cumsum(np.pad(np.abs(samples), (width // 2 + 1, width - width // 2 - 1)))
    means: NDArray[np.float64] = (sums[width:] - sums[:-width])[: len(samples)] / width
    return means


@lru_cache(maxsize=8)
def _octaves(size: int) -> NDArray[np.float64]:
    """From 1 kHz to the frequencies of a real FFT of `size`, which are few: powers of two."""
    return np.log2(np.clip(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 125, 8000) / 1000)


def _tilted(samples: NDArray[np.float64], decibels_per_octave: float) -> NDArray[np.float64]:
    size = 1 << (len(samples) - 1).bit_length()  # a power of two: prime lengths are slow
    gains = np.exp(decibels_per_octave * NEPERS * _octaves(size))
    tilted: NDArray[np.float64] = np.fft.irfft(np.fft.rfft(samples, size) * gains, size)
    return tilted[: len(samples)]

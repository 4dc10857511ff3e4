"""Background events and music, synthesised: twelve sounds that differ in spectrum and rhythm.

Each has its pitch, tempo and phase drawn anew, so that a sound is a class and not one recording.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from omnichat.audio import SAMPLE_RATE

Samples = NDArray[np.float64]
MAJOR = np.array([0, 4, 7, 12, 16, 19])  # semitones of a major chord over two octaves


def _seconds(count: int) -> Samples:
    return np.arange(count) / SAMPLE_RATE


def _band(samples: Samples, low: float, high: float) -> Samples:
    """Frequencies from `low` to `high` Hz, cut by FFT."""
    size = 1 << (len(samples) - 1).bit_length()
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    keep = (frequencies >= low) & (frequencies <= high)
    return np.fft.irfft(np.fft.rfft(samples, size) * keep, size)[: len(samples)]


def _strikes(count: int, interval: float, rng: np.random.Generator, strike: Callable[[int], Samples]) -> Samples:
    """`strike(number)` added every `interval` seconds, the first within the first 60 ms."""
    out = np.zeros(count)
    start = rng.uniform(0, 0.06)
    for number in range(int((count / SAMPLE_RATE - start) / interval) + 1):
        at = int((start + number * interval * (1 + rng.uniform(-0.04, 0.04))) * SAMPLE_RATE)
        if at < count:
            sound = strike(number)[: count - at]
            out[at : at + len(sound)] += sound
    return out


def _rain(count: int, rng: np.random.Generator) -> Samples:
    drops = (rng.random(count) < rng.uniform(80, 140) / SAMPLE_RATE) * rng.uniform(4, 12, count)
    return _band(rng.standard_normal(count) + drops, 1200, 8000)


def _siren(count: int, rng: np.random.Generator) -> Samples:
    period, middle = rng.uniform(0.5, 0.8), rng.uniform(800, 1000)
    pitch = middle * 2 ** (0.5 * np.sin(2 * np.pi * _seconds(count) / period + rng.uniform(0, 2 * np.pi)))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    return np.sin(phase) + 0.5 * np.sin(2 * phase) + 0.3 * np.sin(3 * phase)


def _bell(count: int, rng: np.random.Generator) -> Samples:
    base, time = rng.uniform(450, 650), _seconds(SAMPLE_RATE)
    # The partials of a tuned church bell: prime, tierce (a minor third), quint, nominal and above.
    partials = ((1, 0.6), (1.2, 0.5), (1.5, 0.4), (2, 0.5), (2.5, 0.25), (3, 0.25), (4.2, 0.15))
    tone = sum(
        (gain * np.exp(-time * (1.5 + ratio)) * np.sin(2 * np.pi * base * ratio * time) for ratio, gain in partials),
        start=np.zeros(SAMPLE_RATE),
    )
    return _strikes(count, rng.uniform(0.55, 0.75), rng, lambda number: tone)


def _dog(count: int, rng: np.random.Generator) -> Samples:
    time, base = _seconds(int(0.16 * SAMPLE_RATE)), rng.uniform(330, 480)
    phase = 2 * np.pi * np.cumsum(base * (1.3 - 3.5 * time)) / SAMPLE_RATE
    body = sum((np.sin(harmonic * phase) / harmonic**0.5 for harmonic in range(1, 7)), start=np.zeros(len(time)))
    bark = (body + 0.8 * rng.standard_normal(len(time))) * np.sin(np.pi * time / time[-1]) ** 0.5
    return _strikes(count, rng.uniform(0.32, 0.42), rng, lambda number: bark)


def _engine(count: int, rng: np.random.Generator) -> Samples:
    phase = 2 * np.pi * rng.uniform(32, 45) * _seconds(count) + rng.uniform(0, 2 * np.pi)
    wobble = 1 + 0.4 * np.sin(phase / 4)
    body = sum((np.sin(n * phase + n * n) / n**0.6 for n in range(1, 13)), start=np.zeros(count))
    return wobble * (body + 0.5 * _band(rng.standard_normal(count), 60, 500))


def _clapping(count: int, rng: np.random.Generator) -> Samples:
    time = _seconds(int(0.05 * SAMPLE_RATE))

    def clap(number: int) -> Samples:
        return rng.uniform(0.6, 1) * _band(rng.standard_normal(len(time)), 700, 3500) * np.exp(-time * 90)

    return sum((_strikes(count, rng.uniform(0.17, 0.26), rng, clap) for _ in range(3)), start=np.zeros(count))


def _bird(count: int, rng: np.random.Generator) -> Samples:
    time, base = _seconds(int(0.09 * SAMPLE_RATE)), rng.uniform(3200, 4600)

    def chirp(number: int) -> Samples:
        sweep = base * (1 + (0.3 if number % 2 else -0.2) * time / time[-1])
        tone: Samples = np.sin(2 * np.pi * np.cumsum(sweep) / SAMPLE_RATE)
        return tone * np.sin(np.pi * time / time[-1])

    return _strikes(count, rng.uniform(0.13, 0.19), rng, chirp)


def _phone(count: int, rng: np.random.Generator) -> Samples:
    time, base = _seconds(count), rng.uniform(1300, 1600)
    trill = np.where((time * rng.uniform(18, 24)) % 1 < 0.5, base, 1.25 * base)
    phase = 2 * np.pi * np.cumsum(trill) / SAMPLE_RATE
    ringing = (time + rng.uniform(0, 0.1)) % 0.55 < 0.38
    return ringing * (np.sin(phase) + 0.4 * np.sin(3 * phase))


def _piano(count: int, rng: np.random.Generator) -> Samples:
    time, root = _seconds(int(0.5 * SAMPLE_RATE)), rng.uniform(240, 360)
    order = rng.permutation(len(MAJOR))

    def note(number: int) -> Samples:
        pitch = root * 2 ** (MAJOR[order[number % len(order)]] / 12)
        decay = np.exp(-time * 7) * np.minimum(1, time * 400)
        return decay * sum(
            (np.exp(-n) * np.sin(2 * np.pi * n * pitch * time) for n in range(1, 6)), start=np.zeros(len(time))
        )

    return _strikes(count, rng.uniform(0.14, 0.2), rng, note)


def _drums(count: int, rng: np.random.Generator) -> Samples:
    time = _seconds(int(0.15 * SAMPLE_RATE))
    kick = 1.6 * np.sin(2 * np.pi * (50 * time + 8 * (1 - np.exp(-time * 30)))) * np.exp(-time * 20)
    snare = _band(rng.standard_normal(len(time)), 1000, 6000) * np.exp(-time * 30)
    hat = 0.5 * _band(rng.standard_normal(len(time)), 6000, 8000) * np.exp(-time * 70)
    pattern = (kick, hat, snare, hat)
    return _strikes(count, rng.uniform(0.13, 0.18), rng, lambda number: pattern[number % 4])


def _plucked(pitch: float, count: int, rng: np.random.Generator) -> Samples:
    """A string by Karplus and Strong (Computer Music Journal 7, 1983), one period at a time."""
    period = rng.uniform(-1, 1, max(2, round(SAMPLE_RATE / pitch)))
    periods = []
    for _ in range(-(-count // len(period))):
        periods.append(period)
        period = 0.498 * (period + np.roll(period, 1))
    return np.concatenate(periods)[:count]


def _guitar(count: int, rng: np.random.Generator) -> Samples:
    root, length = rng.uniform(100, 150), int(0.6 * SAMPLE_RATE)
    chord: Samples = np.zeros(length)
    for string, semitones in enumerate((0, 7, 12, 16, 19)):
        late = string * 200  # the strum: strings start 12 ms apart
        chord[late:] += _plucked(root * 2 ** (semitones / 12), length - late, rng)
    chord *= np.exp(-3 * _seconds(length))
    return _strikes(count, rng.uniform(0.3, 0.42), rng, lambda number: chord)


def _flute(count: int, rng: np.random.Generator) -> Samples:
    time, root = _seconds(count), rng.uniform(520, 700)
    notes = rng.choice([0, 2, 4, 5, 7, 9, 12], size=count // 3000 + 2)
    length = rng.uniform(0.22, 0.3)
    pitch = root * 2 ** (notes[(time / length).astype(int) % len(notes)] / 12)
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.008 * np.sin(2 * np.pi * 5.5 * time))) / SAMPLE_RATE
    gaps = np.minimum(1, 12 * np.abs((time / length + 0.5) % 1 - 0.5) + 0.2)
    return gaps * (np.sin(phase) + 0.12 * np.sin(2 * phase) + 0.08 * _band(rng.standard_normal(count), 1000, 6000))


SOUNDS: dict[str, dict[str, Callable[[int, np.random.Generator], Samples]]] = {
    "audio": {
        "rain": _rain,
        "siren": _siren,
        "bell": _bell,
        "dog": _dog,
        "engine": _engine,
        "clapping": _clapping,
        "bird": _bird,
        "phone": _phone,
    },
    "music": {"piano": _piano, "drums": _drums, "guitar": _guitar, "flute": _flute},
}
SOUND_NAMES = tuple(name for group in SOUNDS.values() for name in group)


def render(name: str, num_samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A stretch of the sound `name`: (num_samples,) float32 at 16 kHz, RMS 1, 5 ms fades at both ends.

    Raises:
        KeyError: a name outside `SOUND_NAMES`.
    """
    makers = {maker_name: maker for group in SOUNDS.values() for maker_name, maker in group.items()}
    samples = makers[name](num_samples, rng)
    fade = np.minimum(1, np.minimum(np.arange(num_samples), np.arange(num_samples)[::-1]) / (0.005 * SAMPLE_RATE))
    samples = samples * fade
    return (samples / max(float(np.sqrt(np.mean(samples**2))), 1e-9)).astype(np.float32)

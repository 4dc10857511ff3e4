"""What an emotion does to speech, measured on the samples."""

import numpy as np
import pytest

from data_prep.synthesis.backends.embedded.backend import ENGINES
from data_prep.synthesis.backends.embedded.engine import Engine, speak
from data_prep.synthesis.backends.embedded.prosody import PEAK, PROSODIES, Prosody, colour, jittered
from omnichat.audio import SAMPLE_RATE
from omnichat.dialogue import EMOTIONS, Style

WORDS = "my sister works at the library."


def rms_db(wave: np.ndarray) -> float:
    """Level in dB, full scale = 0."""
    return float(10 * np.log10(np.mean(wave.astype(float) ** 2)))


def centroid(wave: np.ndarray) -> float:
    """The mean frequency in Hz, weighted by power."""
    power = np.abs(np.fft.rfft(wave)) ** 2
    return float((power * np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)).sum() / power.sum())


def pitches(wave: np.ndarray) -> np.ndarray:
    """Fundamental frequency in Hz of the voiced frames, by autocorrelation.

    Divided by the window's own, without which low voices seem octaves higher (Boersma 1993); of the multiples of the
    period, which are then as much alike, the shortest one counts.
    """
    window = np.hanning(1024)
    frames = np.lib.stride_tricks.sliding_window_view(wave, 1024)[::160] * window
    ours, windows = (np.fft.irfft(np.abs(np.fft.rfft(each, 2048)) ** 2)[..., :330] for each in (frames, window))
    energy = ours[:, 0]
    alike = (ours / (windows / windows[0]) / np.maximum(energy, 1e-9)[:, None])[:, 40:]
    lags = 40 + (alike > 0.9 * alike.max(axis=1, keepdims=True)).argmax(axis=1)
    return SAMPLE_RATE / lags[(alike.max(axis=1) > 0.6) & (energy > 1e-3 * energy.max())]


def wobble(wave: np.ndarray, plain: np.ndarray, frequency: float) -> float:
    """Depth of a loudness wobble that `wave` has over `plain`, the same speech without it."""
    contours = [np.sqrt(np.convolve(each.astype(float) ** 2, np.ones(80) / 80, "same")) for each in (wave, plain)]
    loud = contours[1] > 0.3 * contours[1].max()
    ratio = contours[0][loud] / contours[1][loud]
    turning = np.exp(-2j * np.pi * frequency * np.flatnonzero(loud) / SAMPLE_RATE)
    return float(2 * np.abs(np.mean((ratio / ratio.mean() - 1) * turning)))


def test_every_emotion_has_its_own_prosody() -> None:
    """An emotion without one, or two that share one, cannot be heard."""
    assert tuple(PROSODIES) == EMOTIONS
    assert len(set(PROSODIES.values())) == len(EMOTIONS)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
@pytest.mark.parametrize("name", ENGINES)
def test_emotions_are_measurable_in_every_voice(name: str, number: int, request: pytest.FixtureRequest) -> None:
    """A parameter that does not reach the samples would leave an emotion a mere label."""
    engine: Engine = request.getfixturevalue(name)
    train, unseen = engine.train_voices, engine.unseen_voices
    voice = (train[0], train[-1], unseen[0], unseen[-1])[number]
    said = {emotion: speak(engine, WORDS, voice, Style(emotion=emotion)).pcm for emotion in EMOTIONS}
    neutral = said["neutral"]
    length = {emotion: len(wave) / len(neutral) for emotion, wave in said.items()}
    level = {emotion: rms_db(wave) for emotion, wave in said.items()}
    pitch = {emotion: np.median(pitches(wave)) / np.median(pitches(neutral)) for emotion, wave in said.items()}
    assert max(length["angry"], length["happy"], length["fearful"]) < 0.95
    assert min(length["sad"], length["disgusted"]) > 1.15
    for emotion, prosody in PROSODIES.items():
        assert level[emotion] == pytest.approx(-23 + prosody.gain, abs=1)  # the peak rule may lower it
    assert pitch["happy"] > 1.15 > 1.1 > pitch["angry"]
    assert pitch["surprised"] > 1.15
    assert pitch["sad"] < 0.95
    assert centroid(said["angry"]) > 1.3 * centroid(neutral) > 1.5 * centroid(said["sad"])
    plain = {emotion: engine.say(WORDS, voice, PROSODIES[emotion]).pcm for emotion in EMOTIONS}
    for emotion in EMOTIONS:
        trembles = wobble(said[emotion], plain[emotion], 10)
        creaks = wobble(said[emotion], plain[emotion], 40)
        assert trembles > 0.35 if emotion == "fearful" else trembles < 0.3
        assert creaks > 0.4 if emotion == "disgusted" else creaks < 0.2
    rise = {}
    for name, wave in (("said", said["surprised"]), ("plain", plain["surprised"])):
        first, second = np.array_split(wave, 2)
        rise[name] = rms_db(second) - rms_db(first)
    assert rise["said"] == pytest.approx(rise["plain"] + 7, abs=2)  # 14 dB from end to end, 7 between the halves


def test_colour_keeps_length_and_peak_and_is_deterministic() -> None:
    """Clipped or shifted speech would give wrong phone times and hide the level that was asked for."""
    wave = np.sin(2 * np.pi * 150 * np.arange(20_011) / SAMPLE_RATE).astype(np.float32)
    wave[5_000] = 40.0  # a click far above the rest: only the peak rule saves it
    loud = Prosody(gain=10, tilt=3, swell=6, tremor=1, roughness=0.5, breath=0.1)
    first, second = (colour(wave, loud, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.shape == wave.shape
    assert np.abs(first).max() <= PEAK + 1e-6
    assert np.isfinite(colour(np.zeros(1_000, np.float32), loud, np.random.default_rng(0))).all()


def test_jitter_stays_within_the_emotion() -> None:
    """Jitter beyond a few percent would make one emotion into another; none would make a class one recording."""
    rng = np.random.default_rng(0)
    for prosody in PROSODIES.values():
        drawn = [jittered(prosody, rng) for _ in range(50)]
        assert len({each.rate for each in drawn}) == 50
        assert all(abs(each.rate / prosody.rate - 1) <= 0.05 for each in drawn)
        assert all(0 <= each.pitch <= 99 and abs(each.pitch - prosody.pitch) <= 4 for each in drawn)

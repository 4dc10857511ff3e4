"""Events and music."""

import numpy as np
import pytest

from data_prep.synthesis.mixing.sounds import SOUND_NAMES, render


def spectrum(samples: np.ndarray) -> np.ndarray:
    """Log power in 40 bands of 200 Hz and its change over time: enough to know a sound by."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 640)[::160] * np.hanning(640)
    power = np.log(np.abs(np.fft.rfft(frames))[:, :320].reshape(len(frames), 40, 8).mean(axis=2) + 1e-2)
    return np.concatenate([power.mean(axis=0), power.std(axis=0)])


@pytest.mark.parametrize("name", SOUND_NAMES)
def test_level_length_and_determinism(name: str) -> None:
    """Levels in the corpus are set against RMS 1; a NaN or a silent start would be lost in the mix unseen."""
    for num_samples in (9_601, 40_000):
        samples = render(name, num_samples, np.random.default_rng(3))
        assert samples.shape == (num_samples,)
        assert samples.dtype == np.float32
        assert np.sqrt(np.mean(samples.astype(float) ** 2)) == pytest.approx(1, abs=1e-3)
        assert np.array_equal(samples, render(name, num_samples, np.random.default_rng(3)))
        assert not np.array_equal(samples, render(name, num_samples, np.random.default_rng(4)))


def test_sounds_are_told_apart() -> None:
    """Two sounds alike could not be named by any model: the nearest class mean finds new draws of each."""
    rng = np.random.default_rng(0)
    draw = {name: [spectrum(render(name, 12_000, rng)) for _ in range(12)] for name in SOUND_NAMES}
    means = np.array([np.mean(draws[:6], axis=0) for draws in draw.values()])
    found = [
        SOUND_NAMES[np.argmin(np.square(means - new).sum(axis=1))] == name
        for name in SOUND_NAMES
        for new in draw[name][6:]
    ]
    assert np.mean(found) >= 0.95

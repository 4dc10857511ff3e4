"""Loudness as pyloudnorm measures it."""

import numpy as np
import pyloudnorm
import pytest

from data_prep.synthesis.mixing.loudness import SILENCE, from_db, loudness, peak, to_db
from data_prep.synthesis.mixing.sounds import render
from omnichat.audio import SAMPLE_RATE
from tests.data_prep.synthesis.mixing.making import voiced

METER = pyloudnorm.Meter(SAMPLE_RATE)


@pytest.mark.parametrize("seconds", [0.4, 0.43, 0.449, 0.45, 0.4999, 1.0, 2.345, 7.77, 30.01])
def test_equals_pyloudnorm(seconds: float) -> None:
    """A meter of ours that drifts from the standard one would shift every level of every store."""
    rng = np.random.default_rng(round(seconds * 1000))
    count = round(seconds * SAMPLE_RATE)
    waves = {
        "speech": voiced(seconds, rng),
        "speech with a long pause": np.concatenate([voiced(seconds, rng), np.zeros(2 * count, np.float32)]),
        "noise": (0.01 * rng.standard_normal(count)).astype(np.float32),
        "bell": render("bell", count, rng) * np.float32(0.1),
        "loud": voiced(seconds, rng, level=2.0),
    }
    for name, wave in waves.items():
        assert loudness(wave) == pytest.approx(METER.integrated_loudness(wave), abs=0.001), name


def test_short_clips_are_one_block() -> None:
    """pyloudnorm refuses what is shorter than 0.4 s; a backchannel or a click is, and must be measured."""
    wave = voiced(0.2, np.random.default_rng(0))
    meter = pyloudnorm.Meter(SAMPLE_RATE, block_size=len(wave) / SAMPLE_RATE)
    assert loudness(wave) == pytest.approx(meter.integrated_loudness(wave), abs=0.001)


def test_silence_has_none() -> None:
    """Silence measured as a number would be raised to its target: by an infinite gain."""
    assert loudness(np.zeros(SAMPLE_RATE, np.float32)) == SILENCE
    assert loudness(np.zeros(0, np.float32)) == SILENCE
    assert loudness(np.full(100, 1e-7, np.float32)) == SILENCE


def test_a_known_sine() -> None:
    """EBU Tech 3341, case 1 and 3: 1 kHz, both channels at -23 dBFS, has -23 LUFS; one channel has 3 LU less."""
    time = np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE
    wave = (from_db(-23) * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)
    assert loudness(wave) == pytest.approx(-26.0, abs=0.1)


def test_decibels() -> None:
    """A peak of a negative sample counts, and 0 has no level."""
    assert peak(np.array([0.1, -0.5], np.float32)) == 0.5
    assert to_db(from_db(-0.5)) == pytest.approx(-0.5)
    assert to_db(0.0) == SILENCE

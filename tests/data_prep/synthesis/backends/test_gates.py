"""What a recording must pass."""

import numpy as np
import pytest
from numpy.typing import NDArray

from data_prep.synthesis.backends.gates import GateSettings, check_form, measure, spoken_characters
from data_prep.synthesis.stage import Retry
from omnichat.audio import SAMPLE_RATE

TEXT = "These words take two seconds."
LIMITS = (0.04, 0.16)


def tone(seconds: float, level: float = 0.3) -> NDArray[np.float32]:
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (level * np.sin(2 * np.pi * 200 * time)).astype(np.float32)


def silence(seconds: float) -> NDArray[np.float32]:
    return np.zeros(int(seconds * SAMPLE_RATE), np.float32)


def test_a_sound_recording_passes_with_its_measures() -> None:
    """The gate must not refuse what is right."""
    wave = np.concatenate([silence(0.2), tone(2.0), silence(0.3)])
    found = check_form(wave, TEXT, GateSettings(), LIMITS)
    assert found["seconds"] == 2.5
    assert found["speech_seconds"] == pytest.approx(2.0, abs=0.04)
    assert found["peak_db"] == pytest.approx(20 * np.log10(0.3), abs=0.01)
    assert found["clipped"] == 0


@pytest.mark.parametrize(
    ("wave", "reason"),
    [
        (silence(0), "tts_empty"),
        (tone(0.01), "tts_empty"),
        (np.zeros((2, 16000), np.float32), "tts_format"),
        (np.full(16000, np.nan, np.float32), "tts_format"),
        (silence(2), "tts_silent"),
        (tone(2, 0.001), "tts_silent"),
        (np.clip(tone(2, 1.2), -1, 1), "tts_clipped"),
        (tone(0.8), "dur_ratio"),  # words are missing
        (np.concatenate([tone(0.5), silence(1.5)]), "dur_ratio"),  # words are missing, silence in their place
        (tone(20), "dur_ratio"),  # ten times too long
        (np.concatenate([tone(2), silence(18)]), "dur_ratio"),  # ten times too long, of silence
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_fault_has_its_reason(wave: NDArray[np.float32], reason: str) -> None:
    """The report counts by reason: a wrong one sends the reader to the wrong part."""
    with pytest.raises(Retry) as refused:
        check_form(wave, TEXT, GateSettings(), LIMITS)
    assert refused.value.reason == reason


def test_a_clipped_recording_is_found_at_any_rate() -> None:
    """Resampled to 16 kHz, a flat top is no longer flat."""
    import soxr

    time = np.arange(48000) / 24000
    clipped = np.clip(1.5 * np.sin(2 * np.pi * 200 * time), -1, 1).astype(np.float32)
    wave = np.clip(soxr.resample(clipped, 24000, SAMPLE_RATE), -1, 1).astype(np.float32)
    assert measure(wave, TEXT)["clipped"] > 0.2


def test_spoken_characters_counts_what_takes_time() -> None:
    """Marks are silent; digits are words."""
    assert spoken_characters("Hello, world!") == len("hello world")
    assert spoken_characters("I don't -- know...") == len("I dont know")
    assert spoken_characters("7") == 5
    assert spoken_characters("Ich bin müde") == len("Ich bin müde")
    assert spoken_characters("?!") == 0

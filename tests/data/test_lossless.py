"""Cutting audio out: whatever the file, the stretch is heard as before, to the bit."""

import io
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from omnichat.audio import load_audio
from omnichat.data.lossless import cut_out
from omnichat.dialogue import AudioRef, DataError

WAVS = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW", "IMA_ADPCM"]
OTHERS = [("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16")]
STRETCHES = [(0, None), (0, 9_000), (12_345, 3_210), (30_001, 160)]


def record(path: Path, form: str, subtype: str, rate: int, channels: int) -> Path:
    """Two and a half seconds that differ on each channel."""
    time = np.arange(rate * 5 // 2) / rate
    noise = np.random.default_rng(rate).normal(0, 0.05, (len(time), channels))
    tone = 0.4 * np.sin(2 * np.pi * np.outer(time, 200 * (1 + np.arange(channels))))
    soundfile.write(path, tone + noise, rate, format=form, subtype=subtype)
    return path


def heard_again(ref: AudioRef, tmp_path: Path, keep: bool = False) -> tuple[AudioRef, str]:
    """The reference after its bytes were put into the middle of a file, and the subtype they have."""
    content, cut = cut_out(ref, keep)
    (tmp_path / "shard").write_bytes(b"before" + content + b"after")
    about = soundfile.info(io.BytesIO(content))
    return replace(cut, path=str(tmp_path / "shard"), offset=6), f"{about.format} {about.subtype}"


@pytest.mark.parametrize("rate", [16_000, 8_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize(("form", "subtype"), [*(("WAV", subtype) for subtype in WAVS), *OTHERS])
def test_every_stretch_of_every_format_is_heard_as_before(tmp_path: Path, form: str, subtype: str, rate: int) -> None:
    """One sample off, or resampled twice, and a store would not be the corpus that it was made from."""
    channels = 1 if subtype == "IMA_ADPCM" else 2
    path = record(tmp_path / "a", form, subtype, rate, channels)
    for (start, length), channel in itertools.product(STRETCHES, [None, *range(channels)]):
        ref = AudioRef(str(path), length or 40_000, start, channel)
        expected = load_audio(ref)
        for keep in (False, True):
            again, _ = heard_again(ref, tmp_path, keep)
            np.testing.assert_array_equal(load_audio(again), expected)


@pytest.mark.parametrize(
    ("form", "subtype", "start", "keep", "expected"),
    [
        ("WAV", "PCM_16", 0, False, "FLAC PCM_16"),
        ("WAV", "PCM_16", 0, True, "WAV PCM_16"),
        ("WAV", "PCM_16", 800, True, "FLAC PCM_16"),
        ("WAV", "PCM_24", 0, False, "FLAC PCM_24"),
        ("WAV", "PCM_U8", 0, False, "FLAC PCM_S8"),
        ("WAV", "ULAW", 800, False, "FLAC PCM_16"),
        ("WAV", "FLOAT", 0, False, "WAV FLOAT"),
        ("WAV", "PCM_32", 800, False, "WAV FLOAT"),
        ("OGG", "VORBIS", 0, False, "OGG VORBIS"),
        ("OGG", "VORBIS", 800, False, "WAV FLOAT"),
        ("FLAC", "PCM_24", 0, False, "FLAC PCM_24"),
    ],
)
def test_flac_where_it_fits(tmp_path: Path, form: str, subtype: str, start: int, keep: bool, expected: str) -> None:
    """Floats in FLAC would be rounded; integers in float WAVs would double the corpus."""
    path = record(tmp_path / "a", form, subtype, 16_000, 1)
    ref = AudioRef(str(path), 40_000 - start, start)
    assert heard_again(ref, tmp_path, keep)[1] == expected


def test_a_short_stretch_of_a_long_recording_is_short(tmp_path: Path) -> None:
    """A conversation of an hour kept once for each turn would not fit on any disk."""
    path = record(tmp_path / "a.wav", "WAV", "PCM_16", 24_000, 1)
    soundfile.write(path, np.tile(soundfile.read(path)[0], 20), 24_000)
    content, ref = cut_out(AudioRef(str(path), 1_600, 400_000))
    assert len(content) < 20_000
    assert soundfile.info(io.BytesIO(content)).frames == 2_400 + 2 * 2_400  # and 0.1 s of neighbours on both sides
    assert ref.start == 1_600


def test_what_cannot_be_heard_cannot_be_kept(tmp_path: Path) -> None:
    """A store is written once and read for years: faults must come out when it is written."""
    path = record(tmp_path / "a.wav", "WAV", "FLOAT", 16_000, 1)
    with pytest.raises(DataError, match=r"a.wav: .*\[truncated\]"):
        cut_out(AudioRef(str(path), 40_003))
    with pytest.raises(DataError, match=r"a.wav: .*\[no_channel\]"):
        cut_out(AudioRef(str(path), 1_000, channel=1))
    wave, _ = soundfile.read(path)
    wave[50] = np.nan
    soundfile.write(path, wave, 16_000, subtype="FLOAT")
    with pytest.raises(DataError, match=r"a.wav: .*\[not_finite\]"):
        cut_out(AudioRef(str(path), 1_000))

"""The time base and the reading of audio files."""

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from omnichat.audio import PIECE, audio_ref, load_audio, num_frames, num_windows, pieces, stored_samples
from omnichat.dialogue import AudioRef, DataError

SECOND = 16_000


def noise(samples: int, channels: int | None = None, seed: int = 0) -> NDArray[np.float32]:
    """White noise within +-0.5."""
    shape = samples if channels is None else (samples, channels)
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)


def write(path: Path, wave: NDArray[np.generic], rate: int = SECOND, subtype: str | None = "FLOAT") -> str:
    """Write a file and return its path."""
    soundfile.write(path, wave, rate, subtype=subtype)
    return str(path)


def test_frames_are_half_the_mel_frames_rounded_up() -> None:
    """By hand, whisper's own count: 160 samples a mel frame, two of them a frame."""
    counts = {160: 1, 319: 1, 320: 1, 480: 2, 639: 2, 640: 2, 799: 2, 800: 3, SECOND: 50, PIECE - 1: 1500, PIECE: 1500}
    assert {samples: num_frames(samples) for samples in counts} == counts


@pytest.mark.parametrize("window", [1, 5, 17, 88])
def test_windows_cover_all_frames_of_every_length(window: int) -> None:
    """No audio is lost: from 160 samples to 61 s, on and beside every border, counted by walking the pieces."""
    for samples in [*range(160, 6_000, 7), *range(PIECE - 400, PIECE + 400, 13), 60 * SECOND, 61 * SECOND]:
        left, expected = samples, 0
        while left >= 160:
            frames = -(-(min(left, PIECE) // 160) // 2)
            expected += -(-frames // window)
            left -= PIECE
        assert num_windows(samples, window) == expected, samples
        assert sum(length for _, length in pieces(samples)) > samples - 160


def test_pieces_are_thirty_seconds_and_a_rest() -> None:
    """A rest without a frame is no piece; a clip without a frame is an error."""
    assert pieces(PIECE + 159) == [(0, PIECE)]
    assert pieces(2 * PIECE + 160) == [(0, PIECE), (PIECE, PIECE), (2 * PIECE, 160)]
    with pytest.raises(DataError, match=r"159 samples.*\[too_short\]"):
        pieces(159)


@pytest.mark.parametrize(("name", "subtype"), [("a.wav", "PCM_16"), ("a.wav", "PCM_32"), ("a.flac", "PCM_16")])
def test_a_file_at_16_khz_is_read_as_it_is(name: str, subtype: str, tmp_path: Path) -> None:
    """Subtypes met in the wild; the samples must not change."""
    wave = (noise(SECOND) * 32768).round() / 32768
    ref = audio_ref(write(tmp_path / name, wave, subtype=subtype))
    assert ref.num_samples == SECOND
    assert np.array_equal(load_audio(ref), wave.astype(np.float32))


def test_float_files_beyond_one_are_not_clipped(tmp_path: Path) -> None:
    """CosyVoice's files reach 1.08; clipping changes them."""
    wave = noise(SECOND) * 4
    assert np.array_equal(load_audio(audio_ref(write(tmp_path / "a.wav", wave))), wave)


def test_channels_are_averaged(tmp_path: Path) -> None:
    """Taking one channel would lose a speaker of a stereo recording."""
    wave = noise(SECOND, 2)
    loaded = load_audio(audio_ref(write(tmp_path / "a.wav", wave)))
    np.testing.assert_allclose(loaded, wave.mean(axis=1), atol=1e-7)
    eight = noise(SECOND, channels=8)
    whole = load_audio(audio_ref(write(tmp_path / "eight.wav", eight)))
    np.testing.assert_allclose(whole, eight.mean(axis=1), atol=1e-6)


def test_one_channel_is_taken_where_it_is_named(tmp_path: Path) -> None:
    """Both speakers of a telephone recording heard at once would teach nothing of who says what."""
    wave = noise(SECOND, 2)
    ref = replace(audio_ref(write(tmp_path / "a.wav", wave)), channel=1)
    assert np.array_equal(load_audio(ref), wave[:, 1])
    for channel in (2, -1):
        with pytest.raises(DataError, match=rf"channel {channel} .* the file has 2 .*\[no_channel\]"):
            load_audio(replace(ref, channel=channel))


@pytest.mark.parametrize("rate", [SECOND, 44_100])
def test_a_file_inside_a_shard_is_read_as_if_it_lay_alone(rate: int, tmp_path: Path) -> None:
    """A stretch of it, too; and a shard that ends within it is named."""
    alone = write(tmp_path / "a.flac", noise(2 * rate), rate, "PCM_16")
    content = Path(alone).read_bytes()
    shard = tmp_path / "shard.bin"
    shard.write_bytes(b"x" * 13 + content + content[:100])
    ref = replace(audio_ref(alone), num_samples=9_000, start=700)
    inside = replace(ref, path=str(shard), offset=13, size=len(content))
    assert np.array_equal(load_audio(inside), load_audio(ref))
    assert stored_samples(inside) == 2 * SECOND
    with pytest.raises(DataError, match=r"shard.bin: ends within .*\[truncated\]"):
        load_audio(replace(inside, offset=200))


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 44_100, 48_000])
def test_other_rates_are_resampled(rate: int, tmp_path: Path) -> None:
    """A tone keeps its pitch, its level and its phase to the last sample but the edges."""
    time = np.arange(2 * rate) / rate
    ref = audio_ref(write(tmp_path / "a.wav", np.sin(2 * np.pi * 440 * time), rate))
    assert abs(ref.num_samples - 2 * SECOND) <= 1
    expected = np.sin(2 * np.pi * 440 * np.arange(2 * SECOND) / SECOND)
    inner = slice(800, -800)
    np.testing.assert_allclose(load_audio(ref)[: 2 * SECOND][inner], expected[: ref.num_samples][inner], atol=2e-4)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("start", [0, 1, 1_601, 16_001, 31_999])
def test_a_stretch_equals_the_same_stretch_of_the_whole(rate: int, start: int, tmp_path: Path) -> None:
    """A conversation cut at its silences: neither shifted by part of a sample nor disturbed at its edges."""
    path = write(tmp_path / "a.wav", noise(3 * rate), rate)
    whole = load_audio(audio_ref(path))
    part = load_audio(AudioRef(path, 4_000, start))
    np.testing.assert_allclose(part, whole[start : start + 4_000], atol=1e-6)


def cut(path: str, keep: float) -> str:
    """Lose the end of a file, as a copy that was stopped does."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: int(len(content) * keep)])
    return path


def broken_file(folder: Path, fault: str) -> AudioRef:
    """A reference to one second of a file with this fault."""
    path = folder / "a.wav"
    match fault:
        case "no_file":
            return AudioRef(str(path), SECOND)
        case "directory":
            path.mkdir()
            return AudioRef(str(path), SECOND)
        case "html":
            path.write_text("<html>404</html>")
        case "nothing":
            path.write_bytes(b"")
        case "no_samples":
            write(path, np.zeros(0))
        case "nan":
            write(path, np.where(np.arange(SECOND) == 9_000, np.nan, noise(SECOND)))
        case "infinite":
            write(path, np.where(np.arange(SECOND) == 9_000, np.inf, noise(SECOND)))
        case "half_a_wav":
            cut(write(path, noise(SECOND)), 0.5)
        case "half_a_flac":
            return AudioRef(cut(write(folder / "a.flac", noise(SECOND), subtype=None), 0.5), SECOND)
        case "half_at_44k":
            cut(write(path, noise(44_100), 44_100), 0.5)
        case "start_beyond":
            return AudioRef(write(path, noise(SECOND)), 1_000, 2 * SECOND)
        case "nine_channels":
            write(path, noise(SECOND, 9))
        case "too_short":
            return AudioRef(write(path, noise(SECOND)), 159)
        case _:
            raise AssertionError(fault)
    return AudioRef(str(path), SECOND)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("no_file", "no_file"),
        ("directory", "no_file"),
        ("html", "unreadable"),
        ("nothing", "unreadable"),
        ("no_samples", "empty"),
        ("nan", "not_finite"),
        ("infinite", "not_finite"),
        ("half_a_wav", "truncated"),
        ("half_a_flac", "unreadable"),
        ("half_at_44k", "truncated"),
        ("start_beyond", "truncated"),
        ("nine_channels", "too_many_channels"),
        ("too_short", "too_short"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(fault: str, reason: str, tmp_path: Path) -> None:
    """libsndfile reads most of these without a word, or says `System error.`"""
    ref = broken_file(tmp_path, fault)
    with pytest.raises(DataError) as caught:
        load_audio(ref)
    assert caught.value.reason == reason
    assert ref.path in str(caught.value)


def test_the_shortest_clip_and_the_last_sample_are_read(tmp_path: Path) -> None:
    """To the sample: 160 are a clip; up to two that rounding promised too many are silence, a third is a cut file.

    So is a shard whose last file ends a byte early; one that ends where the file does is whole.
    """
    wave = noise(1_000)
    path = write(tmp_path / "a.wav", wave)
    np.testing.assert_array_equal(load_audio(AudioRef(path, 160, 3)), wave[3:163])
    np.testing.assert_array_equal(load_audio(AudioRef(path, 1_002)), [*wave, 0, 0])
    with pytest.raises(DataError, match=r"\[truncated\]"):
        load_audio(AudioRef(path, 1_003))
    content = Path(path).read_bytes()
    (tmp_path / "shard").write_bytes(b"before" + content)
    inside = AudioRef(str(tmp_path / "shard"), 1_000, offset=6, size=len(content))
    np.testing.assert_array_equal(load_audio(inside), wave)
    (tmp_path / "shard").write_bytes(b"before" + content[:-1])
    with pytest.raises(DataError, match=r"ends within the audio at byte 6.*\[truncated\]"):
        load_audio(inside)


def test_nan_outside_the_stretch_is_no_fault_of_it(tmp_path: Path) -> None:
    """One broken turn of a conversation must not condemn the others."""
    path = write(tmp_path / "a.wav", np.where(np.arange(SECOND) == 15_000, np.nan, noise(SECOND)))
    assert np.isfinite(load_audio(AudioRef(path, 8_000))).all()


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    """Headers are remembered; one of a file that was replaced or deleted would give `System error.`"""
    ref = audio_ref(write(tmp_path / "a.wav", noise(SECOND)))
    assert audio_ref(write(tmp_path / "a.wav", noise(2 * SECOND))).num_samples == 2 * SECOND
    before = os.stat(ref.path)
    assert audio_ref(write(tmp_path / "a.wav", noise(2 * SECOND), rate=8_000)).num_samples == 4 * SECOND  # as large
    assert os.stat(ref.path).st_size == before.st_size
    write(tmp_path / "a.wav", noise(SECOND // 2))
    os.utime(ref.path, ns=(0, before.st_mtime_ns))  # as old
    assert audio_ref(ref.path).num_samples == SECOND // 2
    Path(ref.path).unlink()
    with pytest.raises(DataError, match=r"\[no_file\]"):
        load_audio(ref)


def test_a_header_within_a_shard_is_that_of_the_file_alone(tmp_path: Path) -> None:
    """What stands before and after it in the shard must not be read for a part of it."""
    for form, subtype in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")):
        encoded = io.BytesIO()
        soundfile.write(encoded, np.zeros(12_345), 24_000, format=form, subtype=subtype)
        content, shard = encoded.getvalue(), tmp_path / f"{form}.arrow"
        shard.write_bytes(content[:100] + content + content)
        assert stored_samples(AudioRef(str(shard), 0, offset=100, size=len(content))) == 12_345 * 2 // 3
        with pytest.raises(DataError, match=r"Error opening audio at byte 50.*\[unreadable\]"):
            stored_samples(AudioRef(str(shard), 0, offset=50, size=40))


def test_a_wav_that_was_cut_off_is_named_and_a_streamed_one_is_not(tmp_path: Path) -> None:
    """libsndfile takes what is there for the whole: a download that broke off would lose words in silence."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(SECOND), SECOND, subtype="PCM_16")
    content = path.read_bytes()
    path.write_bytes(content[:20_000])
    with pytest.raises(DataError, match=r"promises 32,000 bytes of samples, 19,956 are there; .*\[truncated\]"):
        audio_ref(path)
    streamed = content[:40] + b"\xff\xff\xff\xff" + content[44:]
    path.write_bytes(streamed)
    assert audio_ref(path).num_samples == SECOND
    extra = content[:36] + b"LIST\x03\x00\x00\x00abc\x00" + content[36:]  # chunks of odd size are padded
    path.write_bytes(extra)
    assert audio_ref(path).num_samples == SECOND
    path.write_bytes(extra[:20_000])
    with pytest.raises(DataError, match=r"promises 32,000 bytes of samples, 19,944 are there; .*\[truncated\]"):
        audio_ref(path)


@pytest.mark.parametrize(
    ("form", "subtype", "endian"), [("WAV", "PCM_24", "BIG"), ("RF64", "PCM_16", "FILE"), ("AIFF", "FLOAT", "FILE")]
)
def test_relatives_of_wav_that_were_cut_off_are_named(form: str, subtype: str, endian: str, tmp_path: Path) -> None:
    """libsndfile corrects their lengths in silence too, and RF64 is what recordings of hours are kept in."""
    path = tmp_path / "a.audio"
    soundfile.write(path, noise(SECOND), SECOND, format=form, subtype=subtype, endian=endian)
    assert audio_ref(path).num_samples == SECOND
    cut(str(path), 0.5)
    assert stored_samples(AudioRef(str(path), 0)) < SECOND
    with pytest.raises(DataError, match=r"promises [0-9,]+ bytes of samples, .*\[truncated\]"):
        audio_ref(path)


def test_flac_that_does_not_say_its_length_is_named(tmp_path: Path) -> None:
    """`ffmpeg -f flac -` writes such files; libsndfile takes them for 2**63 - 1 samples, and so did the reference."""
    path = Path(write(tmp_path / "a.flac", noise(SECOND), subtype="PCM_16"))
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the number of samples: 36 bits of STREAMINFO (RFC 9639, section 8.2)
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"does not say how long it is.*\[unreadable\]"):
        audio_ref(path)
    with pytest.raises(DataError, match=r"does not say how long it is.*\[unreadable\]"):
        load_audio(AudioRef(str(path), 8_000))


def test_an_average_beyond_float32_is_not_finite(tmp_path: Path) -> None:
    """Two channels, each of them finite, whose sum is not: infinities would reach the encoders."""
    wave = np.full((SECOND, 2), 3e38, dtype=np.float32)
    with pytest.raises(DataError, match=r"\[not_finite\]"):
        load_audio(audio_ref(write(tmp_path / "a.wav", wave)))

"""The time base, and audio files as 16 kHz mono waveforms.

All lengths are in samples at 16 kHz. Frames come at 50 a second, windows hold 17 of them:
0.34 s, SALMONN's `second_per_window` of 0.333 s rounded to frames.
"""

import io
import os
import stat
from dataclasses import replace
from functools import lru_cache
from math import gcd
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from omnichat.dialogue import AudioRef, DataError

SAMPLE_RATE = 16_000
FRAME_RATE = 50
HOP = 160  # samples between two mel frames (whisper/audio.py HOP_LENGTH); two of them make one encoder frame
WINDOW = 17
PIECE = 30 * SAMPLE_RATE  # Whisper's context; longer clips are cut into pieces of it, for every expert alike
MIN_SAMPLES = HOP  # a shorter clip gives no frame
MAX_CHANNELS = 8
_NO_LENGTH = 2**62  # file samples, and more than any file has: libsndfile's word for a length that nobody wrote
_STREAMED = 0x7FFFF000  # bytes; what pipes write for a length they do not know yet (sox, ffmpeg: 2 or 4 GiB)

# Forms made of chunks, by their first words: the order of the bytes in a number, and the chunk of the samples.
_CHUNKED: dict[tuple[bytes, bytes], tuple[Literal["little", "big"], bytes]] = {
    (b"RIFF", b"WAVE"): ("little", b"data"),
    (b"RF64", b"WAVE"): ("little", b"data"),
    (b"RIFX", b"WAVE"): ("big", b"data"),
    (b"FORM", b"AIFF"): ("big", b"SSND"),
    (b"FORM", b"AIFC"): ("big", b"SSND"),
}


def num_frames(num_samples: int) -> int:
    """Frames of a clip of up to 30 s: Whisper's count, ceil((S // 160) / 2), to which the other experts are padded."""
    return (num_samples // HOP + 1) // 2


def pieces(num_samples: int) -> list[tuple[int, int]]:
    """(start, length) of the 30 s pieces of a clip, in samples.

    A tail shorter than one hop gives no frame and is left out, as Whisper's own rounding does.

    Raises:
        DataError: `too_short` where not even one frame is left.
    """
    if num_samples < MIN_SAMPLES:
        message = f"{num_samples} samples at 16 kHz give no frame; at least {MIN_SAMPLES} are needed"
        raise DataError("too_short", message)
    starts = range(0, num_samples, PIECE)
    return [(start, length) for start in starts if (length := min(PIECE, num_samples - start)) >= MIN_SAMPLES]


def num_windows(num_samples: int, window: int = WINDOW) -> int:
    """Windows of a clip of any length, the last one of each piece possibly partial: ceil(frames / window) per piece."""
    return sum(-(-num_frames(length) // window) for _, length in pieces(num_samples))


def audio_ref(path: Path | str) -> AudioRef:
    """A reference to a whole file, its length read from the header.

    Raises:
        DataError: `no_file`; else see `load_audio`; `truncated` where a WAV or AIFF ends before the length that its
            header promises, which libsndfile corrects in silence: nobody could tell later that something was lost.
    """
    if not os.path.isfile(path):  # no store has named it, whose root might be wrong
        raise DataError("no_file", "no such audio file; correct its path", str(path))
    ref = AudioRef(str(path), 0)
    ref = replace(ref, num_samples=stored_samples(ref))
    check_whole(ref.path)
    return ref


def check_whole(path: str) -> None:
    """Raise where a WAV (RIFX and RF64 too) or AIFF ends before the length that its header promises.

    Compressed forms show it when they are decoded.

    Raises:
        DataError: `truncated`.
    """
    promised, there = _promised_bytes(path)
    if promised > there:
        message = f"its header promises {promised:,} bytes of samples, {there:,} are there; copy it again"
        raise DataError("truncated", message, path)


def stored_samples(ref: AudioRef) -> int:
    """Samples at 16 kHz of the whole audio file behind a reference, by its header.

    Raises:
        DataError: see `load_audio`.
    """
    frames, rate = _header(ref)
    return _at_16k(frames, rate)


def load_audio(ref: AudioRef) -> NDArray[np.float32]:
    """The referenced stretch as a (num_samples,) float32 waveform at 16 kHz, channels averaged or one of them taken.

    Samples beyond +-1 (float files) are kept: clipping them would be a silent change of the data.

    Raises:
        DataError: `no_file`, `unreadable`, `empty`, `too_many_channels`, `no_channel`, `truncated` (fewer samples than
            the reference promises), `not_finite` or `too_short`; always with the path.
    """
    if ref.num_samples < MIN_SAMPLES:
        message = f"{ref.num_samples} samples at 16 kHz give no frame; at least {MIN_SAMPLES} are needed"
        raise DataError("too_short", message, ref.path)
    frames, rate = _header(ref)
    first, stop = file_span(ref)
    wave = decode(ref, first, stop) if first < stop else np.zeros(0, dtype=np.float32)
    if rate != SAMPLE_RATE:
        import soxr  # here and below: what reads no audio file runs without the libraries that decode them

        wave = soxr.resample(wave, rate, SAMPLE_RATE)
    wave = wave[ref.start - first * SAMPLE_RATE // rate :]
    missing = ref.num_samples - len(wave)
    if missing > 2:  # resampling may round a length by a sample
        there = f"the file holds {_at_16k(frames, rate)} of them"
        message = f"{ref.num_samples} samples at 16 kHz from {ref.start} are asked for, {there}; render the file again"
        raise DataError("truncated", message, ref.path)
    wave = np.pad(wave, (0, missing)) if missing > 0 else wave[: ref.num_samples]
    return np.ascontiguousarray(wave, dtype=np.float32)


def file_span(ref: AudioRef) -> tuple[int, int]:
    """File samples [first, stop), at the file's own rate, that `load_audio` reads for a stretch.

    Raises:
        DataError: see `load_audio`.
    """
    frames, rate = _header(ref)
    # Resampling needs neighbours on both sides, and a first file sample that falls on a sample at 16 kHz: one in
    # between would shift the wave by part of a sample. `grid` file samples last as long as whole samples at 16 kHz.
    grid, margin = rate // gcd(rate, SAMPLE_RATE), 0 if rate == SAMPLE_RATE else rate // 10
    first = max(0, ref.start * rate // SAMPLE_RATE - margin) // grid * grid
    stop = min(frames, -(-(ref.start + ref.num_samples) * rate // SAMPLE_RATE) + margin)
    return first, stop


def file_bytes(ref: AudioRef) -> bytes:
    """The whole audio file behind a reference, as it was encoded.

    Raises:
        DataError: `no_file`, or `truncated` where the shard ends before the file does.
    """
    try:
        with open(ref.path, "rb") as file:
            file.seek(ref.offset)
            content = file.read(ref.size or -1)
    except (OSError, ValueError) as error:
        raise DataError("no_file", f"cannot be read ({error}); check the store's root", ref.path) from None
    if ref.size and len(content) != ref.size:
        raise _cut_short(ref)
    return content


def _cut_short(ref: AudioRef) -> DataError:
    return DataError("truncated", f"ends within the audio at byte {ref.offset}; copy the shard again", ref.path)


def opened(ref: AudioRef) -> str | io.BytesIO:
    """The audio file behind a reference, as `soundfile` takes it."""
    return io.BytesIO(file_bytes(ref)) if ref.size else ref.path


def decode(ref: AudioRef, first: int, stop: int) -> NDArray[np.float32]:
    """(stop - first,) file samples at the file's own rate, channels averaged or one of them taken.

    Raises:
        DataError: `unreadable`, `truncated` or `not_finite`.
    """
    import soundfile

    path = ref.path
    try:
        samples, _ = soundfile.read(opened(ref), start=first, stop=stop, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        message = f"cannot be decoded ({error}); convert it to WAV or FLAC again"
        raise DataError("unreadable", message, path) from None
    if len(samples) != stop - first:
        message = f"the header promises samples up to {stop}, only {first + len(samples)} could be read; copy it again"
        raise DataError("truncated", message, path)
    if ref.channel is not None:
        samples = samples[:, ref.channel, None]
    with np.errstate(over="ignore", invalid="ignore"):
        wave: NDArray[np.float32] = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    if not np.isfinite(wave).all():
        raise DataError("not_finite", "holds NaN or infinite samples; render the file again", path)
    return wave


def _at_16k(frames: int, rate: int) -> int:
    return round(frames * SAMPLE_RATE / rate)


def _header(ref: AudioRef) -> tuple[int, int]:
    """Samples (at the file's own rate) and rate."""
    path = ref.path
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        status = None
    if status is None or not stat.S_ISREG(status.st_mode):
        raise DataError("no_file", "no such audio file; check the store's root and the manifest's path", path)
    if ref.size and ref.offset + ref.size > status.st_size:
        raise _cut_short(ref)
    whole = AudioRef(path, 0, offset=ref.offset, size=ref.size)
    frames, rate, channels = _read_header(whole, status.st_size, status.st_mtime_ns)
    if ref.channel is not None and not 0 <= ref.channel < channels:
        message = f"channel {ref.channel} is asked for, the file has {channels} (counted from 0); correct the manifest"
        raise DataError("no_channel", message, path)
    return frames, rate


def _promised_bytes(path: str) -> tuple[int, int]:
    """Bytes of samples that a file of chunks promises, and those that are there; zeros for others, and streamed ones.

    RIFF and its relatives: RIFX and AIFF count with the high byte first, RF64 (EBU Tech 3306) has what 32 bits do not
    hold in a chunk `ds64`: the size of the file and that of the samples.
    """
    with open(path, "rb") as file:
        kind, form = file.read(4), file.read(8)[4:]
        if (kind, form) not in _CHUNKED:
            return 0, 0
        order, samples = _CHUNKED[kind, form]
        long_size = 0
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[4:], order)
            if head[:4] == samples:
                there = os.fstat(file.fileno()).st_size - file.tell()
                size = long_size if size == 2**32 - 1 and long_size else size
                return (size, there) if size < _STREAMED or long_size else (0, 0)
            if head[:4] == b"ds64":
                long_size = int.from_bytes(file.read(16)[8:], "little")
                size -= 16
            file.seek(size + size % 2, os.SEEK_CUR)
    return 0, 0


@lru_cache(maxsize=65_536)
def _read_header(ref: AudioRef, size: int, changed: int) -> tuple[int, int, int]:
    import soundfile

    # Size and time of change are part of the key: a file that was replaced is read again.
    path = ref.path
    try:
        with open(path, "rb", buffering=0) as file:  # of a file that may not be read, libsndfile says "System error."
            info = soundfile.info(_Part(file, ref.offset, ref.size) if ref.size else path)
    except OSError as error:
        raise DataError("unreadable", f"cannot be opened ({error.strerror}); correct its permissions", path) from None
    except (soundfile.LibsndfileError, RuntimeError, ValueError, TypeError) as error:
        message = f"not an audio file that libsndfile reads ({error}); convert it to WAV or FLAC"
        raise DataError("unreadable", message, path) from None
    if info.frames == 0:
        raise DataError("empty", "holds no samples; render the file again, or leave the turn out", path)
    if info.frames >= _NO_LENGTH:
        message = "its header does not say how long it is, as of FLAC that was written to a pipe; write it to a file"
        raise DataError("unreadable", message, path)
    if info.channels > MAX_CHANNELS:
        raise DataError("too_many_channels", f"{info.channels} channels; at most {MAX_CHANNELS} are averaged", path)
    if info.samplerate < 1_000 or info.samplerate > 768_000:
        raise DataError("unreadable", f"a sample rate of {info.samplerate} Hz is not plausible", path)
    return info.frames, info.samplerate, info.channels


class _Part(io.RawIOBase):
    """The bytes of an audio file within a shard, as a file: a header is read without the rest."""

    def __init__(self, shard: io.FileIO, offset: int, size: int) -> None:
        self._shard, self._offset, self._size, self._place = shard, offset, size, 0

    def __repr__(self) -> str:
        return f"audio at byte {self._offset}"  # libsndfile's messages show it

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = (0, self._place, self._size)[whence] + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self._shard.seek(self._offset + self._place)
        count = self._shard.readinto(view[: max(0, min(len(view), self._size - self._place))])
        self._place += count
        return count

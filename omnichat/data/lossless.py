"""A stretch of an audio file as a file of its own, with not one sample changed: `load_audio` gives the same wave.

Samples stay at the file's own rate. Where a stretch is resampled when it is heard, its neighbours are kept too.
"""

import hashlib
import io
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from omnichat.audio import SAMPLE_RATE, decode, file_bytes, file_span, load_audio, opened
from omnichat.dialogue import AudioRef

# FLAC subtypes of libsndfile that hold every sample of a subtype: A-law and mu-law decode to 16 bits.
_FLAC = {
    "PCM_U8": "PCM_S8",
    "PCM_S8": "PCM_S8",
    "PCM_16": "PCM_16",
    "PCM_24": "PCM_24",
    "ALAW": "PCM_16",
    "ULAW": "PCM_16",
}
_MAX_FLAC_RATE = 655_350  # RFC 9639, section 8.2: 20 bits, in libFLAC's range
_COMPRESSED = ("FLAC", "OGG", "MP3")  # containers that are already smaller than what we would write


def cut_out(ref: AudioRef, keep: bool = False) -> tuple[bytes, AudioRef]:
    """The bytes of an audio file that holds the stretch, and where the stretch lies in it.

    FLAC where its integers hold the samples; 32-bit float WAV of the one channel that is heard where they do not. A
    file that is heard whole keeps its bytes where it is compressed already, or with `keep`.

    Args:
        ref: the stretch.
        keep: whether a file that is heard whole keeps its bytes in any case.

    Returns:
        The bytes, and a reference with `size` and `sha256` of them; its path and offset are still those of `ref`.

    Raises:
        DataError: what `load_audio` finds.
    """
    load_audio(ref)  # whatever is wrong with the stretch is found now
    first, stop = file_span(ref)
    about = soundfile.info(opened(ref))
    if (first, stop) == (0, about.frames) and (keep or about.format in _COMPRESSED):
        content, moved = file_bytes(ref), ref
    else:
        start = ref.start - first * SAMPLE_RATE // about.samplerate  # whole: `file_span` begins on a sample at 16 kHz
        moved = replace(ref, start=start, channel=None)
        content = _flac(ref, first, stop, about) or _float_wav(decode(ref, first, stop), about.samplerate)
    return content, replace(moved, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def _flac(ref: AudioRef, first: int, stop: int, about: Any) -> bytes:
    """The stretch as FLAC; nothing where FLAC would change it."""
    subtype = _FLAC.get(about.subtype)
    if subtype is None or about.samplerate > _MAX_FLAC_RATE:
        return b""
    samples, _ = soundfile.read(opened(ref), start=first, stop=stop, dtype="int32", always_2d=True)
    if ref.channel is not None:
        samples = samples[:, ref.channel, None]
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, about.samplerate, format="FLAC", subtype=subtype)
    again, _ = soundfile.read(io.BytesIO(encoded.getvalue()), dtype="int32", always_2d=True)
    return encoded.getvalue() if np.array_equal(again, samples) else b""


def _float_wav(wave: NDArray[np.float32], rate: int) -> bytes:
    """A WAV of one channel. Ours, as libsndfile stamps the time into float WAVs: equal input would give other bytes."""
    samples = wave.astype("<f4").tobytes()
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + len(samples), b"WAVE"),
        *(b"fmt ", 16, 3, 1, rate, 4 * rate, 4, 32),  # format 3: IEEE float; one channel
        *(b"data", len(samples)),
    )
    return header + samples

"""Files by their content: `blobs/ab/abcdef....flac`. What has a name is whole and on the disk."""

import errno
import hashlib
import io
import os
import threading
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from data_prep.synthesis.stage import Refused, Reject
from omnichat.audio import SAMPLE_RATE

SUFFIX = ".flac"


def blob_path(folder: Path, name: str) -> Path:
    """Where the blob `name` (SHA-256 of its bytes, in hex) lies."""
    return folder / name[:2] / f"{name}{SUFFIX}"


def write_audio(folder: Path, wave: NDArray[np.float32]) -> str:
    """Keep (S,) float32 at 16 kHz in -1..1 as 16-bit FLAC; the blob's name. Equal samples give one blob.

    Raises:
        Reject: `disk_full`.
    """
    buffer = io.BytesIO()
    pcm = np.round(np.clip(wave, -1, 1) * 32767).astype(np.int16)
    soundfile.write(buffer, pcm, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    data = buffer.getvalue()
    name = hashlib.sha256(data).hexdigest()
    path = blob_path(folder, name)
    if path.is_file():
        return name
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Reject("disk_full", f"{path.parent}: {error.strerror}; free some space, then `resume`") from None
        raise
    return name


def read_audio(folder: Path, name: str) -> NDArray[np.float32]:
    """The blob's samples: (S,) float32.

    Raises:
        Refused: `internal` where it is missing or damaged; `verify` finds all of them.
    """
    path = blob_path(folder, name)
    try:
        wave, rate = soundfile.read(path, dtype="float32")
    except (OSError, soundfile.LibsndfileError) as error:
        raise Refused("internal", f"{path}: {error}; run `verify`") from None
    if rate != SAMPLE_RATE or wave.ndim != 1:
        raise Refused("internal", f"{path}: not 16 kHz mono; run `verify`")
    samples: NDArray[np.float32] = wave
    return samples

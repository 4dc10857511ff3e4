"""Stretches of recordings that hold more than one turn."""

from pathlib import Path

import soundfile

from omnichat.audio import SAMPLE_RATE, stored_samples
from omnichat.dialogue import AudioRef, DataError

SLACK = 0.5  # s that an annotation may reach beyond its recording. Ours: more than rounding, less than a lost word


def stretch(path: Path, start: float, stop: float, channel: int | None = None) -> AudioRef:
    """From `start` to `stop` seconds of a recording, of one channel or of all of them.

    An annotated end within 0.5 s after the recording's is taken for its end.

    Raises:
        DataError: `bad_times`, `no_channel`, or what is wrong with the file (see `omnichat.audio.load_audio`).
    """
    there = stored_samples(AudioRef(str(path), 0))
    first, last = round(start * SAMPLE_RATE), round(stop * SAMPLE_RATE)
    if not 0 <= first < min(last, there) or last > there + SLACK * SAMPLE_RATE:
        message = f"{start:.3f} to {stop:.3f} s are not within its {there / SAMPLE_RATE:.3f} s; fetch it again"
        raise DataError("bad_times", message, str(path))
    if channel is not None and channel >= (channels := soundfile.info(path).channels):
        message = f"channel {channel} is asked for, the file has {channels} (counted from 0)"
        raise DataError("no_channel", message, str(path))
    return AudioRef(str(path), min(last, there) - first, first, channel)

"""Stretches of recordings: rounding, ends that are annotated too late, and channels."""

from pathlib import Path

import pytest

from omnichat.data.corpora.recordings import stretch
from omnichat.dialogue import AudioRef, DataError
from tests.corpora import write_levels


def test_a_stretch_is_rounded_to_samples_and_ends_with_its_recording(tmp_path: Path) -> None:
    """One second in two channels at 8 kHz: an end that is 0.4 s late is the recording's own."""
    path = str(write_levels(tmp_path / "a.wav", [0.1, 0.2], [0.3, 0.4], rate=8_000))
    assert stretch(Path(path), 0.25, 0.5) == AudioRef(path, 4_000, 4_000)
    assert stretch(Path(path), 0.00004, 1.0, 1) == AudioRef(path, 15_999, 1, 1)
    assert stretch(Path(path), 0.5, 1.4, 0) == AudioRef(path, 8_000, 8_000, 0)


@pytest.mark.parametrize(
    ("start", "stop", "channel", "reason"),
    [
        (0.5, 0.5, None, "bad_times"),
        (0.6, 0.5, None, "bad_times"),
        (-0.1, 0.5, None, "bad_times"),
        (0.5, 1.6, None, "bad_times"),
        (1.0, 1.2, None, "bad_times"),
        (0.0, 0.5, 2, "no_channel"),
    ],
)
def test_what_is_not_there_is_named(
    start: float, stop: float, channel: int | None, reason: str, tmp_path: Path
) -> None:
    """It would come up in training, as a truncated or silent turn."""
    path = write_levels(tmp_path / "a.wav", [0.1, 0.2], [0.3, 0.4])
    with pytest.raises(DataError, match=rf"a\.wav: .*\[{reason}\]"):
        stretch(path, start, stop, channel)

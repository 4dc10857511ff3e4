"""The audio that a run hears, once each, in batches of similar length, decoded ahead of the experts."""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from omnichat import build
from omnichat.audio import SAMPLE_RATE, load_audio, pieces
from omnichat.config import RunConfig
from omnichat.data.features import PieceDigests
from omnichat.data.store import Store
from omnichat.dialogue import AudioRef

BATCH_SAMPLES = 120 * SAMPLE_RATE  # audio encoded in one call, padding included; bounds memory whatever the lengths
READ_AHEAD = 2  # batches decoded while one is encoded


class Clip(NamedTuple):
    """A stretch of audio and the names of its 30 s pieces."""

    ref: AudioRef
    digests: tuple[bytes, ...]


def heard_clips(config: RunConfig) -> list[Clip]:
    """Every clip of a user turn, once, longest first: a batch too large for the device fails at once.

    Raises:
        DataError: audio that cannot be read, or is too short, with its path.
    """
    stores = [*build.training_stores(config).values(), *build.validation_stores(config).values()]
    refs = {
        turn.audio: None
        for path in stores
        for store in [Store(path)]
        for row in range(len(store))
        for turn in store[row].turns
        if turn.role == "user" and turn.audio is not None
    }
    digests_of = PieceDigests()
    clips: dict[tuple[bytes, ...], Clip] = {}
    for ref in refs:
        clip = Clip(ref, tuple(digests_of(ref)))
        clips.setdefault(clip.digests, clip)
    return sorted(clips.values(), key=lambda clip: (-clip.ref.num_samples, clip.digests))


def in_batches(clips: Sequence[Clip]) -> list[list[Clip]]:
    """Neighbours together, as many as `BATCH_SAMPLES` holds when each is padded to the first; at least one."""
    batches: list[list[Clip]] = []
    for clip in clips:
        if not batches or (len(batches[-1]) + 1) * batches[-1][0].ref.num_samples > BATCH_SAMPLES:
            batches.append([])
        batches[-1].append(clip)
    return batches


def decoded(batches: Sequence[list[Clip]], threads: int) -> Iterator[tuple[list[Clip], list[NDArray[np.float32]]]]:
    """Each batch with the waves of its pieces, decoded while earlier ones are encoded; shows how far it is."""
    total = sum(clip.ref.num_samples for batch in batches for clip in batch) / SAMPLE_RATE
    with ThreadPoolExecutor(max(1, threads)) as pool, _Bar(total) as bar:
        waiting = [[pool.submit(_waves, clip) for clip in batch] for batch in batches[:READ_AHEAD]]
        for number, batch in enumerate(batches):
            if number + READ_AHEAD < len(batches):
                waiting.append([pool.submit(_waves, clip) for clip in batches[number + READ_AHEAD]])
            yield batch, [wave for decoding in waiting.pop(0) for wave in decoding.result()]
            bar.advance(sum(clip.ref.num_samples for clip in batch) / SAMPLE_RATE)


def _waves(clip: Clip) -> list[NDArray[np.float32]]:
    wave = load_audio(clip.ref)
    return [wave[start : start + length] for start, length in pieces(len(wave))]


class _Bar:
    """Progress in seconds of audio: a bar on a terminal, a line for each tenth in a log."""

    def __init__(self, total: float) -> None:
        self._total, self._done = total, 0.0
        columns = (TextColumn("encoding"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True)) if sys.stderr.isatty() else None
        self._task = self._progress.add_task("encoding", total=total) if self._progress is not None else None

    def advance(self, seconds: float) -> None:
        """So much more audio is done."""
        tenth = int(10 * self._done / self._total)
        self._done += seconds
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self._done)
        elif int(10 * self._done / self._total) > tenth:
            print(f"encoded {self._done / 3600:.3f} of {self._total / 3600:.3f} h", file=sys.stderr, flush=True)

    def __enter__(self) -> "_Bar":
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

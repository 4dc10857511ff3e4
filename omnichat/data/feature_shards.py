"""Shards of cached frames, each written by one process, once, and never changed.

`NNNNN.frames` holds rows of D numbers, `NNNNN.index.npy` the digest, first row and row count of each piece. A shard
is there once its index is: readers open every index they find, so processes that fill one folder need not know of each
other, and nothing is merged. What a killed process left (frames without an index) is told by its lock, which died with
it, and dropped.
"""

import errno
import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from omnichat.dialogue import DataError

INDEX = np.dtype([("high", "<u8"), ("low", "<u8"), ("start", "<i8"), ("count", "<i4")])
DIGEST_BYTES = 16
# Ours. Large shards: a reader keeps a file open for each. Not too large, nor long in the making: a process that is
# killed loses its last one.
SHARD_BYTES = 4 << 30
SHARD_SECONDS = 600.0
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CURE = "delete it and run python -m omnichat.training.precompute again"


class ShardIndex:
    """Where the pieces of a folder of shards lie: sorted by digest, opened in milliseconds for 200,000 of them.

    Raises:
        DataError: `damaged_features` for an index that cannot be read, `truncated_features` for frames that lack rows
            their index names; both with the file.
    """

    def __init__(self, folder: Path, row_bytes: int = 0) -> None:
        """`row_bytes`: of a row of frames, to check that the frames are there; 0 does not check."""
        self.files: list[Path] = []
        parts = []
        for path in sorted(folder.glob("*.index.npy")):
            part = _read_index(path)
            frames = _frames_of(path)
            named = int((part["start"] + part["count"]).max(initial=0)) * row_bytes
            size = frames.stat().st_size if frames.is_file() else 0
            if size < named:
                message = f"holds {size} bytes, its index names {named}; delete {path.name} too: {_CURE}"
                raise DataError("truncated_features", message, str(frames))
            parts.append(part)
            self.files.append(frames)
        pieces = np.concatenate(parts) if parts else np.zeros(0, INDEX)
        shards = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
        # Stable: of a piece that two processes wrote, every reader takes the one in the first shard.
        order = np.argsort(pieces["high"], kind="stable")
        self._high = np.ascontiguousarray(pieces["high"][order])
        self._rest, self._shards = pieces[order], shards[order]

    def __len__(self) -> int:
        """Number of pieces; one that two processes wrote counts twice."""
        return len(self._high)

    def find(self, digest: bytes) -> tuple[int, int, int] | None:
        """The shard (a place in `files`), first row and number of rows of a piece."""
        high, low = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
        place = int(self._high.searchsorted(np.uint64(high)))
        while place < len(self._high) and self._high[place] == high:
            piece = self._rest[place]
            if piece["low"] == low:
                return int(self._shards[place]), int(piece["start"]), int(piece["count"])
            place += 1
        return None

    def contains(self, digests: Sequence[bytes]) -> NDArray[np.bool_]:
        """(P,) bool, whether each of P pieces is there."""
        wanted = np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)
        if not len(self):
            return np.zeros(len(wanted), dtype=np.bool_)
        places = self._high.searchsorted(wanted[:, 0]).clip(max=len(self) - 1)
        found: NDArray[np.bool_] = (self._high[places] == wanted[:, 0]) & (self._rest["low"][places] == wanted[:, 1])
        for place in ((self._high[places] == wanted[:, 0]) & ~found).nonzero()[0]:  # two pieces share the first half
            found[place] = self.find(digests[place]) is not None
        return found


class ShardWriter:
    """Appends pieces to shards of its own; each becomes readable as a whole, when it is full or the writer closes.

    Raises:
        DataError: `disk_full`; the shards that were finished stay.
    """

    def __init__(
        self, folder: Path, dim: int, dtype: np.dtype, limit: int = SHARD_BYTES, seconds: float = SHARD_SECONDS
    ) -> None:
        self._folder, self._dim, self._dtype = folder, dim, dtype
        self._limit, self._seconds = limit, seconds
        self._file: BinaryIO | None = None
        self._path = folder
        self._pieces: list[tuple[int, int, int, int]] = []
        self._rows, self._opened = 0, 0.0

    def add(self, digest: bytes, frames: NDArray[np.generic]) -> None:
        """Append the frames (N, D) of a piece."""
        try:
            if self._file is None:
                self._open()
            assert self._file is not None
            self._file.write(np.ascontiguousarray(frames, dtype=self._dtype).data)
        except OSError as error:
            raise self._explained(error) from None
        high, low = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
        self._pieces.append((high, low, self._rows, len(frames)))
        self._rows += len(frames)
        full = self._rows * self._dim * self._dtype.itemsize >= self._limit
        if full or time.monotonic() - self._opened > self._seconds:
            self.close()

    def close(self) -> None:
        """Finish the shard that is being written, if there is one: frames on the disk, then their index."""
        if self._file is None:
            return
        file, self._file = self._file, None
        pieces, self._pieces = np.array(self._pieces, dtype=INDEX), []
        index = self._path.with_suffix(".index.npy")
        partial = self._path.with_suffix(".index.partial")
        try:
            with file:  # the lock goes with it
                # A piece whose writing was interrupted is not in the index, and is cut off.
                file.flush()
                file.truncate(self._rows * self._dim * self._dtype.itemsize)
                os.fsync(file.fileno())
                with partial.open("wb") as written:
                    np.save(written, np.sort(pieces, order=("high", "low")))
                    written.flush()
                    os.fsync(written.fileno())
                os.replace(partial, index)
        except OSError as error:
            partial.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
            raise self._explained(error) from None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        """Take the next free number. Creating and locking are two steps: a cleaner may have come between them."""
        number = 0
        while True:
            self._path = self._folder / f"{number:05d}.frames"
            number += 1
            try:
                file = self._path.open("xb")
            except FileExistsError:
                continue
            try:
                if _lock(file) and os.fstat(file.fileno()).st_nlink:
                    break
            except OSError:  # no locks at all: another number would have none either
                self._path.unlink(missing_ok=True)
                file.close()
                raise
            file.close()
        self._file, self._rows, self._opened = file, 0, time.monotonic()

    def _explained(self, error: OSError) -> DataError:
        if error.errno in _NO_SPACE:
            message = "no space is left; free some, or name another data.features_dir: finished shards are gone on from"
            return DataError("disk_full", message, str(self._path))
        message = f"cannot be written, or not be locked ({error.strerror}); name another data.features_dir"
        return DataError("no_file", message, str(self._path))


def drop_unfinished(folder: Path) -> list[Path]:
    """Delete, and return, the frames without an index whose writer is no more."""
    dropped = []
    for path in sorted(folder.glob("*.frames")):
        index = path.with_suffix(".index.npy")
        if index.exists():
            continue
        try:
            with path.open("rb") as file:
                if _lock(file) and not index.exists():  # it may have been finished since
                    path.unlink()
                    path.with_suffix(".index.partial").unlink(missing_ok=True)
                    dropped.append(path)
        except OSError:  # another process was faster; or nothing can be locked here, and whose it is cannot be told
            continue
    return dropped


def _lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _frames_of(index: Path) -> Path:
    return index.with_name(index.name.replace(".index.npy", ".frames"))


def _read_index(path: Path) -> NDArray[np.void]:
    try:
        part = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError("damaged_features", f"cannot be read ({error}); {_CURE}", str(path)) from None
    if not isinstance(part, np.ndarray):  # a zip of arrays
        raise DataError("damaged_features", f"is no index of features; {_CURE}", str(path))
    if part.dtype != INDEX or part.ndim != 1:
        raise DataError("damaged_features", f"is no index of features ({part.dtype}); {_CURE}", str(path))
    checked: NDArray[np.void] = part
    return checked

"""Dialogues on disk, by row: JSONL beside its audio, or Arrow shards that hold it; `store.json` says what they are."""

import hashlib
import os
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from omnichat.data.info import INFO_FILE, StoreInfo, read_info, write_info
from omnichat.data.mapped import MappedShard
from omnichat.data.shards import check_size
from omnichat.dialogue import MAX_LINE, DataError, Dialogue, dialogue_from_json, too_long_line, write_dialogues

# Rows read before the pages that they mapped are let go: around each place that is read, Linux maps what it has in its
# cache, 64 kB (fault_around_bytes) or a large folio; that came to 3 MB for a row.
_READS_KEPT = 16
_BLOCK = 2**20  # bytes of a line that are read at a time: a file without line ends is not read whole


class Store:
    """The dialogues of one split by row, read when asked for.

    Args:
        path: a JSONL file (`corpora/x/train.jsonl`), or the folder of a split in Arrow shards (`corpora/x/train`).

    Raises:
        DataError: `no_file`, `empty_file`, and of shards `bad_json` or `truncated`; on access what is wrong with the
            dialogue, with its place.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._rows: _Rows = _Shards(self.path) if self.path.is_dir() else _Lines(self.path)

    def __len__(self) -> int:
        """Number of dialogues."""
        return len(self._rows)

    def __getitem__(self, row: int) -> Dialogue:
        """The dialogue of a row, checked."""
        row = int(row)
        if not 0 <= row < len(self._rows):
            raise IndexError(f"{self.path} has {len(self._rows)} rows, not row {row}")
        try:
            return self._rows[row]
        except DataError as error:
            raise error.at(self.place(row)) from None

    def place(self, row: int) -> str:
        """Where a row is: `file:line`, or `shard: row N`, counted from 0 in the shard."""
        return self._rows.place(row)

    def line(self, row: int) -> int:
        """Number of a row's line in its file, from 1; in a split of shards the row itself."""
        return int(self._rows.numbers[row]) if isinstance(self._rows, _Lines) else row

    def state(self) -> list[Any]:
        """What tells this content from any other, as JSON has it; audio files beside the store are not in it."""
        return self._rows.state()


class _Rows(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Dialogue: ...

    def place(self, row: int) -> str: ...

    def state(self) -> list[Any]: ...


class _Lines:
    """The lines of a JSONL file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise DataError("no_file", "no such file; make the store first or correct the path", str(path))
        starts, numbers = array("q"), array("q")  # of the lines that hold something; 8 bytes each, not an object
        number, start, place, digest = 1, 0, 0, hashlib.sha256()
        with path.open("rb") as lines:
            while part := lines.readline(_BLOCK):
                if part.strip() and (not numbers or numbers[-1] != number):
                    starts.append(start)
                    numbers.append(number)
                place += len(part)
                digest.update(part)
                if part.endswith(b"\n"):
                    number, start = number + 1, place
        if not starts:
            raise DataError("empty_file", "holds no dialogue", str(path))
        self._spans = np.stack([starts, np.append(starts[1:], place)], axis=1)
        self.numbers = np.array(numbers)
        self._sha256 = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, row: int) -> Dialogue:
        start, stop = self._spans[row].tolist()
        if stop - start > MAX_LINE + len("\ufeff\r\n".encode()):
            raise too_long_line(stop - start)
        with self.path.open("rb") as lines:
            lines.seek(start)
            raw = lines.read(stop - start)
        try:
            return dialogue_from_json(raw.decode("utf-8-sig"), self.path.parent)
        except UnicodeDecodeError:
            raise DataError("bad_encoding", "not UTF-8; convert the file") from None

    def place(self, row: int) -> str:
        return f"{self.path}:{self.numbers[row]}"

    def state(self) -> list[Any]:
        return [self._sha256]


class _Shards:
    """The Arrow shards of a split, each mapped when first read: a map does not survive pickling for a data worker."""

    def __init__(self, folder: Path) -> None:
        self.root = folder.parent
        if (folder / INFO_FILE).is_file():
            splits = ", ".join(read_info(folder).splits)
            raise DataError("no_file", f"is a whole store; name one of its splits: {splits}", str(folder))
        if not (self.root / INFO_FILE).is_file() and not any(folder.glob("*.arrow")):
            raise DataError("no_file", _instead(folder), str(folder))
        info = read_info(self.root)
        self.shards = info.shards.get(folder.name, ())
        if not self.shards:
            message = f"is not a split of {self.root / INFO_FILE}; there are: {', '.join(info.splits)}"
            raise DataError("no_file", message, str(folder))
        self.paths = [self.root / shard.file for shard in self.shards]
        faults = []
        for path, shard in zip(self.paths, self.shards, strict=True):
            try:
                check_size(path, shard)
            except DataError as error:
                faults.append(error)
        if faults:
            raise faults[0] if len(faults) == 1 else DataError("truncated", "\n  ".join(map(str, faults)), str(folder))
        self._starts = np.cumsum([0, *(shard.rows for shard in self.shards)])
        self._mapped: dict[int, MappedShard] = {}
        self._read: list[int] = []

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> Dialogue:
        number, within = self._find(row)
        if number not in self._mapped:
            self._mapped[number] = MappedShard(self.paths[number], self.shards[number], self.root)
        self._read.append(number)
        if len(self._read) >= _READS_KEPT:
            for mapped in set(self._read):
                self._mapped[mapped].release()
            self._read.clear()
        return self._mapped[number][within]

    def place(self, row: int) -> str:
        number, within = self._find(row)
        return f"{self.paths[number]}: row {within}"

    def state(self) -> list[Any]:
        status = [path.stat() for path in self.paths]
        return [
            [shard.sha256, shard.rows, now.st_size, now.st_mtime_ns]
            for shard, now in zip(self.shards, status, strict=True)
        ]

    def _find(self, row: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return number, row - int(self._starts[number])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_mapped": {}, "_read": []}


def _instead(folder: Path) -> str:
    """What to name instead of a folder that is no split."""
    if files := sorted(path.name for path in folder.glob("*.jsonl")):
        return f"is a folder of JSONL files; name one of them: {', '.join(files[:5])}"
    if (folder / "store" / INFO_FILE).is_file():
        splits = ", ".join(f"store/{split}" for split in read_info(folder / "store").splits)
        return f"holds a store; name one of its splits: {splits}"
    return "is no dialogues; name a JSONL file, or the folder of a split in Arrow shards"


def write_store(
    folder: Path | str,
    splits: Mapping[str, Iterable[Dialogue]],
    name: str,
    licence: str,
    source: str,
    seed: int | None = None,
    engine: str = "",
    kept: Mapping[str, int] | None = None,
) -> StoreInfo:
    """Write a store whose audio already lies in `folder`; `store.json` comes last, so a store that has it is whole.

    Args:
        folder: of the store.
        splits: the dialogues of each split to write.
        name: of the corpus.
        licence: of the corpus.
        source: where it comes from.
        seed: of a made store.
        engine: that made it.
        kept: counts of splits that lie in the folder already.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INFO_FILE).unlink(missing_ok=True)
    counts = dict(kept or {})
    for split, dialogues in splits.items():
        partial = folder / f".{split}.jsonl.partial"
        counts[split] = write_dialogues(partial, dialogues)
        os.replace(partial, folder / f"{split}.jsonl")
    info = StoreInfo(name, licence, source, counts, seed, engine)
    write_info(folder, info)
    return info

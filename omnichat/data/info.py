"""`store.json`: what a store is, where it comes from, and the shards it is made of."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from omnichat.dialogue import DataError

INFO_FILE = "store.json"
_SPLIT = re.compile(r"\w[\w.-]*")  # names files and folders


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of a store.

    Attributes:
        file: its path; in `store.json` relative to the store's folder.
        rows: dialogues in it.
        bytes: its size.
        sha256: of all its bytes.
    """

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """Where a store comes from.

    Attributes:
        name: of the corpus.
        licence: of the corpus.
        source: where it comes from.
        splits: dialogues of each split.
        seed: of a store that was made.
        engine: that made it.
        shards: files of each split; none where the splits are JSONL files.
    """

    name: str
    licence: str
    source: str
    splits: Mapping[str, int]
    seed: int | None = None
    engine: str = ""
    shards: Mapping[str, tuple[Shard, ...]] = field(default_factory=dict)


def write_info(folder: Path, info: StoreInfo) -> None:
    """Write `store.json` in one piece."""
    record = asdict(info)
    if not info.shards:
        del record["shards"]
    write_json(folder / INFO_FILE, record)


def read_info(folder: Path | str) -> StoreInfo:
    """What `store.json` says.

    Raises:
        DataError: `no_file` or `bad_json`.
    """
    path = Path(folder) / INFO_FILE
    if not path.is_file():
        raise DataError("no_file", "no such file, so the store is not whole; make it again", str(path))
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        shards = {split: tuple(Shard(**shard) for shard in files) for split, files in record.pop("shards", {}).items()}
        known = {item.name for item in fields(StoreInfo)}
        info = StoreInfo(**{key: record[key] for key in record if key in known}, shards=shards)
        _check(info)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError("bad_json", f"is not a store description ({error}); make the store again", str(path)) from None
    return info


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON file in one piece: a reader finds the old one or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _check(info: StoreInfo) -> None:
    if bad := [split for split in (*info.splits, *info.shards) if not _SPLIT.fullmatch(split)]:
        raise ValueError(f"{bad[0]!r} is not the name of a split")
    for shard in (shard for shards in info.shards.values() for shard in shards):
        counts = (shard.rows, shard.bytes)
        if not isinstance(shard.file, str) or any(type(count) is not int or count < 0 for count in counts):
            raise ValueError(f"{shard} is not a shard")
        if Path(shard.file).is_absolute() or ".." in Path(shard.file).parts:
            raise ValueError(f"{shard.file!r} leaves the store's folder")

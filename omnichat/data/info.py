"""`store.json`: what a store is, where it comes from, and the shards it is made of."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from omnichat.dialogue import DataError, shown

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
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise DataError("bad_json", f"is not a store description ({error}); make the store again", str(path)) from None
    return info


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON file in one piece: a reader finds the old one or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _check(info: StoreInfo) -> None:
    texts = (info.name, info.licence, info.source, info.engine)
    if not all(isinstance(text, str) for text in texts) or not (info.seed is None or type(info.seed) is int):
        raise ValueError("name, licence, source and engine are strings, seed is a number")
    if not isinstance(info.splits, dict) or not all(_is_count(count) for count in info.splits.values()):
        raise ValueError("splits says how many dialogues each split holds")
    if bad := [split for split in (*info.splits, *info.shards) if not _SPLIT.fullmatch(split)]:
        raise ValueError(f"{shown(bad[0])} is not the name of a split")
    for shard in (shard for shards in info.shards.values() for shard in shards):
        if not isinstance(shard.file, str) or not isinstance(shard.sha256, str):
            raise ValueError(f"{shown(shard)} is not a shard")
        if not _is_count(shard.rows) or not _is_count(shard.bytes):
            raise ValueError(f"{shown(shard)} is not a shard")
        if not _below(shard.file):
            raise ValueError(f"{shown(shard.file)} leaves the store's folder")
    for split, shards in info.shards.items():
        if info.splits.get(split) != sum(shard.rows for shard in shards):
            raise ValueError(f"split {shown(split)} and its shards hold different numbers of dialogues")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _below(path: str) -> bool:
    return bool(path) and "\0" not in path and not Path(path).is_absolute() and ".." not in Path(path).parts

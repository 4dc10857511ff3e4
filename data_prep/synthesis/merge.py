"""Shards to one run: their ledgers and blobs are united, then the chain is walked as if one run had made it all."""

import os
import shutil
import sqlite3
from pathlib import Path

from data_prep.synthesis.config import Config, differing
from data_prep.synthesis.folder import FolderError, RunFolder, enter
from data_prep.synthesis.ledger import Ledger


def merge(out: Path, shards: list[Path]) -> RunFolder:
    """Unite finished shards in `out`, which is then a run of its own; walk it to drop duplicates, pack and report.

    Raises:
        FolderError: the shards are not those of one run, or not all of it, or one is not finished.
    """
    folders = [RunFolder(path) for path in shards]
    configs = [folder.config() for folder in folders]
    whole = _whole(folders, configs)
    for folder in folders:
        with Ledger(folder.ledger) as ledger:
            (left,) = ledger.query("SELECT count(*) FROM items WHERE wanted AND status IN ('pending', 'leased')")
            if left[0]:
                raise FolderError(f"{folder.root}: {left[0]} items are not finished; `resume {folder.root}` first")
    target = enter(out, whole)
    for folder in folders:
        _copy_blobs(folder.blobs, target.blobs)
    with Ledger(target.ledger) as ledger:
        for status in ("done", "rejected"):  # what one shard could make is made, whatever another one met
            for folder in folders:
                _unite(ledger.connection, folder.ledger, status)
    return target


def _whole(folders: list[RunFolder], configs: list[Config]) -> Config:
    """The config of the run that the shards are parts of."""
    if missing := [folder.root for folder, config in zip(folders, configs, strict=True) if config.shard is None]:
        raise FolderError(f"{missing[0]}: is no shard, but a run of its own (run it with --shard i/n)")
    counts = {str(config.shard).partition("/")[2] for config in configs}
    numbers = sorted(int(str(config.shard).partition("/")[0]) for config in configs)
    if len(counts) > 1 or numbers != list(range(int(counts.pop()))):
        given = ", ".join(str(config.shard) for config in configs)
        raise FolderError(f"merge takes each shard of a run once; given are {given}")
    whole = [config.model_copy(update={"shard": None}) for config in configs]
    for folder, config in zip(folders[1:], whole[1:], strict=True):
        if changes := differing(whole[0], config):
            listed = "\n  ".join(changes)
            raise FolderError(f"{folder.root}: has another config than {folders[0].root}:\n  {listed}")
    return whole[0]


def _copy_blobs(source: Path, target: Path) -> None:
    """Link blobs, or copy them to another file system. A name is a hash, so what is there is the same."""
    for path in sorted(source.glob("*/*")):
        place = target / path.parent.name / path.name
        if path.name.startswith(".") or place.exists():
            continue
        place.parent.mkdir(exist_ok=True)
        try:
            os.link(path, place)
        except OSError:
            partial = place.with_name(f".{place.name}.partial")
            shutil.copyfile(path, partial)
            partial.replace(place)


def _unite(connection: sqlite3.Connection, path: Path, status: str) -> None:
    """Take over rows. A turn that two shards have spoken is taken from the first; verdicts are found anew."""
    connection.execute("ATTACH ? AS shard", (str(path),))
    try:
        columns = ", ".join(row[1] for row in connection.execute("PRAGMA table_info(items)"))
        connection.execute(
            f"INSERT INTO main.items ({columns}) SELECT {columns} FROM shard.items WHERE wanted AND status = ? "
            "ON CONFLICT (id) DO NOTHING",
            (status,),
        )
    finally:
        connection.execute("DETACH shard")

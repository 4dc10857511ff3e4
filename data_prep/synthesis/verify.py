"""Is a run what it says? Blobs are hashed again, splits compared, ledger and store held against each other."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data_prep.synthesis.blobs import blob_path
from data_prep.synthesis.contracts import Mixed, Speech
from data_prep.synthesis.folder import RunFolder
from data_prep.synthesis.ledger import Ledger
from data_prep.synthesis.mixing.clips import pool_of
from data_prep.synthesis.pipeline import Pipeline
from data_prep.synthesis.store import PACKED
from data_prep.synthesis.writing.plans import UNSEEN_SPLITS
from omnichat.data.info import INFO_FILE, read_info
from omnichat.data.store import Store
from omnichat.dialogue import DataError, Dialogue


def verify(pipeline: Pipeline) -> list[str]:
    """A line for each fault; none where all is well."""
    folder, ledger = pipeline.folder, pipeline.ledger
    mixed = list(pipeline.mixed())
    faults = [f"ledger: {row[0]}" for row in ledger.query("PRAGMA integrity_check") if row[0] != "ok"]
    faults += _blobs(folder, ledger)
    faults += leaks(mixed)
    if not pipeline.config.shard:
        faults += _store(folder, pipeline.contents() == ledger.fact(PACKED), mixed)
    return faults


def _blobs(folder: RunFolder, ledger: Ledger) -> list[str]:
    """Every recording that a done item names, read and hashed."""
    names: dict[str, str] = {}
    for found in ledger.results("speak"):
        if found.output is not None:
            names.setdefault(Speech.model_validate_json(found.output).blob, f"speak {found.id}")
    for found in ledger.results("mix"):
        if found.output is not None:
            for piece in Mixed.model_validate_json(found.output).pieces:
                if piece is not None:
                    names.setdefault(piece.blob, f"mix {found.id}")
    with ThreadPoolExecutor(4) as pool:
        hashes = pool.map(lambda name: _hash(blob_path(folder.blobs, name)), names)
        return [
            f"{blob_path(folder.blobs, name)}: {'missing' if found is None else 'damaged'}, of {item}; "
            "restore it, or remove the item's row and `resume`"
            for (name, item), found in zip(names.items(), hashes, strict=True)
            if found != name
        ]


def _hash(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def leaks(mixed: list[Mixed]) -> list[str]:
    """What splits share and must not: scripts and words any two, clips training and tests, voices unseen tests."""
    owners: dict[str, dict[str, set[str]]] = {kind: defaultdict(set) for kind in ("script", "words", "voice", "clip")}
    for one in mixed:
        plan = one.plan
        split = plan.brief.split
        owners["script"][str(plan.brief.number)].add(split)
        owners["words"]["\n".join(line.text for line in plan.lines)].add(split)
        if one.clip:
            owners["clip"][one.clip].add(split)
        for line, piece in zip(plan.lines, one.pieces, strict=True):
            if piece is not None:
                owners["voice"][plan.voices[line.speaker].name].add(split)
    faults = []
    for kind, found in owners.items():
        for name, splits in sorted(found.items()):
            pools: dict[str, set[Any]] = {
                "script": splits,
                "words": splits,
                "clip": {pool_of(split) for split in splits},
                "voice": {split in UNSEEN_SPLITS for split in splits},
            }
            if len(pools[kind]) > 1:
                faults.append(f"leak: {kind} {name.splitlines()[0]!r} is in splits {', '.join(sorted(splits))}")
    return faults


def _store(folder: RunFolder, packed: bool, mixed: list[Mixed]) -> list[str]:
    if not (folder.store / INFO_FILE).exists():
        return [f"{folder.store}: is not there yet; `resume` packs it"] if mixed else []
    if not packed:
        return [f"{folder.store}: holds other dialogues than the ledger; `resume` packs it again"]
    try:
        info = read_info(folder.store)
        faults = []
        for shards in info.shards.values():
            faults += [
                f"{folder.store / shard.file}: damaged; remove the folder {folder.store} and `resume`"
                for shard in shards
                if _hash(folder.store / shard.file) != shard.sha256
            ]
        stored = (
            {dialogue.id for split in info.splits for dialogue in _dialogues(Store(folder.store / split))}
            if not faults
            else set()
        )
    except DataError as error:
        return [str(error)]
    wanted = {one.plan.id for one in mixed}
    if not faults and stored != wanted:
        faults.append(f"{folder.store}: {len(wanted - stored)} dialogues are missing, {len(stored - wanted)} too many")
    return faults


def _dialogues(store: Store) -> Iterator[Dialogue]:
    return (store[row] for row in range(len(store)))

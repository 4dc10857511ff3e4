"""A corpus as it was downloaded to a store: parallel, resumable, the same bytes however it was run.

    read    parts of the corpus -> dialogues that point into it       one kept result for each run of parts
    split   train, val, test for all dialogues at once                needs their ids and groups only
    write   audio and dialogues of each split                         one kept result for each run of dialogues

What is kept lies in `OUT/.conversion` until the store is whole.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.output import KEPT, RECORD, Done, alone, finished, remove_store
from data_prep.pieces import code_version, read_parts, reject_records, write_dialogues
from data_prep.resumable import Task, bytes_bar, digest, kept_file, run_tasks, stamp, write_whole
from omnichat.archive import is_archive, unpack
from omnichat.data.corpora.reading import SPLITS, Choices, Corpus, Part
from omnichat.data.corpora.splits import LISTS, assign_splits
from omnichat.data.corpora.summary import Summary, table
from omnichat.data.info import Shard
from omnichat.data.shards import AudioForm, finish_store
from omnichat.dialogue import DataError
from omnichat.secrets import masked

READ_PIECES = 500  # at most so many kept results: enough to see progress, few enough to list
PIECE_SECONDS, PIECE_DIALOGUES = 3600.0, 1000  # written at once: 318 MB of 16-bit samples at 44.1 kHz


class Row(NamedTuple):
    """A dialogue as the split needs to know it. Its line stays on the disk: there may be a hundred thousand.

    Attributes:
        group: what must not be spread over splits.
        split: the corpus's own, or None.
        seconds: of its audio.
        result: number of the kept result that it stands in.
        position: in that.
        digest: SHA-256 of its line.
    """

    group: str
    split: str | None
    seconds: float
    result: int
    position: int
    digest: str


@dataclass
class Written:
    """A split as it was written."""

    shards: list[Shard] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    summary: Summary = field(default_factory=Summary)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a corpus is converted; what changes the store is part of its record.

    Attributes:
        choices: what the reader asks the user.
        split: all dialogues go there; None where they are split.
        seed: of the split.
        shares: of `val` and `test`; None leaves a corpus's own split as it is and takes a tenth each where it has none.
        audio: how the store keeps audio.
        follow_links: links within the corpus may lead out of it.
        workers: processes; changes nothing else.
        overwrite: a store that lies in the folder already may be replaced.
    """

    choices: Choices
    split: str | None = None
    seed: int = 0
    shares: tuple[float | None, float | None] = (None, None)
    audio: AudioForm = "flac"
    follow_links: bool = False
    workers: int = 1
    overwrite: bool = False

    def key(self) -> str:
        """What the store's bytes depend on."""
        return digest(code_version(), asdict(replace(self, workers=1, overwrite=False)))


def convert(corpus: Corpus, source: Path, out: Path, settings: Settings) -> str:
    """Write the store and return the table. A store that was made like this already is left as it is.

    Args:
        corpus: that is read.
        source: its folder as it was downloaded, or an archive (`omnichat.archive`), which is unpacked first.
        out: folder of the store.
        settings: how.

    Raises:
        DataError: `no_file`, `empty_file` (no dialogue is usable), `store_exists`, `in_use`, `worker_killed`, what is
            wrong with an archive.
        KeyboardInterrupt: what is finished by then is kept.
    """
    if not source.exists():
        raise DataError(
            "no_file", "no such folder or archive; download the corpus first or correct the path", str(source)
        )
    if source.is_dir() and out.exists() and out.samefile(source):
        message = "SRC and OUT are one folder; with --audio reference let OUT be the one above"
        raise DataError("store_exists", message, str(source))
    if is_archive(source):
        if settings.audio == "reference":
            raise DataError(
                "no_file", "an archive cannot be referred to; unpack it first, or keep audio=flac", str(source)
            )
        made_from = digest(corpus.name, settings.key(), stamp(source))
        if (done := finished(out, made_from, settings.overwrite)) is None:
            with alone(out):
                done = _convert(corpus, _unpacked(source, out / KEPT), out, settings, made_from)
    else:
        runs = _runs(corpus, source)
        made_from = digest(corpus.name, settings.key(), [(repr(run), _stamps(run)) for run in runs])
        if (done := finished(out, made_from, settings.overwrite)) is None:
            with alone(out):
                done = _convert(corpus, source, out, settings, made_from)
    return table(*done, settings.choices.emotions, corpus.paper)


def _convert(corpus: Corpus, source: Path, out: Path, settings: Settings, made_from: str) -> Done:
    key, kept = settings.key(), out / KEPT
    tasks = [
        Task(digest(key, repr(run), _stamps(run)), (corpus, source, run, settings.choices, settings.follow_links))
        for run in _runs(corpus, source)
    ]
    dialogues, rejects = _read(run_tasks(tasks, read_parts, kept / "read", settings.workers, "reading"))
    if not dialogues:
        raise DataError("empty_file", f"no dialogue is usable\n{_reasons(rejects)}", str(source))
    written, lost = _write(source, out, dialogues, settings)
    rejects += lost
    if not written:
        raise DataError("empty_file", f"no dialogue is usable\n{_reasons(rejects)}", str(source))
    remove_store(out)
    (out / LISTS).mkdir(exist_ok=True)
    for split, one in written.items():
        write_whole(out / LISTS / f"{split}.txt", "".join(f"{name}\n" for name in one.ids))
    lines = [json.dumps(error, ensure_ascii=False) + "\n" for error in reject_records(rejects)]
    write_whole(out / "rejects.jsonl", masked("".join(lines)))
    sizes = {split: one.summary.to_record() for split, one in written.items()}
    write_whole(out / RECORD, json.dumps({"made_from": made_from, "splits": sizes}, indent=2) + "\n")
    shards = {split: one.shards for split, one in written.items()}
    finish_store(out, name=corpus.name, licence=corpus.licence, source=corpus.source, splits=shards)
    shutil.rmtree(kept)
    return {split: one.summary for split, one in written.items()}, rejects


def _runs(corpus: Corpus, source: Path) -> list[tuple[Part, ...]]:
    """Parts that are read at once; how many does not depend on the number of processes."""
    parts = corpus.parts(source)
    size = -(-len(parts) // READ_PIECES)
    return [tuple(parts[start : start + size]) for start in range(0, len(parts), size)]


def _unpacked(archive: Path, kept: Path) -> Path:
    """The folder of an archive, unpacked by this call or by one that was stopped later."""
    folder = kept / f"corpus-{digest(stamp(archive))[:16]}"
    if not folder.exists():
        for stale in kept.glob("*corpus-*"):
            shutil.rmtree(stale)
        with bytes_bar(f"unpacking {archive.name}") as advance:
            unpack(archive, folder, advance=advance)
    return folder


def _write(
    source: Path, out: Path, dialogues: list[Row], settings: Settings
) -> tuple[dict[str, Written], list[DataError]]:
    """Write the shards of all splits, where they are not kept from before; splits in the order train, val, test."""
    chosen = _splits(dialogues, settings)
    tasks: list[Task] = []
    splits: list[str] = []
    for split in [name for name in (*SPLITS, *sorted(set(chosen) - set(SPLITS))) if name in set(chosen)]:
        for piece in _pieces([row for row, name in zip(dialogues, chosen, strict=True) if name == split]):
            path = out / KEPT / "write" / f"{len(tasks):06d}.arrow"
            places = [
                (kept_file(out / KEPT / "read", number), [row.position for row in rows])
                for number, rows in groupby(piece, key=attrgetter("result"))
            ]
            key = digest(settings.key(), [row.digest for row in piece])
            tasks.append(Task(key, (places, source, path, out, settings.audio), path))
            splits.append(split)
    written = {split: Written() for split in splits}
    rejects: list[DataError] = []
    results = run_tasks(tasks, write_dialogues, out / KEPT / "write", settings.workers, "writing")
    for split, result in zip(splits, results, strict=True):
        written[split].shards.append(Shard(**result["shard"]))
        written[split].ids += result["ids"]
        written[split].summary += Summary.from_record(result["summary"])
        rejects += [DataError(**error) for error in result["rejects"]]
    return {split: one for split, one in written.items() if one.ids}, rejects


def _read(results: Iterator[dict[str, Any]]) -> tuple[list[Row], list[DataError]]:
    """All dialogues in the corpus's order; of those with one id the first."""
    dialogues: dict[str, Row] = {}
    rejects: list[DataError] = []
    for number, result in enumerate(results):
        rejects += [DataError(**error) for error in result["rejects"]]
        for position, row in enumerate(result["dialogues"]):
            if row["id"] in dialogues:
                message = "another dialogue of this corpus has the same id; it is kept, this one is not"
                rejects.append(DataError("duplicate_id", message, f"{row['place']}: dialogue {row['id']!r}"))
                continue
            line = hashlib.sha256(row["line"].encode()).hexdigest()
            about = (row["group"], row["split"], row["seconds"])
            dialogues[row["id"]] = Row(*about, number, position, line)
    return list(dialogues.values()), rejects


def _splits(dialogues: Sequence[Row], settings: Settings) -> list[str]:
    if settings.split is not None:
        return [settings.split] * len(dialogues)
    own = [row.split for row in dialogues]
    given = dict(zip(("val", "test"), settings.shares, strict=True))
    if any(own):
        # A corpus's own split stays as it is; what it lacks is drawn from its training part where that is asked for.
        lacking = {name for name, share in given.items() if share and name not in own}
        tied = {row.group for row in dialogues if row.split != "train"}
        free = [bool(lacking) and row.split == "train" and row.group not in tied for row in dialogues]
        own = [None if drawn else split for drawn, split in zip(free, own, strict=True)]
        shares = {name: given[name] or 0.0 for name in lacking}
    else:
        shares = {name: 0.1 if share is None else share for name, share in given.items()}
    return assign_splits([row.group for row in dialogues], own, settings.seed, shares)


def _pieces(rows: Sequence[Row]) -> Iterator[list[Row]]:
    piece: list[Row] = []
    seconds = 0.0
    for row in rows:
        if piece and (len(piece) == PIECE_DIALOGUES or seconds + row.seconds > PIECE_SECONDS):
            yield piece
            piece, seconds = [], 0.0
        piece.append(row)
        seconds += row.seconds
    if piece:
        yield piece


def _stamps(run: Sequence[Part]) -> list[list[str | int]]:
    return [stamp(path) for path in sorted({path for part in run for path in part.files})]


def _reasons(rejects: Sequence[DataError]) -> str:
    lines = [f"  {count} x {reason}" for reason, count in Counter(error.reason for error in rejects).most_common()]
    return "\n".join([*lines, *(f"  {error}" for error in rejects[:5])])

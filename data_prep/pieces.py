"""The two pieces of work of a conversion, each in a process of its own: reading parts, writing dialogues."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import omnichat
from data_prep.resumable import stamp
from omnichat.audio import SAMPLE_RATE
from omnichat.data.corpora.reading import Choices, Corpus, Part, Reading
from omnichat.data.corpora.splits import check_split
from omnichat.data.corpora.summary import Summary
from omnichat.data.mapped import MappedShard
from omnichat.data.shards import AudioForm, write_shard
from omnichat.dialogue import DataError, Dialogue, dialogue_from_json, dialogue_to_json


@lru_cache(maxsize=1)
def code_version() -> str:
    """SHA-256 of the code that reads and writes: what an older version has kept is made again."""
    package = Path(omnichat.__file__).parent
    paths = [package / "audio.py", Path(__file__)]
    folders = [(package / "dialogue").glob("*.py"), (package / "data").glob("*.py")]
    paths += sorted(chain(*folders, (package / "data" / "corpora").glob("*.*")))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


def read_parts(
    corpus: Corpus, source: Path, parts: Sequence[Part], choices: Choices, follow_links: bool
) -> dict[str, Any]:
    """Dialogues of some parts, as lines with what the split needs to know, and the rejects; places are below `source`.

    A dialogue whose audio lies outside the corpus, or that cannot be written, is a reject too.
    """
    rows, rejects = [], []
    for part in parts:
        place = Reading()
        with place.rejecting(part.key):
            reading = corpus.read(part, choices)
            rejects += reading.rejects
            for dialogue in reading.dialogues:
                with place.rejecting(f"{part.key}: dialogue {dialogue.id!r}"):
                    rows.append(_row(corpus, dialogue, part.key, source, follow_links))
        rejects += place.rejects
    depends = [stamp(path) for path in sorted({path for row in rows for path in row.pop("audio")})]
    return {"dialogues": rows, "rejects": reject_records(rejects, source), "depends": depends}


def write_dialogues(
    places: Sequence[tuple[Path, Sequence[int]]], source: Path, path: Path, out: Path, audio: AudioForm
) -> dict[str, Any]:
    """Write some dialogues as a shard; what is in it, read back from it, and what could not be kept.

    Args:
        places: kept results of `read_parts`, and which of its dialogues are meant.
        source: folder of the corpus.
        path: of the shard.
        out: folder of the store.
        audio: how it is kept.
    """
    rejects: list[DataError] = []
    lines = [line for file, rows in places for line in _lines(file, rows)]
    heard = {turn.audio.path for line in lines for turn in dialogue_from_json(line).turns if turn.audio is not None}
    depends = [stamp(name) for name in sorted(heard)]
    root = out if audio == "reference" else None
    shard = write_shard(path, map(dialogue_from_json, lines), audio, root, rejects)
    summary, ids = Summary(), []
    stored = MappedShard(path, shard, out)
    for dialogue in (stored[row] for row in range(len(stored))):
        summary.add(dialogue)
        ids.append(dialogue.id)
    return {
        "shard": asdict(shard),
        "ids": ids,
        "summary": summary.to_record(),
        "rejects": reject_records(rejects, source),
        "depends": depends,
    }


def _lines(file: Path, rows: Sequence[int]) -> list[str]:
    dialogues = json.loads(file.read_text(encoding="utf-8"))["result"]["dialogues"]
    return [dialogues[row]["line"] for row in rows]


def reject_records(rejects: Sequence[DataError], source: Path | None = None) -> list[dict[str, str]]:
    """Rejects as JSON, their places below the corpus's folder."""
    top = f"{source}{os.sep}" if source is not None else "\0"
    values = [(error.reason, error.message, error.where) for error in rejects]
    return [
        dict(zip(("reason", "message", "where"), (text.replace(top, "") for text in value), strict=True))
        for value in values
    ]


def _row(corpus: Corpus, dialogue: Dialogue, place: str, source: Path, follow_links: bool) -> dict[str, Any]:
    for number, turn in enumerate(dialogue.turns):
        if turn.audio is not None and not _inside(source, turn.audio.path, follow_links):
            message = f"audio path {turn.audio.path!r} leaves the corpus {source}"
            cure = "; if the link is yours, pass --follow-links" if not follow_links else "; do not use this corpus"
            raise DataError("path_outside_root", message + cure, f"turn {number}")
    split = dialogue.scene.get("split")
    if split is not None:
        check_split(split)
    if not dialogue.id or any(ord(character) < 32 for character in dialogue.id):
        raise DataError("bad_id", "an id is a line of a list of ids: it must not be empty or hold control characters")
    line = dialogue_to_json(dialogue)
    dialogue_from_json(line)  # what cannot be read again must not be stored
    line.encode()
    heard = [turn.audio for turn in dialogue.turns if turn.audio is not None]
    seconds = sum(ref.num_samples for ref in heard) / SAMPLE_RATE
    row = {"id": dialogue.id, "group": corpus.group(dialogue), "split": split, "seconds": seconds, "place": place}
    return row | {"line": line, "audio": [ref.path for ref in heard]}


def _inside(source: Path, path: str, follow_links: bool) -> bool:
    """Whether a path stays below the corpus: as it is written, and where its links lead."""
    folder = source if source.is_dir() else source.parent
    where = os.path.abspath if follow_links else os.path.realpath
    return where(path).startswith(where(folder) + os.sep) and os.path.abspath(path).startswith(
        os.path.abspath(folder) + os.sep
    )

"""The two pieces of work of a conversion, each in a process of its own: reading parts, writing dialogues."""

import filecmp
import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import omnichat
from omnichat.audio import SAMPLE_RATE
from omnichat.data.corpora.reading import SPLITS, Choices, Corpus, Part, Reading
from omnichat.data.corpora.summary import Summary
from omnichat.dialogue import AudioRef, DataError, Dialogue, dialogue_from_json, dialogue_to_json


@lru_cache(maxsize=1)
def code_version() -> str:
    """SHA-256 of the code that reads and writes: what an older version has kept is made again."""
    package = Path(omnichat.__file__).parent
    paths = [package / "audio.py", package / "dialogue.py", Path(__file__)]
    paths += sorted([*(package / "data").glob("*.py"), *(package / "data" / "corpora").glob("*.*")])
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
    top = f"{source}{os.sep}"
    records = [
        {"reason": error.reason, "message": error.message, "where": error.where.replace(top, "")} for error in rejects
    ]
    return {"dialogues": rows, "rejects": records}


def write_dialogues(lines: Sequence[str], source: Path, out: Path) -> dict[str, Any]:
    """Copy the audio of some dialogues into the store; their new lines and their sizes."""
    summary, copied, stored = Summary(), dict[str, str](), []
    for line in lines:
        dialogue = _with_copied_audio(dialogue_from_json(line), source, out, copied)
        summary.add(dialogue)
        stored.append(dialogue_to_json(dialogue, out))
    return {"lines": stored, "summary": summary.to_record(), "rejects": []}


def _row(corpus: Corpus, dialogue: Dialogue, place: str, source: Path, follow_links: bool) -> dict[str, Any]:
    for number, turn in enumerate(dialogue.turns):
        if turn.audio is not None and not _inside(source, turn.audio.path, follow_links):
            message = f"audio path {turn.audio.path!r} leaves the corpus {source}"
            cure = "; if the link is yours, pass --follow-links" if not follow_links else "; do not use this corpus"
            raise DataError("path_outside_root", message + cure, f"turn {number}")
    split = dialogue.scene.get("split")
    if split is not None and split not in SPLITS:
        raise DataError("unknown_split", f"split {split!r} is not one of {', '.join(SPLITS)}")
    if not dialogue.id or any(ord(character) < 32 for character in dialogue.id):
        raise DataError("bad_id", "an id is a line of a list of ids: it must not be empty or hold control characters")
    line = dialogue_to_json(dialogue)
    dialogue_from_json(line)  # what cannot be read again must not be stored
    line.encode()
    samples = sum(turn.audio.num_samples for turn in dialogue.turns if turn.audio is not None)
    row = {"id": dialogue.id, "group": corpus.group(dialogue), "split": split, "seconds": samples / SAMPLE_RATE}
    return row | {"place": place, "line": line}


def _inside(source: Path, path: str, follow_links: bool) -> bool:
    """Whether a path stays below the corpus: as it is written, and where its links lead."""
    folder = source if source.is_dir() else source.parent
    where = os.path.abspath if follow_links else os.path.realpath
    return where(path).startswith(where(folder) + os.sep) and os.path.abspath(path).startswith(
        os.path.abspath(folder) + os.sep
    )


def _with_copied_audio(dialogue: Dialogue, source: Path, out: Path, copied: dict[str, str]) -> Dialogue:
    def moved(ref: AudioRef) -> AudioRef:
        if ref.path not in copied:
            copied[ref.path] = str(_copy(Path(ref.path), out / "audio" / Path(ref.path).relative_to(source)))
        return replace(ref, path=copied[ref.path])

    turns = tuple(replace(turn, audio=moved(turn.audio)) if turn.audio is not None else turn for turn in dialogue.turns)
    return replace(dialogue, turns=turns)


def _copy(source: Path, target: Path) -> Path:
    if not target.exists() or not filecmp.cmp(source, target, shallow=False):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        shutil.copyfile(source, partial)
        os.replace(partial, target)
    return target

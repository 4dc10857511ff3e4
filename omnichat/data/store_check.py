"""Everything that is wrong with a store, whatever a run would make of it: by parts, each of which can be checked alone.

parts_of(store)      the splits of a store, cut into parts, and what is wrong with the store as a whole
check_part(part)     what is wrong with its dialogues, and how much it holds; JSON, so that it can be sent
Ids(parts)           ids that come twice in the store
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from omnichat.audio import SAMPLE_RATE
from omnichat.data.faults import SHORTEST_SPEECH, audio_faults, duplicate_id
from omnichat.data.first_places import FirstPlaces
from omnichat.data.info import INFO_FILE, Shard, StoreInfo, read_info
from omnichat.data.mapped import MappedShard, verify_shard
from omnichat.data.store import Store
from omnichat.dialogue import DataError, Dialogue
from omnichat.prompt import Input, Prompt, load_tokenizer

PART_ROWS = 200  # of a JSONL file; a shard is a part of its own
LINES = 2**40  # more than a file has: number of the part and of the line as one
_CONTROL = re.compile(r"<\|[^|<>]{1,40}\|>")
# `where` of a fault within a dialogue, after the file and the line: the id as `repr` writes it, the turn, the rest.
_PLACE = re.compile(r"(?:dialogue ('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"))?(?:: turn (\d+))?(?:: )?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Part:
    """Rows [start, stop) of a JSONL file, or a whole shard.

    Attributes:
        split: name of the split.
        path: of the file.
        start: the first row.
        stop: the row after the last.
        shard: what `store.json` says of it; None for JSONL.
    """

    split: str
    path: Path
    start: int
    stop: int
    shard: Shard | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """How a store is checked.

    Attributes:
        decode: decode all audio, and compare sha256; else read headers only.
        tokenizer: a Llama-3 tokenizer.json; None leaves lengths in tokens alone.
        max_tokens: longest dialogue allowed, without a system message.
        input: what of a user turn the model gets; only with a tokenizer.
    """

    decode: bool = True
    tokenizer: Path | None = None
    max_tokens: int | None = None
    input: Input = "speech"


@dataclass
class Found:
    """What a part, or several, hold and what is wrong with them. `faults` and `notices` are records (`fault_record`).

    Attributes:
        dialogues: that were read.
        turns: of these.
        heard: of these, turns that have audio.
        samples: of that audio, at 16 kHz.
        faults: that a run must not meet.
        notices: what is odd, and kept.
        ids: (id, line or row) of each dialogue that was read.
    """

    dialogues: int = 0
    turns: int = 0
    heard: int = 0
    samples: int = 0
    faults: list[dict[str, Any]] = field(default_factory=list)
    notices: list[dict[str, Any]] = field(default_factory=list)
    ids: list[tuple[str, int]] = field(default_factory=list)

    def add(self, other: "Found") -> None:
        """Add what another part holds; its ids are left out, as they belong to their part."""
        for name in ("dialogues", "turns", "heard", "samples", "faults", "notices"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def hours(self) -> float:
        """Of audio."""
        return self.samples / SAMPLE_RATE / 3600


def parts_of(path: Path) -> tuple[list[Part], list[dict[str, Any]]]:
    """The parts of a JSONL file, of a split in shards, or of a whole store, and the faults of the store as a whole.

    A folder without `store.json` is read as JSONL files beside their audio.

    Raises:
        DataError: `no_file` where there is nothing that could be a store.
    """
    if path.is_file():
        return _file_parts(path.stem, path, _info(path.parent, [])) if path.name != INFO_FILE else parts_of(path.parent)
    if not path.is_dir():
        raise DataError("no_file", "no such file or folder; correct the path", str(path))
    faults: list[dict[str, Any]] = []
    if not (path / INFO_FILE).is_file() and (path.parent / INFO_FILE).is_file():
        info, splits, root = _info(path.parent, faults), [path.name], path.parent
        if info is not None and path.name not in info.shards:
            message = f"is not a split of {root / INFO_FILE}; there are: {', '.join(info.splits)}"
            raise DataError("no_file", message, str(path))
    else:
        info, root = _info(path, faults), path
        lists = sorted(file.stem for file in path.glob("*.jsonl") if file.name != "rejects.jsonl")
        splits = list(info.splits) if info is not None else lists
        if not splits and not faults:
            message = f"holds no {INFO_FILE} and no JSONL file; name a store, one of its splits, or a JSONL file"
            raise DataError("no_file", message, str(path))
    parts: list[Part] = []
    for split in splits:
        if info is not None and split in info.shards:
            for shard in info.shards[split]:
                parts.append(Part(split, root / shard.file, 0, shard.rows, shard))
        else:
            more, wrong = _file_parts(split, root / f"{split}.jsonl", info)
            parts += more
            faults += wrong
    return parts, faults


def check_part(part: Part, options: Options) -> dict[str, Any]:
    """What a part holds and what is wrong with it: the fields of `Found`."""
    found = Found()
    rows: MappedShard | Store
    if part.shard is not None:
        try:
            verify_shard(part.path, part.shard)
            rows = MappedShard(part.path, part.shard, part.path.parent.parent)
        except DataError as error:
            found.faults.append(fault_record(error, part.path))
            return vars(found)
    else:
        rows = _opened(part.path)
    for row in range(part.start, part.stop):
        _check_row(part, rows, row, options, found)
    return vars(found)


class Ids:
    """The ids of a store's dialogues, one part after the other.

    Args:
        parts: of the store, in its order.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._first = FirstPlaces(sum(part.stop - part.start for part in parts))

    def twice(self, number: int, found: Found) -> list[dict[str, Any]]:
        """A fault for each dialogue whose id one before it has, in the same split or another.

        Args:
            number: of the part.
            found: what it holds.
        """
        part, faults = self._parts[number], []
        for name, line in found.ids:
            place = number * LINES + line
            if (first := self._first.first(name, place)) != place:
                before, its_line = divmod(first, LINES)
                error = duplicate_id(name, _place(self._parts[before], its_line)).at(_place(part, line))
                faults.append(fault_record(error, part.path, line, part.shard is not None))
        return faults


def fault_record(error: DataError, path: Path, number: int | None = None, in_shard: bool = False) -> dict[str, Any]:
    """A fault as JSON: `reason`, `message`, `where`, `file`, `line` (or `row` of a shard), `dialogue`, `turn`."""
    # Places are built from the outside in: file and line, dialogue, turn, audio file.
    start = str(path) if number is None else f"{path}: row {number}" if in_shard else f"{path}:{number}"
    rest = error.where.removeprefix(start).removeprefix(": ")
    match = _PLACE.fullmatch(rest)
    assert match is not None, "every part of the pattern is optional"
    name, turn = match[1], match[2]
    return {
        "reason": error.reason,
        "message": error.message,
        "where": error.where,
        "file": str(path),
        ("row" if in_shard else "line"): number,
        "dialogue": name[1:-1] if name is not None else None,
        "turn": int(turn) if turn is not None else None,
    }


def reasons(records: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many there are of each reason, the commonest first."""
    counts = Counter(record["reason"] for record in records)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _info(folder: Path, faults: list[dict[str, Any]]) -> StoreInfo | None:
    """What `store.json` says; nothing where there is none, or where it is broken, which is a fault."""
    if not (folder / INFO_FILE).is_file():
        return None
    try:
        return read_info(folder)
    except DataError as error:
        faults.append(fault_record(error, folder / INFO_FILE))
        return None


def _file_parts(split: str, path: Path, info: StoreInfo | None) -> tuple[list[Part], list[dict[str, Any]]]:
    """The parts of a JSONL file."""
    try:
        count = len(_opened(path))
    except DataError as error:
        return [], [fault_record(error, path)]
    faults = []
    promised = info.splits.get(split) if info is not None and split not in info.shards else None
    if promised is not None and promised != count:
        message = f"holds {count:,} dialogues, {INFO_FILE} says {promised:,}; copy it again, or make the store again"
        faults.append(fault_record(DataError("wrong_count", message, str(path)), path))
    starts = range(0, count, PART_ROWS)
    return [Part(split, path, start, min(start + PART_ROWS, count)) for start in starts], faults


def _opened(path: Path) -> Store:
    try:
        status = path.stat()
    except OSError:
        return Store(path)  # says what is wrong
    return _opened_once(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _opened_once(path: Path, size: int, changed: int) -> Store:
    # A process checks many parts of one file.
    return Store(path)


@lru_cache(maxsize=1)
def prompt_of(options: Options) -> Prompt | None:
    """What renders dialogues to tell their lengths; nothing without a tokenizer.

    Raises:
        DataError: `bad_tokenizer`.
    """
    if options.tokenizer is None:
        return None
    try:
        return Prompt(load_tokenizer(options.tokenizer), input=options.input, max_tokens=options.max_tokens)
    except DataError:
        raise
    except ValueError as error:
        raise DataError("bad_tokenizer", str(error), str(options.tokenizer)) from None


def _check_row(part: Part, rows: MappedShard | Store, row: int, options: Options, found: Found) -> None:
    number = row if isinstance(rows, MappedShard) else rows.line(row)
    place, in_shard = _place(part, number), part.shard is not None

    def record(error: DataError) -> dict[str, Any]:
        placed = error if error.where.startswith(place) else error.at(place)
        return fault_record(placed, part.path, number, in_shard)

    try:
        dialogue = rows[row]
    except DataError as error:
        found.faults += [record(fault) for fault in error.all()]
        return
    audio = [turn.audio for turn in dialogue.turns if turn.audio is not None]
    found.dialogues += 1
    found.turns += len(dialogue.turns)
    found.heard += len(audio)
    found.samples += sum(ref.num_samples for ref in audio)
    found.ids.append((dialogue.id, number))
    notices: list[DataError] = []
    faults = audio_faults(dialogue, options.decode, every_role=True, shortest=SHORTEST_SPEECH, notices=notices)
    prompt = prompt_of(options)
    if prompt is not None and not faults:
        try:
            prompt.render(dialogue)
        except DataError as error:
            faults += error.all()
    found.faults += [record(fault) for fault in faults]
    found.notices += [record(notice) for notice in [*notices, *_text_notices(dialogue)]]


def _text_notices(dialogue: Dialogue) -> list[DataError]:
    """Control tokens spelled out in words: they are kept, and read as the words they are."""
    return [
        DataError(
            "control_token",
            f"the text spells {match[0]}; it stays text, and is never read as a token",
            f"dialogue {dialogue.id!r}: turn {number}",
        )
        for number, turn in enumerate(dialogue.turns)
        if (match := _CONTROL.search(turn.text))
    ]


def _place(part: Part, number: int) -> str:
    return f"{part.path}: row {number}" if part.shard is not None else f"{part.path}:{number}"

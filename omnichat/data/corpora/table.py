"""Any corpus that is a table of turns (CSV, TSV or JSONL) and a folder of audio; which column holds what is an option.

A row is a turn. JSONL may also hold a dialogue a line, with a list of turns in it: a turn then has the outer values
too. Lines in the form of our own JSONL are read as well (`id`, `style`, `audio` as an object), and need no lengths; and
those of chat frameworks (`messages`).
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from omnichat.audio import SAMPLE_RATE, stored_samples
from omnichat.data.corpora.messages import is_chat, turns_of
from omnichat.data.corpora.reading import (
    NO_AUDIO,
    Choices,
    Corpus,
    Part,
    Reading,
    assign_roles,
    audio_below,
    checked,
    with_roles,
)
from omnichat.dialogue import STYLE_FIELDS, AudioRef, DataError, Dialogue, Style, Turn, shown

FORMATS = (".csv", ".tsv", ".jsonl")
# What a column may hold, and what a value means. `dialogue`, `text` and one of `speaker` and `role` must be there.
FIELDS = {
    "dialogue": "id of the dialogue",
    "turn": "number that orders the turns; without it they stand in order",
    "speaker": "who speaks; two in a dialogue",
    "role": "user or assistant, instead of a speaker",
    "text": "the words",
    "audio": "path of the recording below the audio folder; empty where there is none",
    "start": "where the turn begins in the recording, in seconds",
    "end": "where it ends, in seconds",
    "channel": "of the recording, from 0; without it all are averaged",
    "emotion": "label, mapped by --labels and --emotion",
    "gender": "male or female",
    "speed": "slow, normal or fast",
    "pitch": "low, normal or high",
    "learn": "false where a turn of the assistant is context only, and does not count in the loss",
    "group": "script or speaker that must not be spread over splits",
    "split": "train, val or test",
    "scene": "what else is known of the dialogue, an object of texts (JSONL)",
}
_TRUTH = {"true": True, "1": True, "false": False, "0": False}  # of JSON and of spreadsheets
_PART = 64  # dialogues
SHOWN = 20  # faults of a table

Row = tuple[int, Mapping[str, Any]]  # line and values by field


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is to be read.

    Attributes:
        columns: the column of each field that is not called like it.
        table: file below the source; empty: the only one there.
        audio_folder: below the source.
        turns: name of the list of turns in a line of JSONL.
        assistant: the speaker who is the assistant; None leaves it to the choice of roles.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    table: str = ""
    audio_folder: str = "."
    turns: str = "turns"
    assistant: str | None = None


def corpus(name: str, licence: str, source: str, labels: str, layout: Layout) -> Corpus:
    """The corpus of a table."""
    return Corpus(name, licence, source, partial(parts, layout=layout, name=name), read, labels)


def parts(source: Path, layout: Layout, name: str) -> list[Part]:
    """64 dialogues at a time, in the order of their first turns.

    Raises:
        DataError: `no_file`, `missing_column`, `bad_json`, `bad_layout` or `bad_encoding`.
    """
    path = _table(source, layout.table)
    folder = source if layout.table else path.parent
    dialogues: dict[str, list[Row]] = {}
    for line, values in _fields(path, layout):
        dialogues.setdefault(str(values["dialogue"]), []).append((line, values))
    order = list(dialogues.items())
    return [
        Part(
            f"{path.name}:{order[start][1][0][0]}",
            (path,),
            (name, folder / layout.audio_folder, layout.assistant, order[start : start + _PART]),
        )
        for start in range(0, len(order), _PART)
    ]


def read(part: Part, choices: Choices) -> Reading:
    """Some dialogues."""
    reading, (path,) = Reading(), part.files
    name, folder, assistant, dialogues = part.content
    for dialogue, rows in dialogues:
        with reading.rejecting(f"{path}:{rows[0][0]}"):
            reading.dialogues.append(_dialogue(name, dialogue, rows, folder, assistant, choices))
    return reading


def _table(source: Path, name: str) -> Path:
    if source.is_file():
        return source
    if name:
        if not (source / name).is_file() or ".." in Path(name).parts:
            raise DataError("no_file", "no such table below the corpus; correct --table", str(source / name))
        return source / name
    inside = sorted(source.iterdir())
    if len(inside) == 1 and inside[0].is_dir():
        return _table(inside[0], name)  # archives have one folder around all
    found = [path for path in inside if path.suffix.lower() in FORMATS]
    if len(found) != 1:
        which = ", ".join(path.name for path in found) or "none"
        raise DataError(
            "no_file", f"expected is one table ({', '.join(FORMATS)}), there is {which}; use --table", str(source)
        )
    return found[0]


def _fields(path: Path, layout: Layout) -> Iterator[Row]:
    """Each turn's line and values, by field. A row that cannot be read would leave a hole in some dialogue."""
    columns = {name: layout.columns.get(name, name) for name in FIELDS}
    faults: list[str] = []
    rows = list(_json_rows(path, layout.turns, faults) if path.suffix.lower() == ".jsonl" else _csv_rows(path, faults))
    if rows:
        _check_columns(path, columns, set(layout.columns), {column for _, row in rows for column in row})
        empty = columns["dialogue"]
        faults += [f"{path}:{line}: column {empty!r} is empty" for line, row in rows if row.get(empty) in (None, "")]
    if faults:
        shown = "\n  ".join(faults[:SHOWN])
        raise DataError("bad_layout", f"{len(faults)} rows cannot be read; mend them:\n  {shown}", str(path))
    if not rows:
        raise DataError("empty_file", "holds no turn", str(path))
    for line, row in rows:
        yield line, {name: row[column] for name, column in columns.items() if row.get(column) not in (None, "")}


def _check_columns(path: Path, columns: Mapping[str, str], asked: set[str], there: set[str]) -> None:
    wanted = {"dialogue", "text"} | asked
    missing = [f"{name} ({columns[name]!r})" for name in FIELDS if name in wanted and columns[name] not in there]
    if columns["speaker"] not in there and columns["role"] not in there:
        missing.append("speaker or role")
    if missing:
        close = [
            near for name in FIELDS for near in get_close_matches(columns[name], there - set(columns.values()), n=1)
        ]
        hint = f"; did you mean {', '.join(dict.fromkeys(close))}?" if close else ""
        message = (
            f"has no column for {', '.join(missing)}; it has {', '.join(sorted(there))}: name it with --column{hint}"
        )
        raise DataError("missing_column", message, str(path))


def _csv_rows(path: Path, faults: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            table = csv.DictReader(lines, delimiter=delimiter, strict=True)
            for row in table:
                if None in row or None in row.values():
                    cure = "quote cells that hold the delimiter"
                    faults.append(f"{path}:{table.line_num}: has more or fewer cells than the header; {cure}")
                else:
                    yield table.line_num, row
    except UnicodeDecodeError:
        raise DataError("bad_encoding", "is not UTF-8; convert it", str(path)) from None
    except csv.Error as error:
        raise DataError("bad_layout", f"is not a sound CSV ({error}); write it again", str(path)) from None


def _json_rows(path: Path, turns: str, faults: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            if not raw.strip():
                continue
            try:
                record = json.loads(raw.decode("utf-8-sig"))
                inner = record.pop(turns, None)
                if inner is None and is_chat(record):
                    record, inner = {"id": record.get("id", f"line{number}")}, turns_of(record)
                rows = [record] if inner is None else [_flat(record, turn) for turn in inner]
            except (ValueError, RecursionError, TypeError, AttributeError) as error:
                faults.append(f"{path}:{number}: is not an object of a turn or a dialogue ({error})")
                continue
            for row in rows:
                yield number, row


def _flat(record: Mapping[str, Any], turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn's values by column, those of our own JSONL by the fields that hold the same."""
    row = {**record, **turn}
    if "dialogue" not in row and "id" in record:
        row["dialogue"] = record["id"]
    style, audio = row.get("style"), row.get("audio")
    if isinstance(style, Mapping):
        row = {**style, **row}
    if isinstance(audio, Mapping):
        row |= {"audio": audio.get("path"), "channel": audio.get("channel")}
        if audio.get("start"):
            row["start"] = audio["start"] / SAMPLE_RATE
        if "num_samples" in audio:
            row["end"] = (audio.get("start", 0) + audio["num_samples"]) / SAMPLE_RATE
    return row


def _dialogue(
    name: str, dialogue: str, rows: Sequence[Row], folder: Path, assistant: str | None, choices: Choices
) -> Dialogue:
    if all("turn" in values for _, values in rows):
        rows = sorted(rows, key=lambda row: float(row[1]["turn"]))
        numbers = [float(values["turn"]) for _, values in rows]
        if len(set(numbers)) != len(numbers):
            raise DataError("duplicate_turn", f"two turns have one number: {numbers}", f"dialogue {dialogue!r}")
    turns = []
    for line, values in rows:
        try:
            turns.append(_turn(values, folder, choices))
        except DataError as error:
            raise error.at(f"dialogue {dialogue!r}: line {line}") from None
    known = rows[0][1].get("scene")
    scene = {**known} if isinstance(known, Mapping) else {}
    scene |= {
        key: str(rows[0][1][field]) for key, field in (("script", "group"), ("split", "split")) if field in rows[0][1]
    }
    return checked(dialogue, _with_roles(turns, rows, assistant, choices), name, scene)


def _with_roles(
    turns: Sequence[Turn], rows: Sequence[Row], assistant: str | None, choices: Choices
) -> tuple[Turn, ...]:
    """Roles as the table says, by the assistant's name, or by the choice; see `with_roles` for where it ends."""
    if all("role" in values for _, values in rows):
        roles = [str(values["role"]).strip().lower() for _, values in rows]
    else:
        speakers = [str(values.get("speaker", "")) for _, values in rows]
        if "" in speakers:
            raise DataError("bad_layout", f"a turn has neither speaker nor role: {speakers}")
        if assistant is None:
            return assign_roles(turns, speakers, choices.roles)
        roles = ["assistant" if speaker == assistant else "user" for speaker in speakers]
    return with_roles(turns, roles)


def _turn(values: Mapping[str, Any], folder: Path, choices: Choices) -> Turn:
    known = {name: str(values[name]).strip().lower() for name in STYLE_FIELDS if name in values and name != "emotion"}
    label = str(values["emotion"]) if "emotion" in values else None
    style = Style(emotion=choices.emotion(label) if label is not None else None, **known)
    audio = _audio(values, folder) if "audio" in values else None
    meta = {"emotion": label} if label is not None else {}
    meta = meta if audio is not None else meta | NO_AUDIO
    return Turn("user", str(values.get("text", "")), style, audio, meta, _learn(values.get("learn", True)))


def _learn(value: Any) -> bool:
    found = _TRUTH.get(str(value).strip().lower())
    if found is None:
        raise DataError("wrong_type", f"learn is {shown(value)}; it is true or false")
    return found


def _audio(values: Mapping[str, Any], folder: Path) -> AudioRef:
    whole = audio_below(folder, str(values["audio"]))
    start = round(float(values.get("start", 0)) * SAMPLE_RATE)
    stop = round(float(values["end"]) * SAMPLE_RATE) if "end" in values else whole.num_samples
    if not 0 <= start < stop or stop > whole.num_samples + 2:  # a written second is rounded, too
        seconds = whole.num_samples / SAMPLE_RATE
        message = (
            f"start {values.get('start', 0)} to end {values.get('end', 'the end')} does not lie in its {seconds:.3f} s"
        )
        raise DataError("bad_times", message, whole.path)
    channel = int(values["channel"]) if "channel" in values else None
    ref = AudioRef(whole.path, min(stop, whole.num_samples) - start, start, channel)
    stored_samples(ref)  # names a channel that is not there
    return ref

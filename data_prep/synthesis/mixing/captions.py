"""The table of a folder of clips: what each is, its caption, class and licence; several layouts."""

import ast
import csv
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from data_prep.synthesis.contracts import Contract, Sound
from data_prep.synthesis.mixing.clips import POOLS, EventClass, Pool, pool_of
from omnichat.dialogue import DataError, shown

HELD_SHARE = 0.1  # of the clips of a kind, for val and for test each
# dataset/*.csv of cdjkim/audiocaps; musiccaps-public.csv. The column that is the clip's id, and those of its caption.
AUDIOCAPS, MUSICCAPS = ("youtube_id", "caption"), ("ytid", "aspect_list")
VIDEO_LICENCE = "of the uploader of the video"  # both name videos of which they own no rights

# Captions with one of these words speak of what goes on; ours, from the classes of AudioSet's ontology.
CONTINUOUS_WORDS = frozenset(
    """rain raining drizzle storm wind winds blowing blows breeze water river stream waterfall waves ocean surf flowing
    flows trickling dripping bubbling bubbles engine engines motor motors motorcycle traffic highway idling idles hum
    humming hums buzz buzzing buzzes hiss hissing static noise whirring whirs drone droning fan vacuum drill drilling
    chainsaw saw sewing machine machinery mower helicopter airplane aircraft plane jet train subway frying sizzling
    sizzles boiling crackling fire insects crickets cicadas bees birds chirping crowd rumbling rumble ticking ticks
    purring snoring rustling typing hovers runs running siren sirens alarm""".split()
)


class ClipRow(Contract):
    """A row of a table.

    Attributes:
        id: of the clip.
        kind: "audio" for events, "music".
        caption: empty where there is none; then the clip is not used.
        file: below the folder; empty where it must be found by the id.
        event_class: None where the caption must tell.
        licence, credit: as stated.
        pool: the split it may be heard in; None where it is drawn.
        voice: probability of a human voice, where a tagger has looked for one.
    """

    id: str = Field(min_length=1)
    kind: Literal["audio", "music"]
    caption: str = ""
    file: str = ""
    event_class: EventClass | None = None
    licence: str = ""
    credit: str = ""
    pool: Pool | None = None
    voice: float | None = Field(default=None, ge=0, le=1)

    def classified(self) -> EventClass:
        """The class, by the caption where the table has none: what is not known to go on happens once."""
        if self.kind == "music":
            return "music"
        if self.event_class is not None:
            return self.event_class
        return "continuous" if set(re.findall(r"\w+", self.caption.lower())) & CONTINUOUS_WORDS else "temporary"


def read_captions(path: Path) -> tuple[ClipRow, ...]:
    """The rows of a table, each clip once.

    Layouts: JSON, a list of objects with file, caption, type or kind ("audio", "audio_event", "music") and what else
    `ClipRow` knows; CSV with the same columns (`clip` or `id`); AudioCaps' CSV; MusicCaps' CSV.

    Raises:
        DataError: `no_file`, `bad_encoding`, `bad_captions` with the place.
    """
    rows: dict[str, ClipRow] = {}
    for place, row in _rows(path):
        # A clip of AudioCaps' test sets has five captions: the first is taken.
        rows.setdefault(row.id, row)
        if rows[row.id].kind != row.kind:
            raise DataError("bad_captions", f"clip {row.id!r} is audio and music; give them two ids", place)
    if not rows:
        raise DataError("bad_captions", "holds no clip", str(path))
    return tuple(rows.values())


def pools(rows: Iterable[ClipRow]) -> dict[str, Pool]:
    """The split of each clip: as the table says, else a tenth of each kind for val and for test, at least one."""
    chosen: dict[str, Pool] = {row.id: row.pool for row in rows if row.pool is not None}
    for kind in ("audio", "music"):
        free = sorted((row.id for row in rows if row.kind == kind and row.pool is None), key=_hash)
        held = max(1, round(HELD_SHARE * len(free))) if len(free) >= len(POOLS) else 0
        for number, name in enumerate(free):
            chosen[name] = "test" if number < held else "val" if number < 2 * held else "train"
    return chosen


def sounds_of(path: Path, kind: Literal["audio", "music"], split: str) -> tuple[Sound, ...]:
    """The clips of a table that a split's scripts may be about.

    Raises:
        DataError: see `read_captions`; `bad_captions` where a clip has no caption, or where none is left for the split.
    """
    rows = read_captions(path)
    pool = pools(rows)
    mine = [row for row in rows if row.kind == kind and pool[row.id] == pool_of(split)]
    if bare := [row.id for row in rows if row.kind == kind and not row.caption]:
        message = f"clip(s) {', '.join(map(repr, bare[:5]))} have no caption; write one, or take them out"
        raise DataError("bad_captions", message, str(path))
    if not mine:
        message = f"has no clip of kind {kind} for the split {split!r}; add some, or say in a column `split` which"
        raise DataError("bad_captions", message, str(path))
    return tuple(Sound(kind=kind, caption=row.caption, clip=row.id) for row in mine)


def write_captions(path: Path, rows: Iterable[ClipRow]) -> None:
    """Write a table that `read_captions` reads."""
    records = [row.model_dump(mode="json", exclude_none=True) for row in rows]
    path.write_text(json.dumps(records, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _rows(path: Path) -> Iterable[tuple[str, ClipRow]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError("bad_encoding", "not UTF-8", str(path)) from None
    except OSError as error:
        raise DataError("no_file", f"{error.strerror}; correct the path", str(path)) from None
    if path.suffix == ".json":
        try:
            records = json.loads(text)
        except ValueError as error:
            raise DataError("bad_captions", f"not JSON: {error}", str(path)) from None
        if not isinstance(records, list):
            raise DataError("bad_captions", "must be a list of objects with file and caption", str(path))
        for number, record in enumerate(records, start=1):
            yield f"{path}: clip {number}", _row(record, f"{path}: clip {number}")
        return
    lines = csv.DictReader(text.splitlines(keepends=True))
    names = set(lines.fieldnames or ())
    layout = next((pair for pair in (AUDIOCAPS, MUSICCAPS) if set(pair) <= names), None)
    if layout is None and not ("caption" in names and names & {"clip", "id", "file"}):
        wanted = "clip and caption, youtube_id and caption (AudioCaps), or ytid and aspect_list (MusicCaps)"
        message = f"has the columns {', '.join(sorted(names)) or 'none'}; needs {wanted}"
        raise DataError("bad_captions", message, str(path))
    for record in lines:
        place = f"{path}:{lines.line_num}"
        yield place, _row(record if layout is None else _published(record, layout, place), place)


def _published(record: Mapping[str, Any], layout: tuple[str, str], place: str) -> dict[str, Any]:
    name, caption = (" ".join((record[column] or "").split()) for column in layout)
    start = record.get("start_time" if layout == AUDIOCAPS else "start_s") or ""
    if layout == MUSICCAPS:
        try:
            aspects = ast.literal_eval(caption)
        except (ValueError, SyntaxError):
            aspects = None
        if not isinstance(aspects, list) or not all(isinstance(aspect, str) for aspect in aspects):
            raise DataError("bad_captions", f"aspect_list is no list of words: {shown(caption)}", place)
        caption = ", ".join(aspects)
    return {
        "id": name,
        "kind": "music" if layout == MUSICCAPS else "audio",
        "caption": caption,
        "licence": VIDEO_LICENCE,
        "credit": f"https://youtu.be/{name}" + (f"?t={start}" if start else ""),
    }


def _row(record: Any, place: str) -> ClipRow:
    if not isinstance(record, dict):
        raise DataError("bad_captions", f"is {shown(record)}, not an object with file and caption", place)
    file = str(record.get("file") or "")
    kind = str(record.get("kind") or record.get("type") or "audio")
    values = {
        "id": str(record.get("id") or record.get("clip") or file.rpartition(".")[0]),
        "kind": "audio" if kind == "audio_event" else kind,
        "caption": " ".join(str(record.get("caption") or "").split()),
        "file": file,
        "event_class": record.get("event_class") or None,
        "licence": str(record.get("licence") or record.get("license") or ""),
        "credit": str(record.get("credit") or ""),
        "pool": record.get("pool") or record.get("split") or None,
        "voice": None if record.get("voice") in (None, "") else record["voice"],
    }
    try:
        return ClipRow.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        raise DataError("bad_captions", f"{key} {shown(fault['input'])}: {fault['msg'].lower()}", place) from None


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()

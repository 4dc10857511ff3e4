"""Dialogues as JSONL, one a line."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from omnichat.dialogue.faults import DataError, raise_together, shown
from omnichat.dialogue.types import STYLE_FIELDS, AudioRef, Dialogue, Style, Turn, check_dialogue

# A URL, a drive or share of Windows, or a step up in its spelling.
_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|file:|[A-Za-z]:[\\/]|\\|(.*[\\/])?\.\.\\", re.DOTALL)
MAX_LINE = 8 * 2**20  # characters of a JSONL line, ours: a thousand turns make 1 MB; beyond, line ends are missing
_LENGTHS = "; python -m data_prep.table makes a store of such a file, and finds the lengths"
MAX_SAMPLES = 2**31  # 37 h at 16 kHz: a count beyond is a mistake, and would exhaust the memory


def dialogue_from_json(line: str, root: Path | None = None) -> Dialogue:
    """One JSONL line as a checked `Dialogue`; audio paths are taken relative to `root`.

    Raises:
        DataError: `line_too_long`, `bad_json`, `bad_encoding`, `duplicate_key`, `wrong_type`, `unknown_key`,
            `unknown_style`, `path_outside_root` or what `check_dialogue` finds; the faults of other turns in tow.
    """
    record = _parsed(line)
    record = record if isinstance(record, dict) else {}
    if not isinstance(record.get("id"), str) or not isinstance(record.get("turns"), list):
        raise DataError("wrong_type", "a dialogue is an object with id (string) and turns (list)")
    unknown = sorted(set(record) - {"id", "turns", "source", "scene"})
    if unknown:
        message = f"unknown key(s) {_keys(unknown)}; a dialogue has id, turns, source, scene"
        raise DataError("unknown_key", message)
    scene, source = record.get("scene", {}), record.get("source", "")
    values = [source, *scene.values()] if isinstance(scene, dict) else [None]
    if not all(isinstance(value, str) for value in values):
        raise DataError("wrong_type", "source must be a string and scene an object of strings")
    turns, faults = [], []
    for number, turn in enumerate(record["turns"]):
        try:
            turns.append(_turn_from(turn, root))
        except DataError as error:
            faults.append(error.at(f"dialogue {shown(record['id'])}: turn {number}"))
    raise_together(faults)
    dialogue = Dialogue(record["id"], tuple(turns), source, scene)
    check_dialogue(dialogue)
    return dialogue


def dialogue_to_json(dialogue: Dialogue, root: Path | None = None) -> str:
    """One JSONL line; audio paths below `root` are written relative to it."""

    def audio(ref: AudioRef) -> dict[str, Any]:
        if ref.size:
            raise ValueError(f"{ref.path}: audio inside a shard has no JSONL form; write it out as a file first")
        path = Path(ref.path)
        below = root is not None and path.is_relative_to(root)
        place = path.relative_to(root).as_posix() if root is not None and below else str(path)
        rest = {"start": ref.start or None, "channel": ref.channel, "sha256": ref.sha256 or None}
        return {"path": place, "num_samples": ref.num_samples} | {k: v for k, v in rest.items() if v is not None}

    turns = [
        {"role": turn.role, "text": turn.text}
        | ({"style": turn.style.known()} if turn.style.known() else {})
        | ({"audio": audio(turn.audio)} if turn.audio is not None else {})
        | ({} if turn.learn else {"learn": False})
        | ({"meta": dict(turn.meta)} if turn.meta else {})
        for turn in dialogue.turns
    ]
    record = {"id": dialogue.id, "source": dialogue.source, "scene": dict(dialogue.scene), "turns": turns}
    return json.dumps(record, ensure_ascii=False)


def read_dialogues(path: Path | str) -> Iterator[Dialogue]:
    """Dialogues of a JSONL file in order; audio paths are relative to the file's folder.

    Raises:
        DataError: the first fault, with `file:line` and the turn; or `no_file`, `empty_file`.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError("no_file", "no such file; make the store first or correct the path", str(path))
    empty = True
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            if not raw.strip():
                continue
            empty = False
            try:
                yield dialogue_from_json(raw.decode("utf-8-sig"), path.parent)
            except UnicodeDecodeError:
                raise DataError("bad_encoding", "not UTF-8", f"{path}:{number}") from None
            except DataError as error:
                raise error.at(f"{path}:{number}") from None
    if empty:
        raise DataError("empty_file", "holds no dialogue", str(path))


def write_dialogues(path: Path | str, dialogues: Iterable[Dialogue]) -> int:
    """Write a JSONL file and return the number of dialogues; audio below its folder gets relative paths."""
    path, count = Path(path), 0
    with path.open("w", encoding="utf-8", newline="\n") as out:
        for dialogue in dialogues:
            out.write(dialogue_to_json(dialogue, path.parent) + "\n")
            count += 1
    return count


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Python would take the last of two values for one key, without a word."""
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(names) < 1_000 else ["..."]
        raise DataError("duplicate_key", f"key(s) {_keys(twice)} twice in one object; keep one of them")
    return record


def _parsed(line: str) -> Any:
    """The JSON of a line, or a `DataError` that says why there is none."""
    if len(line) > MAX_LINE:
        raise too_long_line(len(line))
    try:
        record = json.loads(line.rstrip("\r\n"), object_pairs_hook=_object)
        if "\\ud" in line.lower():  # JSON can spell half a surrogate pair, which no file or tokenizer takes
            json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DataError("bad_encoding", "holds half a surrogate pair; write it as UTF-8 again") from None
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError("bad_json", f"not JSON: {error}") from None
    return record


def too_long_line(size: int) -> DataError:
    """The fault of a line beyond `MAX_LINE`."""
    message = f"the line has {size:,} characters, at most {MAX_LINE:,} are read; write one dialogue a line"
    return DataError("line_too_long", message)


def _turn_from(record: Any, root: Path | None) -> Turn:
    if not isinstance(record, dict):
        raise DataError("wrong_type", f"a turn must be an object, got {type(record).__name__}")
    unknown = sorted(set(record) - {"role", "text", "style", "audio", "learn", "meta"})
    if unknown:
        message = f"unknown key(s) {_keys(unknown)}; a turn has role, text, style, audio, learn, meta"
        raise DataError("unknown_key", message)
    style = record.get("style")
    style = {} if style is None else style
    if not isinstance(style, dict) or set(style) - set(STYLE_FIELDS):
        message = f"style must be an object with keys among {', '.join(STYLE_FIELDS)}, got {shown(style)}"
        raise DataError("unknown_style", message)
    text = record.get("text", "")
    if not isinstance(text, str):
        raise DataError("wrong_type", f"text must be a string, got {type(text).__name__}")
    meta = record.get("meta", {})
    if not isinstance(meta, dict) or not all(isinstance(value, str) for value in meta.values()):
        raise DataError("wrong_type", f"meta must be an object of strings, got {shown(meta)}")
    role, audio = record.get("role", ""), _audio_from(record.get("audio"), root)
    return Turn(role, text, Style(**style), audio, meta, _learn_from(record.get("learn"), role))


def _learn_from(learn: Any, role: str) -> bool:
    if learn is not None and type(learn) is not bool:
        raise DataError("wrong_type", f"learn must be true or false, got {shown(learn)}")
    if learn and role == "user":
        raise DataError("wrong_type", "learn is true, but user turns are heard and never learnt; leave learn out")
    return learn is not False or role == "user"


def _audio_from(record: Any, root: Path | None) -> AudioRef | None:
    if record is None:
        return None
    known = {"path", "num_samples", "start", "channel", "sha256"}
    if not isinstance(record, dict) or set(record) - known:
        message = f"audio must be an object with {', '.join(sorted(known))} only, got {shown(record)}"
        raise DataError("wrong_type", message + (_LENGTHS if isinstance(record, str) else ""))
    path, channel, sha256 = record.get("path"), record.get("channel"), record.get("sha256", "")
    counts = {"num_samples": record.get("num_samples"), "start": record.get("start", 0)}
    if not isinstance(path, str) or not path or "\0" in path:
        raise DataError("wrong_type", f"audio.path must be the path of a file, got {shown(path)}")
    for name, count in counts.items():
        if type(count) is not int or not 0 <= count < MAX_SAMPLES:
            message = f"audio.{name} must be a count of samples at 16 kHz, got {shown(count)}"
            raise DataError("wrong_type", message + (_LENGTHS if name not in record else ""))
    if channel is not None and (type(channel) is not int or channel < 0):
        raise DataError("wrong_type", f"audio.channel must be the number of a channel from 0, got {shown(channel)}")
    if not isinstance(sha256, str) or (sha256 and not re.fullmatch("[0-9a-f]{64}", sha256)):
        raise DataError("wrong_type", f"audio.sha256 must be 64 hexadecimal digits, got {sha256!r}")
    return AudioRef(path if root is None else inside(root, path), **counts, channel=channel, sha256=sha256)


def _keys(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(name if name.isidentifier() else shown(name) for name in names[:5]) + more


def inside(root: Path, path: str) -> str:
    """The path below `root`: a manifest speaks of files beside it; anything else is a mistake or an attack.

    Raises:
        DataError: `path_outside_root`, for URLs and for Windows paths that lead elsewhere too.
    """
    target = os.path.join(root, path)
    below = os.path.realpath(target).startswith(_real_path(str(root)) + os.sep)
    if os.path.isabs(path) or _ELSEWHERE.match(path) or not below:
        message = f"audio path {shown(path)} leaves the data folder {root}; copy the audio into it"
        raise DataError("path_outside_root", message)
    return target


@lru_cache(maxsize=64)
def _real_path(folder: str) -> str:
    return os.path.realpath(folder)

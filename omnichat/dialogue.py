"""What a spoken dialogue is: styles, turns, audio references; and its JSONL form.

Standard library only, so that every other module, and every tool, can import it for free.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

# The paper's style set (OmniChat, section 3 and Figs 11-13): the values its script prompts allow.
GENDERS = ("male", "female")
EMOTIONS = ("neutral", "happy", "angry", "sad", "surprised", "fearful", "disgusted")
SPEEDS = ("slow", "normal", "fast")
PITCHES = ("low", "normal", "high")

# In the order of the paper's generation prompts: (gender, emotion, speed, pitch).
STYLE_VALUES: dict[str, tuple[str, ...]] = {
    "gender": GENDERS,
    "emotion": EMOTIONS,
    "speed": SPEEDS,
    "pitch": PITCHES,
}
STYLE_FIELDS = tuple(STYLE_VALUES)

Role = Literal["user", "assistant"]
ROLES: tuple[Role, ...] = ("user", "assistant")

MAX_SAMPLES = 2**31  # 37 h at 16 kHz: a count beyond is a mistake, and would exhaust the memory


class DataError(ValueError):
    """Data that cannot be used. `reason` is a stable code; the message says what, where and how to mend it."""

    def __init__(self, reason: str, message: str, where: str = "") -> None:
        super().__init__(f"{where}: {message} [{reason}]" if where else f"{message} [{reason}]")
        self.reason = reason
        self.message = message
        self.where = where

    def at(self, where: str) -> "DataError":
        """The same fault with an outer place in front: `train.jsonl:3` + `turn 2` -> `train.jsonl:3: turn 2`."""
        return DataError(self.reason, self.message, f"{where}: {self.where}" if self.where else where)

    def __reduce__(self) -> tuple[type["DataError"], tuple[str, str, str]]:
        return DataError, (self.reason, self.message, self.where)  # data workers send it between processes


@dataclass(frozen=True, slots=True)
class Style:
    """How a turn is spoken. `None` means unknown: no target, and never invented.

    Raises:
        DataError: `unknown_style` where a value is outside the paper's set; names the nearest allowed value.
    """

    gender: str | None = None
    emotion: str | None = None
    speed: str | None = None
    pitch: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in STYLE_VALUES.items():
            value = getattr(self, name)
            if value is None or value in allowed:
                continue
            close = get_close_matches(str(value).lower(), allowed, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise DataError("unknown_style", f"{name} {value!r} is not one of {', '.join(allowed)}{hint}")

    def known(self) -> dict[str, str]:
        """The fields that are known, in the order of `STYLE_FIELDS`."""
        return {name: value for name in STYLE_FIELDS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class AudioRef:
    """A stretch of an audio file, counted in samples at 16 kHz whatever the file's own rate.

    The length is known without decoding, so that audio slots can be counted before any audio is read.

    Attributes:
        path: the file, or the store's shard that holds the file's bytes.
        num_samples: of the stretch, at 16 kHz.
        start: of the stretch, at 16 kHz.
        channel: the one that is heard; None averages all. A telephone recording has a speaker on each.
        offset: where the audio file begins within `path`, in bytes.
        size: bytes of the audio file; 0 where `path` is the audio file itself.
        sha256: of the audio file's bytes, where it is known.
    """

    path: str
    num_samples: int
    start: int = 0
    channel: int | None = None
    offset: int = 0
    size: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn. A user turn is heard (`audio`), an assistant turn is read (`style` and `text`).

    `meta` is what its corpus says of it beyond that (its own emotion label, when it was interrupted): used for splits
    and reports, never shown to the model.
    """

    role: Role
    text: str
    style: Style = Style()
    audio: AudioRef | None = None
    meta: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A dialogue that ends in the assistant turn to be learnt.

    `scene` is free metadata about what was recorded (scenario, sound, voice, script): used for
    splits and reports, never shown to the model.
    """

    id: str
    turns: tuple[Turn, ...]
    source: str = ""
    scene: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the assistant answers. `style` is None where the model's text held no readable style."""

    style: Style | None
    text: str


def check_dialogue(dialogue: Dialogue) -> None:
    """Raise a `DataError` that names the turn if the dialogue cannot be trained on.

    Raises:
        DataError: `no_turns`, `unknown_role`, `empty_text`, `no_assistant_turn`, `last_turn_not_assistant` or
            `no_user_turn`.
    """
    where = f"dialogue {dialogue.id!r}"
    if not dialogue.turns:
        raise DataError("no_turns", "has no turns", where)
    for number, turn in enumerate(dialogue.turns):
        if turn.role not in ROLES:
            raise DataError("unknown_role", f"role {turn.role!r} is not one of {ROLES}", f"{where}: turn {number}")
        if not turn.text.strip() and (turn.role == "assistant" or turn.audio is None):
            needs = "words to be learnt" if turn.role == "assistant" else "audio or words"
            raise DataError("empty_text", f"this {turn.role} turn needs {needs}", f"{where}: turn {number}")
    roles = [turn.role for turn in dialogue.turns]
    if "assistant" not in roles:
        message = "has no assistant turn, so nothing to learn; give one turn role 'assistant'"
        raise DataError("no_assistant_turn", message, where)
    if roles[-1] != "assistant":
        message = "must end in an assistant turn; drop the last user turn or swap roles"
        raise DataError("last_turn_not_assistant", message, where)
    if "user" not in roles:
        raise DataError("no_user_turn", "has no user turn, so nothing to hear", where)


def _turn_from(record: Any, root: Path | None) -> Turn:
    if not isinstance(record, dict):
        raise DataError("wrong_type", f"a turn must be an object, got {type(record).__name__}")
    unknown = sorted(set(record) - {"role", "text", "style", "audio", "meta"})
    if unknown:
        message = f"unknown key(s) {', '.join(unknown)}; a turn has role, text, style, audio, meta"
        raise DataError("unknown_key", message)
    style = record.get("style")
    style = {} if style is None else style
    if not isinstance(style, dict) or set(style) - set(STYLE_FIELDS):
        message = f"style must be an object with keys among {', '.join(STYLE_FIELDS)}, got {style!r}"
        raise DataError("unknown_style", message)
    text = record.get("text", "")
    if not isinstance(text, str):
        raise DataError("wrong_type", f"text must be a string, got {type(text).__name__}")
    meta = record.get("meta", {})
    if not isinstance(meta, dict) or not all(isinstance(value, str) for value in meta.values()):
        raise DataError("wrong_type", f"meta must be an object of strings, got {meta!r}")
    return Turn(record.get("role", ""), text, Style(**style), _audio_from(record.get("audio"), root), meta)


def _audio_from(record: Any, root: Path | None) -> AudioRef | None:
    if record is None:
        return None
    known = {"path", "num_samples", "start", "channel", "sha256"}
    if not isinstance(record, dict) or set(record) - known:
        raise DataError("wrong_type", f"audio must be an object with {', '.join(sorted(known))} only, got {record!r}")
    path, channel, sha256 = record.get("path"), record.get("channel"), record.get("sha256", "")
    counts = {"num_samples": record.get("num_samples"), "start": record.get("start", 0)}
    if not isinstance(path, str) or not path or "\0" in path:
        raise DataError("wrong_type", f"audio.path must be the path of a file, got {path!r}")
    for name, count in counts.items():
        if type(count) is not int or not 0 <= count < MAX_SAMPLES:
            raise DataError("wrong_type", f"audio.{name} must be a count of samples at 16 kHz, got {count!r}")
    if channel is not None and (type(channel) is not int or channel < 0):
        raise DataError("wrong_type", f"audio.channel must be the number of a channel from 0, got {channel!r}")
    if not isinstance(sha256, str) or (sha256 and not re.fullmatch("[0-9a-f]{64}", sha256)):
        raise DataError("wrong_type", f"audio.sha256 must be 64 hexadecimal digits, got {sha256!r}")
    return AudioRef(path if root is None else inside(root, path), **counts, channel=channel, sha256=sha256)


def inside(root: Path, path: str) -> str:
    """The path below `root`: a manifest speaks of files beside it; anything else is a mistake or an attack.

    Raises:
        DataError: `path_outside_root`.
    """
    target = os.path.join(root, path)
    if os.path.isabs(path) or not os.path.realpath(target).startswith(_real_path(str(root)) + os.sep):
        message = f"audio path {path!r} leaves the data folder {root}; copy the audio into it"
        raise DataError("path_outside_root", message)
    return target


@lru_cache(maxsize=64)
def _real_path(folder: str) -> str:
    return os.path.realpath(folder)


def dialogue_from_json(line: str, root: Path | None = None) -> Dialogue:
    """One JSONL line as a checked `Dialogue`; audio paths are taken relative to `root`.

    Raises:
        DataError: `bad_json`, `bad_encoding`, `wrong_type`, `unknown_key`, `unknown_style`, `path_outside_root` or what
            `check_dialogue` finds.
    """
    try:
        record = json.loads(line)
        if "\\ud" in line.lower():  # JSON can spell half a surrogate pair, which no file or tokenizer takes
            json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DataError("bad_encoding", "holds half a surrogate pair; write it as UTF-8 again") from None
    except (ValueError, RecursionError) as error:
        raise DataError("bad_json", f"not JSON: {error}") from None
    record = record if isinstance(record, dict) else {}
    if not isinstance(record.get("id"), str) or not isinstance(record.get("turns"), list):
        raise DataError("wrong_type", "a dialogue is an object with id (string) and turns (list)")
    unknown = sorted(set(record) - {"id", "turns", "source", "scene"})
    if unknown:
        raise DataError("unknown_key", f"unknown key(s) {', '.join(unknown)}; a dialogue has id, turns, source, scene")
    scene, source = record.get("scene", {}), record.get("source", "")
    values = [source, *scene.values()] if isinstance(scene, dict) else [None]
    if not all(isinstance(value, str) for value in values):
        raise DataError("wrong_type", "source must be a string and scene an object of strings")
    turns = []
    for number, turn in enumerate(record["turns"]):
        try:
            turns.append(_turn_from(turn, root))
        except DataError as error:
            raise error.at(f"dialogue {record['id']!r}: turn {number}") from None
    dialogue = Dialogue(record["id"], tuple(turns), source, scene)
    check_dialogue(dialogue)
    return dialogue


def dialogue_to_json(dialogue: Dialogue, root: Path | None = None) -> str:
    """One JSONL line; audio paths below `root` are written relative to it."""

    def audio(ref: AudioRef) -> dict[str, Any]:
        if ref.size:
            raise ValueError(f"{ref.path}: audio inside a shard has no JSONL form; write it out as a file first")
        path = Path(ref.path)
        shown = path.relative_to(root).as_posix() if root is not None and path.is_relative_to(root) else str(path)
        rest = {"start": ref.start or None, "channel": ref.channel, "sha256": ref.sha256 or None}
        return {"path": shown, "num_samples": ref.num_samples} | {k: v for k, v in rest.items() if v is not None}

    turns = [
        {"role": turn.role, "text": turn.text}
        | ({"style": turn.style.known()} if turn.style.known() else {})
        | ({"audio": audio(turn.audio)} if turn.audio is not None else {})
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

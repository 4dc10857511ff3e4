"""`replies.jsonl`: what a model answered, with all that is needed to score and show it, one reply a line.

`generation.json` beside it says what the replies were made with and how many there must be.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnichat.dialogue import STYLE_FIELDS, AudioRef, DataError, Reply, Style, Turn
from omnichat.recipes import ROOT
from omnichat.run_folder import GENERATION

AGAIN = "make the replies again (stage=generate, or eval/baseline.py for a baseline)"
ANEW = f"delete the line and {AGAIN}, which makes this one anew"
LOCK = ".evaluation.lock"
_PLACES = ("start", "channel", "offset", "size")  # of audio within its file, where it is not all of it
_WHOLE_FILE = AudioRef("", 0)


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's reply to a dialogue.

    Attributes:
        history: the turns before the reply; the last one is the user turn that is answered.
        reference: what the corpus answers.
        reply: what the model answers; style None where none could be read.
        raw: the model's text as it came.
        gates: mean gate of each expert over the windows of the last user turn; empty where it was not heard.
        seconds: wall time of the batch, divided by its dialogues.
        model: hash of the trained weights and the decoding settings.
        prompt: hash of the token ids and of the audio that the model got.
        failure: the reason code where the model could not be asked and `reply` is empty, which every score counts as
            wrong: `too_long`, the dialogue does not fit into its context. Else "".
        guided: whether its style was kept in form against the model's own choice.
    """

    id: str
    split: str
    scene: Mapping[str, str]
    history: tuple[Turn, ...]
    reference: Reply
    reply: Reply
    raw: str
    gates: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    model: str = ""
    prompt: str = ""
    failure: str = ""
    guided: bool = False

    @property
    def key(self) -> tuple[str, int]:
        """Which reply of a set this is: the dialogue, and the place of the reply among its turns."""
        return self.id, len(self.history)

    @property
    def round(self) -> int:
        """How many times the user has spoken: 1 for the first reply of a dialogue."""
        return sum(turn.role == "user" for turn in self.history)


def answer_to_json(answer: Answer) -> str:
    """One line, without its end. Audio paths inside the repository are written relative to it."""
    assert answer.reference.style is not None, "a reference has a style, if only an unknown one"
    record = {
        "id": answer.id,
        "split": answer.split,
        "scene": dict(answer.scene),
        "history": [_turn_to_json(turn) for turn in answer.history],
        "reference": {"style": answer.reference.style.known(), "text": answer.reference.text},
        "reply": {
            "style": None if answer.reply.style is None else answer.reply.style.known(),
            "text": answer.reply.text,
            "raw": answer.raw,
            **({"guided": True} if answer.guided else {}),
        },
        "gates": dict(answer.gates),
        "seconds": answer.seconds,
        "model": answer.model,
        "prompt": answer.prompt,
        **({"failure": answer.failure} if answer.failure else {}),
    }
    return json.dumps(record, ensure_ascii=False)


def answer_from_json(line: str) -> Answer:
    """One line as an `Answer`.

    Raises:
        DataError: `bad_json`, `wrong_type`, `no_reference` or `unknown_style`; names the id where it could be read.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError("bad_json", f"not JSON ({error})") from None
    if not isinstance(record, dict) or not isinstance(record.get("id"), str) or not record["id"]:
        raise DataError("wrong_type", "a reply is an object with an id")
    try:
        return _answer(record)
    except DataError as error:
        raise error.at(f"reply {record['id']!r}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"lacks a field or has one of another type ({error!r})"
        raise DataError("wrong_type", message, f"reply {record['id']!r}") from None


def read_answers(path: Path | str) -> list[Answer]:
    """All replies of a file, by split, id and turn, so that scores do not depend on the order they were made in.

    Raises:
        DataError: `no_file`, `empty_file`, `truncated`, `duplicate_id`, `mixed_models` or what `answer_from_json`
            finds, with `file:line`.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            "no_file",
            "no replies are here; stage=generate, or eval/baseline.py, makes them; or correct the folder",
            str(path),
        )
    lines = path.read_bytes().split(b"\n")
    if lines[-1].strip():
        message = f"the last line was cut short; {AGAIN}: that mends it, and keeps the others"
        raise DataError("truncated", message, f"{path}:{len(lines)}")
    answers: dict[tuple[str, str, int], Answer] = {}
    places: dict[tuple[str, str, int], int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        answer = _read_line(line, f"{path}:{number}")
        key = (answer.split, *answer.key)
        if key in places:
            message = f"id {answer.id!r} of split {answer.split!r} is that of line {places[key]} too; delete one line"
            raise DataError("duplicate_id", message, f"{path}:{number}")
        answers[key], places[key] = answer, number
    if not answers:
        raise DataError("empty_file", f"holds no reply; {AGAIN}", str(path))
    if len(models := {answer.model for answer in answers.values()}) > 1:
        message = f"holds replies of {len(models)} models or decoding settings; {AGAIN}"
        raise DataError("mixed_models", message, str(path))
    return [answers[key] for key in sorted(answers)]


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The numbered lines of a file that grows line by line, without a last one that was cut short; none if absent."""
    whole = path.read_bytes().rpartition(b"\n")[0] if path.is_file() else b""
    lines = whole.decode("utf-8", errors="replace").split("\n")
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def mend(path: Path) -> list[Answer]:
    """The whole replies of a file that a kill may have cut short; what is not whole is taken out of the file.

    Raises:
        DataError: a broken line that is not the last one: that is damage, not a kill.
    """
    if not path.is_file():
        return []
    whole, _, rest = path.read_bytes().rpartition(b"\n")
    if rest.strip():
        replace_file(path, whole + b"\n" if whole else b"")
    if not whole.strip():
        return []
    lines = enumerate(whole.split(b"\n"), start=1)
    return [_read_line(line, f"{path}:{number}") for number, line in lines if line.strip()]


def asked_ids(keys: Iterable[tuple[str, int]]) -> str:
    """A short hash of which replies of a set there must be (see `Answer.key`), whatever their order."""
    return hashlib.sha256(json.dumps(sorted(keys)).encode()).hexdigest()[:16]


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Write a file of replies, whole or not at all."""
    replace_file(path, "".join(answer_to_json(answer) + "\n" for answer in answers).encode())


def read_generation(run_dir: Path | str) -> dict[str, Any]:
    """What `generation.json` says; empty where it is not there or not whole."""
    try:
        found = json.loads((Path(run_dir) / GENERATION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("splits"), dict) else {}


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` into `path` so that a crash leaves the old file or the new one.

    Raises:
        OSError: it cannot be written; names the file.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # two processes may score one run
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise OSError(error.errno, f"{error.strerror}, so it stays as it was", str(path)) from None


@contextlib.contextmanager
def appending(path: Path) -> Iterator[Callable[[str], None]]:
    """Gives the function that adds a line to a file at once, so that a kill costs no more than the line in hand.

    Raises:
        OSError: it cannot be written; names the file.
    """
    # Without a buffer: what a full disk did not take would be tried again when the file is closed, without its name.
    with path.open("ab", buffering=0) as out:

        def add(line: str) -> None:
            left = f"{line}\n".encode()
            try:
                while left:
                    left = left[out.write(left) :]
            except OSError as error:
                message = f"{error.strerror}; the lines before stay, and the same command goes on there"
                raise OSError(error.errno, message, str(path)) from None

        yield add


@contextlib.contextmanager
def writing_alone(run_dir: Path) -> Iterator[None]:
    """Keep other processes from writing replies or verdicts into the folder.

    Raises:
        DataError: `in_use` where one does.
        OSError: the folder cannot be written to.
    """
    with (run_dir / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = (
                "another process writes replies or verdicts here; wait for it, or end it and give the command again"
            )
            raise DataError("in_use", message, str(run_dir)) from None
        yield


def _read_line(line: bytes, where: str) -> Answer:
    try:
        return answer_from_json(line.decode("utf-8"))
    except UnicodeDecodeError:
        fault = DataError("bad_encoding", "not UTF-8")
    except DataError as error:
        fault = error
    raise DataError(fault.reason, f"{fault.message}; {ANEW}", fault.where).at(where)


def _answer(record: Mapping[str, Any]) -> Answer:
    reference, reply = record.get("reference"), record["reply"]
    if not isinstance(reference, dict) or not str(reference.get("text") or "").strip():
        message = "has no reference to be scored against, which every dialogue of a store ends in"
        raise DataError("no_reference", message)
    style = reply["style"]
    return Answer(
        id=record["id"],
        split=_text(record["split"]),
        scene={_text(name): _text(value) for name, value in record["scene"].items()},
        history=tuple(_turn(turn) for turn in record["history"]),
        reference=Reply(_style(reference.get("style")), _text(reference["text"])),
        reply=Reply(None if style is None else _style(style), _text(reply["text"])),
        raw=_text(reply["raw"]),
        guided=reply.get("guided") is True,
        gates={_text(name): float(value) for name, value in record["gates"].items()},
        seconds=float(record["seconds"]),
        model=_text(record.get("model", "")),
        prompt=_text(record.get("prompt", "")),
        failure=_text(record.get("failure", "")),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text expected, got {value!r}")
    return value


def _style(record: Any) -> Style:
    if record is not None and (not isinstance(record, dict) or set(record) - set(STYLE_FIELDS)):
        raise DataError("unknown_style", f"a style has the fields {', '.join(STYLE_FIELDS)}, got {record!r}")
    return Style(**(record or {}))


def _turn(record: Mapping[str, Any]) -> Turn:
    audio = None
    if record.get("audio") is not None:
        places: dict[str, Any] = {name: int(record[name]) for name in _PLACES if name in record}
        audio = AudioRef(_text(record["audio"]), int(record["num_samples"]), **places)
    return Turn(record["role"], _text(record["text"]), _style(record.get("style")), audio)


def _turn_to_json(turn: Turn) -> dict[str, Any]:
    record: dict[str, Any] = {"role": turn.role, "text": turn.text, "style": turn.style.known()}
    if turn.audio is not None:
        path = Path(turn.audio.path)
        inside = path.is_absolute() and path.is_relative_to(ROOT)
        record["audio"] = path.relative_to(ROOT).as_posix() if inside else str(path)
        places = {name: getattr(turn.audio, name) for name in _PLACES}
        record |= {"num_samples": turn.audio.num_samples}
        record |= {name: place for name, place in places.items() if place != getattr(_WHOLE_FILE, name)}
    return record

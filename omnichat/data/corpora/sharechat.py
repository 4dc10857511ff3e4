"""ShareChatX as our synthesis writes it, which is our own store: `<split>.jsonl` beside its audio, and `store.json`.

ShareChatX itself has not been released as files, to our knowledge; there is no other layout to read. The reader serves
any store of JSONL files: it becomes one of Arrow shards, with its splits as they are.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from omnichat.data.corpora.reading import Choices, Corpus, PaperRow, Part, Reading
from omnichat.data.info import INFO_FILE, read_info
from omnichat.dialogue import DataError, Dialogue, dialogue_from_json

NAME = "sharechat"
_PART = 200  # lines


def parts(source: Path) -> list[Part]:
    """200 lines at a time, split by split in the order of their names.

    Raises:
        DataError: `no_file` where there is no JSONL file, or where the store holds shards already.
    """
    if (source / INFO_FILE).is_file() and read_info(source).shards:
        raise DataError(
            "no_file", "is a store of shards already: nothing to convert, train on it as it is", str(source)
        )
    paths = sorted(path for path in source.glob("*.jsonl") if path.name != "rejects.jsonl")
    if not paths:
        message = f"holds no <split>.jsonl; expected is {INFO_FILE}, train.jsonl and so on, and the audio beside them"
        raise DataError("no_file", message, str(source))
    return [
        Part(f"{path.name}:{number}", (path,), (number, offset)) for path in paths for number, offset in _starts(path)
    ]


def _starts(path: Path) -> Iterator[tuple[int, int]]:
    """Number and place in bytes of every 200th line."""
    offset = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if number % _PART == 1:
                yield number, offset
            offset += len(line)


def read(part: Part, choices: Choices) -> Reading:
    """Some lines. Their roles and emotions are ours already, so that `choices` has nothing to decide."""
    reading, (path,), (first, offset) = Reading(), part.files, part.content
    with path.open("rb") as lines:
        lines.seek(offset)
        for number, raw in enumerate(islice(lines, _PART), start=first):
            if raw.strip():
                with reading.rejecting(f"{path}:{number}"):
                    reading.dialogues.append(_dialogue(raw, path))
    return reading


def _dialogue(raw: bytes, path: Path) -> Dialogue:
    try:
        dialogue = dialogue_from_json(raw.decode("utf-8-sig"), path.parent)
    except UnicodeDecodeError:
        raise DataError("bad_encoding", "not UTF-8; convert the file") from None
    return Dialogue(dialogue.id, dialogue.turns, dialogue.source or NAME, {**dialogue.scene, "split": path.stem})


CORPUS = Corpus(
    name=NAME,
    licence="that of the recordings and engines it was made with",
    source="made by data_prep",
    parts=parts,
    read=read,
    paper=PaperRow(dialogues=128_600, turns=947_236, hours=1_130),
)

"""StyleTalk (Lin et al., 2024): one text spoken in several styles, each with an answer of its own.

`train.csv` and `eval.csv` (its own split, here train and test): `context` is three turns in one string, "A : ... B :
... A : ..."; `curr_text` keeps its "B: "; audio is `<diag_id>/c_<k>.wav` and `r_<k>.wav`, for the current turn and the
answer only, k = 0..2 the style. Rows of one `diag_id` are one script. Emotions are partly tones ("friendly",
"unfriendly"): the table says what is guessed. Volume has no counterpart in our styles and is kept as metadata; pitch
and gender are not given.
"""

import csv
import os
import re
from itertools import pairwise
from pathlib import Path

from omnichat.data.corpora.reading import (
    NO_AUDIO,
    Choices,
    Corpus,
    PaperRow,
    Part,
    Reading,
    assign_roles,
    audio_below,
    checked,
    find_layout,
)
from omnichat.dialogue import AudioRef, DataError, Dialogue, Style, Turn

NAME = "styletalk"
SPLITS = {"train.csv": "train", "eval.csv": "test"}
COLUMNS = (
    "diag_id context curr_audio_id res_audio_id curr_text res_text "
    "curr_emotion curr_speed curr_volume res_emotion res_speed res_volume"
).split()
_PART = 200  # rows
_SPEAKER = re.compile(r"(?:^|\s)([AB]) ?: ")
_VARIANT = re.compile(r"c_(\d+)\.wav")

Row = dict[str, str]


def parts(source: Path) -> list[Part]:
    """200 rows at a time, `train.csv` before `eval.csv`.

    Raises:
        DataError: `no_file` where there is no list, `missing_column` or `bad_layout` where it cannot be read.
    """
    root = find_layout(source, "train.csv", "train.csv and eval.csv, with the audio in <diag_id>/c_<k>.wav, r_<k>.wav")
    tables = [(path, _rows(path)) for name in SPLITS if (path := root / name).is_file()]
    folder = _audio_folder(source, root, [row["curr_audio_id"] for _, rows in tables for _, row in rows])
    return [
        Part(f"{path.name}:{rows[start][0]}", (path,), (folder, tuple(rows[start : start + _PART])))
        for path, rows in tables
        for start in range(0, len(rows), _PART)
    ]


def read(part: Part, choices: Choices) -> Reading:
    """Some rows, each a dialogue."""
    reading, (path,) = Reading(), part.files
    folder, rows = part.content
    for line, row in rows:
        with reading.rejecting(f"{path}:{line}"):
            reading.dialogues.append(_dialogue(row, SPLITS[path.name], folder, choices))
    return reading


def _rows(path: Path) -> list[tuple[int, Row]]:
    """Each row with the line it ends in."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            table = csv.DictReader(lines, strict=True)
            missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
            if missing:
                raise DataError("missing_column", f"has no column {', '.join(missing)}; fetch it again", str(path))
            return [(table.line_num, row) for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError("bad_layout", f"is not a CSV in UTF-8 ({error}); fetch it again", str(path)) from None


def _audio_folder(source: Path, root: Path, names: list[str]) -> Path | None:
    """Where the recordings are, in SRC or a folder of it; None where there are none at all."""
    for folder in dict.fromkeys([root, source, *sorted(path for path in source.glob("*") if path.is_dir())]):
        # Not Path.is_file, which raises for a name that no file system takes: one row must not stop the others.
        if any(os.path.isfile(folder / name) for name in names if name and not name.startswith(("/", "."))):
            return folder
    return None


def _dialogue(row: Row, split: str, folder: Path | None, choices: Choices) -> Dialogue:
    history = split_context(row["context"])
    (speaker, said), *more = split_context(row["curr_text"]) or [("", "")]
    if not speaker or more:
        raise DataError("bad_layout", f"curr_text does not begin with one 'A: ' or 'B: ': {row['curr_text'][:60]!r}")
    variant = _VARIANT.fullmatch(Path(row["curr_audio_id"]).name)
    if variant is None:
        raise DataError("bad_layout", f"curr_audio_id {row['curr_audio_id']!r} is not <diag_id>/c_<k>.wav")
    turns = [Turn("user", text, meta=NO_AUDIO) for _, text in history]
    turns.append(_spoken(row, "curr", said, folder, choices))
    turns.append(_spoken(row, "res", row["res_text"].strip(), folder, choices))
    speakers = [*(name for name, _ in history), speaker, "B" if speaker == "A" else "A"]
    if any(one == other for one, other in pairwise(speakers)):
        message = f"speakers do not take turns ({' '.join(speakers)}): 'A : ' may stand within the words"
        raise DataError("bad_layout", message)
    scene = {
        "scenario": "emotion",
        "topic": row["diag_id"].rpartition("_")[0],
        "script": row["diag_id"],
        "style": variant[1],
        "split": split,
    }
    return checked(f"{row['diag_id']}/{variant[1]}", assign_roles(turns, speakers, choices.roles), NAME, scene)


def split_context(context: str) -> list[tuple[str, str]]:
    """(speaker, text) of each turn of "A : ... B : ...".

    Raises:
        DataError: `bad_layout` where it does not begin with a speaker.
    """
    before, *pieces = _SPEAKER.split(context)
    if before.strip() or not pieces:
        raise DataError("bad_layout", f"does not begin with 'A : ' or 'B : ': {context[:60]!r}")
    return [(speaker, text.strip()) for speaker, text in zip(pieces[::2], pieces[1::2], strict=True)]


def _spoken(row: Row, which: str, text: str, folder: Path | None, choices: Choices) -> Turn:
    label = row[f"{which}_emotion"]
    style = Style(emotion=choices.emotion(label), speed=row[f"{which}_speed"])
    meta = {"emotion": label, "volume": row[f"{which}_volume"]}
    audio: AudioRef | None = None
    if folder is not None:
        audio = audio_below(folder, row[f"{which}_audio_id"])
    return Turn("user", text, style, audio, meta if audio is not None else meta | NO_AUDIO)


CORPUS = Corpus(
    name=NAME,
    licence="MIT",
    source="README of DanielLin94144/StyleTalk on GitHub",
    parts=parts,
    read=read,
    labels=NAME,
    paper=PaperRow(dialogues=2_967, turns=12_056, hours=12),
)

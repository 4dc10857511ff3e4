"""LP-MusicDialog: dialogues in text in which music is found (Doh et al., arXiv 2411.07439).

data/train-0000?-of-00002.parquet, 288,000 rows. The card of seungheondoh/lp-music-dialog on the hub names no columns,
and the files were not at hand: a column of turns is looked for under the usual names, and where there is none, the
error names the columns that are there. Turns are {role, content} (or from and value, speaker and text ...), JSON of
such a list, or plain strings with the user first. Nobody speaks: all turns have words only. Rows about one track are
one group where a column names the track.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from omnichat.data.corpora.reading import Choices, Corpus, Part, Reading, checked, give_roles, said
from omnichat.dialogue import DataError, Dialogue

NAME = "lp-musicdialog"
TURNS = ("dialogue", "dialog", "conversation", "conversations", "messages", "turns", "chat")
TRACK = ("track_id", "msd_track_id", "song_id", "item_id")
WHO = ("role", "from", "speaker")
WORDS = ("content", "value", "text", "utterance", "message")
_ROLES = {
    "user": ("user", "human", "seeker", "listener"),
    "assistant": ("assistant", "system", "gpt", "bot", "recommender", "wizard"),
}


def parts(source: Path) -> list[Part]:
    """Row groups of the Parquet files.

    Raises:
        DataError: `no_file`, `unreadable`, or `missing_column` with the columns that are there.
    """
    paths = sorted(source.rglob("*.parquet"))
    if not paths:
        raise DataError("no_file", "holds no *.parquet; expected is data/train-0000?-of-00002.parquet", str(source))
    listed = []
    for path in paths:
        try:
            file = pyarrow.parquet.ParquetFile(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError("unreadable", f"not a Parquet file ({error}); fetch it again", str(path)) from None
        columns = file.schema_arrow.names
        if (turns := _first(TURNS, columns)) is None:
            message = f"has no column of turns ({', '.join(TURNS)}); its columns are {', '.join(columns)}"
            raise DataError("missing_column", message, str(path))
        key = path.relative_to(source).as_posix()
        wanted = (turns, _first(TRACK, columns))
        listed += [Part(f"{key}#{group}", (path,), (group, *wanted)) for group in range(file.num_row_groups)]
    return listed


def read(part: Part, choices: Choices) -> Reading:
    """The dialogues of one row group."""
    reading, (path,), (group, turns, track) = Reading(), part.files, part.content
    with reading.rejecting(path):
        try:
            columns = [name for name in (turns, track) if name is not None]
            rows = pyarrow.parquet.ParquetFile(path).read_row_group(group, columns=columns).to_pylist()
        except pyarrow.ArrowException as error:
            raise DataError("unreadable", f"cannot be read ({error}); fetch it again") from None
        for number, row in enumerate(rows):
            with reading.rejecting(f"{path}: row {number} of row group {group}"):
                name = f"{path.stem}/{group}/{number}"
                reading.dialogues.append(_dialogue(name, row[turns], row[track] if track is not None else None))
    return reading


def _dialogue(name: str, turns: Any, track: Any) -> Dialogue:
    turns = json.loads(turns) if isinstance(turns, str) else turns
    spoken = [_spoken(turn, number) for number, turn in enumerate(turns)]
    scene = {"scenario": "music"} | ({"script": str(track)} if track is not None else {})
    roles = give_roles([said(words.strip()) for _, words in spoken], [role for role, _ in spoken], "assistant")
    return checked(name, roles, NAME, scene)


def _spoken(turn: Any, number: int) -> tuple[str, str]:
    """(role, words) of a turn."""
    if isinstance(turn, str):
        return ("user", "assistant")[number % 2], turn
    who, words = _first(WHO, turn), _first(WORDS, turn)
    if who is None or words is None:
        message = f"has no {'role' if who is None else 'words'}; its keys are {', '.join(turn)}"
        raise DataError("bad_layout", message, f"turn {number}")
    role = next((role for role, names in _ROLES.items() if str(turn[who]).strip().lower() in names), None)
    if role is None:
        raise DataError(
            "unknown_role", f"role {turn[who]!r} is neither the user's nor the assistant's", f"turn {number}"
        )
    return role, turn[words]


def _first(names: tuple[str, ...], found: Mapping[str, Any] | list[str]) -> str | None:
    return next((name for name in names if name in found), None)


CORPUS = Corpus(
    name=NAME,
    licence="none stated on the hub (repository: MIT)",
    source="seungheondoh/lp-music-dialog on the Hugging Face hub",
    parts=parts,
    read=read,
)

"""CPED: Chinese television dialogues with emotions (scutcyr/CPED@1e4b81c, README.md and data/CPED).

{train,valid,test}_split.csv, one utterance a row: Dialogue_ID, Utterance_ID, Speaker, Gender, Age, Scene, Sentiment,
Emotion (13), DA (dialogue act), Utterance and others. The recordings are not published with the lists: turns have words
only. Dialogues of more than two speakers are rejected. The corpus's own split is kept; its series are the same in all
three.
"""

from collections.abc import Mapping
from pathlib import Path

from omnichat.data.corpora.lists import grouped, read_csv
from omnichat.data.corpora.reading import Choices, Corpus, Part, Reading, assign_roles, checked, said
from omnichat.dialogue import DataError, Dialogue, Style, Turn

NAME = "cped"
_LISTS = {"train_split.csv": "train", "valid_split.csv": "val", "test_split.csv": "test"}
_COLUMNS = ("TV_ID", "Dialogue_ID", "Speaker", "Gender", "Age", "Scene", "Sentiment", "Emotion", "DA", "Utterance")


def parts(source: Path) -> list[Part]:
    """One for each of the three lists that is there.

    Raises:
        DataError: `no_file` where none is.
    """
    found = sorted(path for name in _LISTS for path in source.rglob(name))
    if not found:
        raise DataError("no_file", f"holds none of {', '.join(_LISTS)} (data/CPED of the repository)", str(source))
    return [Part(path.relative_to(source).as_posix(), (path,), _LISTS[path.name]) for path in found]


def read(part: Part, choices: Choices) -> Reading:
    """The dialogues of one list."""
    reading, (path,) = Reading(), part.files
    with reading.rejecting(path):
        for name, rows in grouped(read_csv(path, _COLUMNS), "Dialogue_ID").items():
            with reading.rejecting(f"{path}: dialogue {name!r}"):
                reading.dialogues.append(_dialogue(f"{part.content}/{name}", rows, part.content, choices))
    return reading


def _dialogue(name: str, rows: list[Mapping[str, str]], split: str, choices: Choices) -> Dialogue:
    turns = assign_roles([_turn(row, choices) for row in rows], [row["Speaker"] for row in rows], choices.roles)
    scene = {"scenario": "emotion", "split": split, "series": rows[0]["TV_ID"], "place": rows[0]["Scene"]}
    return checked(name, turns, NAME, scene)


def _turn(row: Mapping[str, str], choices: Choices) -> Turn:
    gender = row["Gender"] if row["Gender"] != "unknown" else None
    meta = {"emotion": row["Emotion"], "sentiment": row["Sentiment"], "act": row["DA"], "speaker": row["Speaker"]}
    style = Style(gender, choices.emotion(row["Emotion"]))
    return said(row["Utterance"].strip(), style=style, meta=meta | {"age": row["Age"]})


CORPUS = Corpus(
    name=NAME,
    licence="Apache-2.0 (lists)",
    source="scutcyr/CPED",
    parts=parts,
    read=read,
    labels=NAME,
)

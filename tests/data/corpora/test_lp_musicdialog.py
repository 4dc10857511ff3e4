"""The reader of LP-MusicDialog, whose columns are not documented: those it takes, and those it asks about."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from omnichat.data.corpora.lp_musicdialog import CORPUS
from omnichat.dialogue import DataError
from tests.corpora import read, reasons, roles

SAID = [("user", "Something slow?"), ("assistant", "Try this."), ("user", "Nice!"), ("assistant", "Enjoy.")]


def parquet(folder: Path, **columns: list[Any]) -> Path:
    """A file of these columns, two rows a group."""
    folder.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "train-00000-of-00002.parquet", row_group_size=2)
    return folder


@pytest.mark.parametrize(
    ("column", "turns"),
    [
        ("dialogue", [{"role": role, "content": words} for role, words in SAID]),
        ("conversations", [{"from": {"user": "human"}.get(role, "gpt"), "value": words} for role, words in SAID]),
        ("messages", json.dumps([{"speaker": role.upper(), "text": words} for role, words in SAID])),
        ("chat", [words for _, words in SAID]),
    ],
)
def test_usual_forms_of_a_dialogue_are_read(column: str, turns: Any, tmp_path: Path) -> None:
    """All four forms hold the same dialogue, in three rows of two tracks."""
    reading = read(CORPUS, parquet(tmp_path, **{column: [turns] * 3, "track_id": ["TR1", "TR1", "TR2"]}))
    assert reasons(reading) == {}
    assert len({dialogue.id for dialogue in reading.dialogues}) == 3
    assert [CORPUS.group(dialogue) for dialogue in reading.dialogues] == ["TR1", "TR1", "TR2"]
    for dialogue in reading.dialogues:
        assert roles(dialogue) == "uaua"
        assert [turn.text for turn in dialogue.turns] == [words for _, words in SAID]
        assert all(turn.meta == {"audio": "none"} for turn in dialogue.turns)


def test_unknown_columns_are_listed(tmp_path: Path) -> None:
    """A guess would make dialogues of whatever stands in the first column."""
    parquet(tmp_path, track=["a"], lp_text=["b"])
    with pytest.raises(DataError, match=r"its columns are track, lp_text \[missing_column\]"):
        read(CORPUS, tmp_path)
    (tmp_path / "train-00000-of-00002.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"\[unreadable\]"):
        read(CORPUS, tmp_path)
    with pytest.raises(DataError, match=r"\[no_file\]"):
        read(CORPUS, tmp_path / "nothing")


def test_what_cannot_be_used_is_rejected_by_name(tmp_path: Path) -> None:
    """A turn of a third kind (the track that is played, say) is neither side's words."""
    music = json.dumps([{"role": "user", "content": "x"}, {"role": "music", "content": "TR1"}])
    mute = json.dumps([{"role": "user"}, {"role": "assistant", "content": "x"}])
    good = json.dumps([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}])
    reading = read(CORPUS, parquet(tmp_path, dialog=[music, mute, "{", None, "[]", good]))
    assert len(reading.dialogues) == 1
    expected = ["unknown_role", "bad_layout", "bad_layout", "bad_layout", "no_assistant_turn"]
    assert [error.reason for error in reading.rejects] == expected
    assert "row 0 of row group 0: turn 1" in reading.rejects[0].where

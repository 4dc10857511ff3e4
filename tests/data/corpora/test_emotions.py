"""The tables that map other corpora's emotions."""

import json
from collections import Counter
from importlib.resources import files

import pytest

from omnichat.data.corpora.emotions import emotion_map
from omnichat.dialogue import EMOTIONS, DataError


def test_tables_lead_to_the_seven_emotions() -> None:
    """A typing error in the table would be a wrong target for a whole corpus."""
    tables = json.loads(files("omnichat.data.corpora").joinpath("emotions.json").read_text())
    for corpus, table in tables.items():
        assert set(table["map"].values()) <= {*EMOTIONS, None}
        assert set(table["lossy"]) <= set(table["map"])
        assert emotion_map(corpus).labels == table["map"]


def test_a_label_is_looked_up_whatever_its_case_and_never_guessed() -> None:
    """A new label needs a decision: taking it for neutral would hide it in the commonest class."""
    labels = emotion_map("deepdialogue")
    assert (labels["Happy"], labels[" anxious"]) == ("happy", "fearful")
    with pytest.raises(DataError, match=r"'nostalgia' is not one of .*did you mean 'nostalgic'\?"):
        labels["nostalgia"]


def test_the_table_says_what_was_lost() -> None:
    """By hand: one label in four was merged into another, one is unknown."""
    lines = emotion_map("deepdialogue").table(Counter({"happy": 2, "curious": 1, "melancholy": 1}))
    assert lines[0].split() == ["happy", "2", "50.0%", "->", "happy"]
    assert lines[1].split() == ["curious", "1", "25.0%", "->", "neutral", "(lossy)"]
    assert lines[2].split(maxsplit=4)[3:] == ["->", "not in the table: rejected"]
    assert lines[-1].split() == ["lossy", "1", "25.0%"]

"""The table that every reader prints."""

from collections import Counter

import pytest

from omnichat.data.corpora.emotions import emotion_map
from omnichat.data.corpora.reading import PaperRow
from omnichat.data.corpora.summary import SHOWN, Summary, majority_f1, table
from omnichat.dialogue import AudioRef, DataError, Dialogue, Style, Turn


def dialogue() -> Dialogue:
    """Half an hour of one voice, a label without target, and an answer."""
    return Dialogue(
        "d",
        (
            Turn("user", "x", Style(emotion="fearful"), AudioRef("a.wav", 1800 * 16_000), {"emotion": "anxious"}),
            Turn("user", "x", Style(), None, {"emotion": "oth"}),
            Turn("assistant", "x", Style(emotion="happy"), None, {"emotion": "happy"}),
        ),
    )


def test_counts_add_up_and_survive_json() -> None:
    """Each process counts its part: sums and records must lose nothing."""
    one = Summary()
    one.add(dialogue())
    both = one + Summary.from_record(one.to_record())
    assert (both.dialogues, both.turns, both.heard, both.hours) == (2, 6, 2, 1.0)
    assert both.labels == Counter(anxious=2, oth=2, happy=2)
    assert both.emotions == Counter(fearful=2, happy=2, **{"no target": 2})
    assert both.answers == Counter(happy=2)


def test_the_table_says_it_all() -> None:
    """Sizes beside the paper's, emotions before and after with what was lost, rejects by reason, the majority's F1."""
    one = Summary()
    one.add(dialogue())
    labels = emotion_map("deepdialogue").choosing({"oth": None, "bored": "neutral"})
    rejects = [DataError("no_file", f"{number}") for number in range(SHOWN + 1)] + [DataError("empty_text", "x")]
    lines = table({"train": one, "val": one}, rejects, labels, PaperRow(10, 65, None)).splitlines()
    rows = [line.split() for line in lines]
    assert rows[1] == ["train", "1", "3", "3.00", "1", "0.50"]
    assert rows[3] == ["all", "2", "6", "3.00", "2", "1.00"]
    assert rows[4][:6] == ["paper", "10", "65", "6.50", "-", "-"]
    assert "         anxious        2  33.3% -> fearful  (lossy)" in lines
    assert "             oth        2  33.3% -> no target  (chosen)" in lines
    assert "           bored        0        (chosen, but never met)" in lines
    assert "           lossy        2  33.3%" in lines
    assert "emotions after: happy 2 (33.3%), fearful 2 (33.3%), no target 2 (33.3%)" in lines
    assert "majority-class weighted F1 of the answers: 100.0 (n=2)" in lines
    assert ["no_file", "21"] in rows
    assert lines[-1] == "  and 2 more: see rejects.jsonl"


def test_a_corpus_without_emotions_says_so() -> None:
    """Unknown must not look like neutral."""
    one = Summary()
    one.add(Dialogue("d", (Turn("user", "x"), Turn("assistant", "y"))))
    assert "none are known; such style targets are masked, not neutral" in table({"train": one}, [], None, None)


def test_the_majority_baseline_is_that_of_always_the_commonest() -> None:
    """By hand: three of four happy gives precision 3/4, recall 1, F1 6/7, weighted by 3/4."""
    assert majority_f1(Counter(happy=3, sad=1)) == pytest.approx(9 / 14)
    assert majority_f1(Counter()) == 0

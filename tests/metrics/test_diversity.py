"""Variety and length of replies."""

import pytest

from omnichat.metrics.diversity import distinct, length_ratio
from omnichat.metrics.statistic import Missing, Whole


def test_distinct_by_hand() -> None:
    """Six words of four kinds; four pairs of words of three kinds, none across two replies."""
    replies = ["oh no oh", "Oh no dear"]
    found = {n: distinct(replies, n) for n in (1, 2)}
    assert isinstance(found[1], Whole)
    assert isinstance(found[2], Whole)
    assert found[1].value == pytest.approx(3 / 6)
    assert found[2].value == pytest.approx(3 / 4)


def test_one_reply_to_all_is_seen() -> None:
    """The fault that BLEU and F1 on a set of one kind cannot show."""
    same = distinct(["i am sorry"] * 50, 1)
    assert isinstance(same, Whole)
    assert same.value == pytest.approx(3 / 150)


def test_nothing_written_is_no_variety() -> None:
    """Zero by zero is no number."""
    assert isinstance(distinct(["", "yes"], 2), Missing)


def test_length_ratio_by_hand() -> None:
    """Over all words, not a mean of ratios, which one short reference would rule."""
    assert length_ratio(["one", "one two three"], ["one two", "one two"]).value == pytest.approx(4 / 4)
    assert length_ratio(["a b"] * 3, ["a"] * 3).value == pytest.approx(0.5)

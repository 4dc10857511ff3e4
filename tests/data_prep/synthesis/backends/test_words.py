"""Word errors between what was to be said and what was heard."""

from pathlib import Path

import pytest

from data_prep.synthesis.backends.words import normalised, word_errors

SAME = Path(__file__).with_name("same_words.txt")
PAIRS = [line.split(" | ") for line in SAME.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]


def test_the_list_is_long_enough() -> None:
    """A rule that is dropped must be missed by some pair."""
    assert len(PAIRS) >= 60
    assert all(len(pair) == 2 for pair in PAIRS)


@pytest.mark.parametrize(("said", "heard"), PAIRS, ids=lambda text: text)
def test_right_sentences_have_no_errors(said: str, heard: str) -> None:
    """On a turn of ten words a single false error is more than 5 %: right recordings would be made again in vain."""
    words, errors = word_errors(said, heard)
    assert errors == 0, (normalised(said), normalised(heard))
    assert words or said.startswith("Hmm...")


@pytest.mark.parametrize(
    ("said", "heard", "expected"),
    [
        ("I have a cat.", "I have a hat.", (4, 1)),
        ("I have a cat.", "I have cat.", (4, 1)),
        ("I have a cat.", "I have got a cat.", (4, 1)),
        ("I have a cat.", "", (4, 4)),
        ("I have a cat.", "Speak sadly and slowly. I have a cat.", (4, 4)),
        ("I did not say that.", "I did say that.", (5, 1)),
        ("Our house is red.", "Hour house is red.", (4, 1)),
        ("It costs 20 dollars.", "It costs 30 dollars.", (3, 1)),
        ("Nobody was there, however.", "No body was their, how ever.", (4, 1)),
        ("We meet at 10:30.", "We meet at 10:45.", (5, 1)),
        ("Hmm...", "Go away.", (0, 0)),
    ],
)
def test_wrong_words_are_counted(said: str, heard: str, expected: tuple[int, int]) -> None:
    """Rules that forgive must not forgive what is wrong."""
    assert word_errors(said, heard) == expected

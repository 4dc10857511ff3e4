"""Scripts that say nearly the same."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from data_prep.synthesis.contracts import Branch, Brief, Line, Script
from data_prep.synthesis.writing.briefs import briefs
from data_prep.synthesis.writing.deduplicate import THRESHOLD, duplicates, shingles
from data_prep.synthesis.writing.settings import SUBSETS, WritingSettings
from omnichat.dialogue import Style

STYLE = Style("female", "neutral", "normal", "normal")
WORDS = [f"word{number}" for number in range(400)]


def script(words: list[str]) -> Script:
    brief = Brief(recipe="test", number=0, split="train", topic="", history_turns=0)
    reply = Line(speaker="assistant", text="yes.", style=STYLE)
    return Script(brief=brief, history=(), current=" ".join(words), branches=(Branch(style=STYLE, reply=reply),))


def corpus(seed: int, size: int = 60) -> dict[int, Script]:
    """Scripts in families: members differ from the first by a few words, some by none, some by many."""
    rng = np.random.default_rng(seed)
    made: list[Script] = []
    while len(made) < size:
        base = list(rng.choice(WORDS, 60))
        for _ in range(rng.integers(1, 6)):
            words = list(base)
            for place in rng.integers(0, 60, size=rng.integers(0, 8)):
                words[place] = str(rng.choice(WORDS))
            made.append(script(words))
    numbers = rng.permutation(10 * size)[:size]
    return dict(zip(map(int, numbers), made, strict=False))


@pytest.mark.parametrize("seed", range(20))
def test_merged_shards_drop_what_one_run_drops(seed: int) -> None:
    """Work that was split over machines must end in the same corpus, or its size decides what is in it."""
    scripts = corpus(seed)
    whole = duplicates(scripts)
    shards: list[dict[int, Script]] = [{}, {}, {}, {}]
    for number, own in scripts.items():
        shards[np.random.default_rng([seed, number]).integers(4)][number] = own
    merged: dict[int, int] = {}
    for one, other in combinations(shards, 2):
        for number, like in duplicates(one | other).items():
            merged[number] = min(like, merged.get(number, like))
    assert merged == whole
    assert whole, "a corpus with nothing to drop shows nothing"
    # A further script never brings a dropped one back, nor drops one with a lower number.
    lower = {number: own for number, own in scripts.items() if number < 300}
    assert duplicates(lower) == {number: like for number, like in whole.items() if number < 300}


@pytest.mark.parametrize("seed", range(10))
def test_what_is_found_is_what_counting_all_pairs_finds(seed: int) -> None:
    """The signatures only save comparisons: a pair they miss in 500 is their price, a pair they make up a bug."""
    scripts = corpus(seed)
    triples = {number: shingles(own) for number, own in scripts.items()}
    alike = {}
    for low, high in combinations(sorted(scripts), 2):
        share = len(triples[low] & triples[high]) / len(triples[low] | triples[high])
        if share >= THRESHOLD:
            alike.setdefault(high, low)
    found = duplicates(scripts)
    assert found.keys() <= alike.keys()
    assert len(found) >= 0.95 * len(alike)


def test_equal_scripts_always_meet_and_the_lowest_stays() -> None:
    """The commonest duplicate of all; order of arrival must not decide which one is kept."""
    same = script(["we", "are", "going", "to", "the", "market"])
    assert duplicates({9: same, 4: same, 7: script(["another", "thing", "is", "here"])}) == {9: 4}
    assert duplicates({1: script(["yes"]), 2: script(["yes"])}) == {2: 1}
    assert duplicates({}) == {}


def test_no_dialogue_is_in_two_splits() -> None:
    """One branch of three in training and in the test is a leak, though the scripts are different as a whole."""

    def branched(split: str, *replies: str) -> Script:
        one = script(["are", "you", "coming", "along", "today"])
        branches = tuple(
            Branch(style=STYLE, reply=Line(speaker="assistant", text=text, style=STYLE)) for text in replies
        )
        return one.model_copy(update={"brief": one.brief.model_copy(update={"split": split}), "branches": branches})

    train = branched("train", "yes.", "i would rather stay at home and read a book.", "what a lovely thing to ask me.")
    test = branched(
        "test", "yes.", "no, my train leaves in half an hour from now.", "that depends on the weather there."
    )
    again = test.model_copy(update={"brief": train.brief})
    assert duplicates({1: train, 2: again}) == {}
    assert duplicates({1: train, 2: test}) == {2: 1}
    assert duplicates({3: train, 2: test}) == {3: 2}
    assert duplicates({1: train, 2: test, 3: branched("train", "never.", "yes.", "so it is said, my friend.")}) == {
        2: 1,
        3: 2,
    }
    assert duplicates({1: test.model_copy(update={"branches": (train.branches[1],)}), 2: train}) == {2: 1}


@pytest.mark.parametrize("recipe", SUBSETS)
def test_template_scripts_are_clearly_different(write: Callable[..., Any], recipe: str) -> None:
    """The shipped grammar must not lose its own scripts: each subset has hundreds of clearly different ones."""
    settings = WritingSettings.model_validate({"recipe": recipe})
    scripts = write(settings, briefs(settings, 600, 0, {"train": 1.0}))
    assert len(duplicates(dict(enumerate(scripts)))) <= 6

"""The counterfactual score: a model that ignores the sound cannot win, a model that hears can."""

import random

import pytest

from omnichat.metrics.counterfactual import counterfactual

EMOTIONS = ["happy", "sad", "angry", "neutral", "surprised"]
WORDS = "that is good bad news so sorry to hear it again today please stay calm wonderful oh no my dear friend".split()


def corpus(seed: int) -> tuple[list[str], list[tuple[str | None, str]]]:
    """Groups of 2 to 5 branches; some branches share their emotion or their words, some dialogues their reference."""
    draw = random.Random(seed)
    groups: list[str] = []
    references: list[tuple[str | None, str]] = []
    for group in range(20):
        found: list[tuple[str | None, str]] = []
        for _ in range(draw.randint(2, 5)):
            text = found[0][1] if found and draw.random() < 0.2 else " ".join(draw.sample(WORDS, draw.randint(1, 6)))
            found.append((draw.choice(EMOTIONS) if draw.random() < 0.95 else None, text))
        found += found[:1] if draw.random() < 0.3 else []
        groups += [str(group)] * len(found)
        references += found
    return groups, references


@pytest.mark.parametrize("seed", range(10))
def test_a_model_that_ignores_the_sound_gets_no_group(seed: int) -> None:
    """Whatever it says to a group, its best guess included: groups exactly 0, branches at most 1/k."""
    groups, references = corpus(seed)
    draw = random.Random(seed)
    said = {}
    for group in set(groups):
        own = [content for content, name in zip(references, groups, strict=True) if name == group]
        said[group] = draw.choice([*own, (draw.choice(EMOTIONS), " ".join(draw.sample(WORDS, 4))), (None, "")])
    found = counterfactual(groups, references, [said[group] for group in groups])
    assert found is not None
    assert found.groups.value == 0
    assert found.branches.value <= found.deaf_branches
    assert 0 < found.deaf_branches <= 0.5


@pytest.mark.parametrize("seed", range(3))
def test_the_references_themselves_are_right(seed: int) -> None:
    """A perfect model gets all groups."""
    groups, references = corpus(seed)
    found = counterfactual(groups, references, references)
    assert found is not None
    assert found.groups.value == found.branches.value == 1
    assert found.groups.n < found.branches.n


def test_by_hand() -> None:
    """One whole group; one with a right branch, one of the wrong emotion; one with the siblings' words swapped."""
    sad, happy = ("sad", "i am so sorry"), ("happy", "that is wonderful news")
    references = [sad, happy] * 3
    replies = [
        ("sad", "so sorry"),
        ("happy", "wonderful"),
        sad,
        ("sad", happy[1]),
        ("sad", happy[1]),
        ("happy", sad[1]),
    ]
    found = counterfactual(["a", "a", "b", "b", "c", "c"], references, replies)
    assert found is not None
    assert found.groups.value == pytest.approx(1 / 3)
    assert found.branches.value == pytest.approx(3 / 6)
    assert found.deaf_branches == 0.5
    assert found.groups.n == 3


def test_a_branch_is_right_where_all_its_dialogues_are() -> None:
    """One dialogue of two with the same reference is luck: the branch is wrong, and with it the group."""
    sad, happy = ("sad", "i am so sorry"), ("happy", "that is wonderful news")
    found = counterfactual(["g"] * 3, [sad, ("sad", f"{sad[1]} "), happy], [sad, ("happy", sad[1]), happy])
    assert found is not None
    assert (found.branches.value, found.branches.n) == (0.5, 2)
    assert found.groups.value == 0


def test_a_group_of_one_is_passed_over() -> None:
    """Fails when a script that was spoken in one way only counts, or ends the counting."""
    sad, happy = ("sad", "i am so sorry"), ("happy", "that is wonderful news")
    contents = [sad, sad, sad, happy, happy, sad]
    found = counterfactual(["alone", "alone", "g", "g", None, "h"], contents, contents)
    assert found is not None
    assert (found.groups.n, found.branches.n, found.deaf_branches) == (1, 2, 0.5)
    assert counterfactual(["alone", "alone", None], [sad, sad, happy], [sad, sad, happy]) is None


def test_a_tie_is_wrong() -> None:
    """Words as near to the sibling as to its own reference show nothing, though the emotion is right."""
    references = [("sad", "oh no"), ("happy", "oh my")]
    found = counterfactual(["g", "g"], references, [("sad", ""), ("happy", "oh")])
    assert found is not None
    assert found.branches.value == 0


def test_siblings_of_the_same_words_differ_by_emotion() -> None:
    """DailyTalk spoken again: the answer's words stay, its emotion does not."""
    references = [("sad", "oh no"), ("surprised", "oh no")]
    found = counterfactual(["g", "g"], references, references)
    assert found is not None
    assert found.groups.value == 1


def test_what_is_no_group_does_not_count() -> None:
    """Dialogues alone, and copies of one branch: there is nothing to tell apart."""
    assert counterfactual(["a", "b", None], [("sad", "x")] * 3, [("sad", "x")] * 3) is None
    assert counterfactual(["a", "a"], [("sad", "x")] * 2, [("sad", "x")] * 2) is None


def test_replies_of_which_no_words_count_are_scored() -> None:
    """A model that is not trained yet gets no emotion right: the words are never compared, and it is still 0."""
    references = [("sad", "oh no"), ("happy", "well done")]
    found = counterfactual(["g", "g"], references, [(None, "oh no"), ("angry", "well done")])
    assert found is not None
    assert found.groups.value == found.branches.value == 0
    assert "chrF" in found.groups.signature

"""Emotion F1, confusion matrices and style accuracies, by hand and against scikit-learn."""

import numpy as np
import pytest

from omnichat.dialogue import EMOTIONS, Style
from omnichat.metrics.emotion import (
    UNREADABLE,
    confusion,
    emotion_f1,
    macro_f1,
    majority,
    style_accuracies,
    weighted_f1,
)
from omnichat.metrics.statistic import resample


def test_f1_by_hand() -> None:
    """happy: 1 of 2 found, 1 answered: 2/3. sad: 1 of 1 found, 2 answered: 2/3. neutral: never answered: 0."""
    gold = ["happy", "happy", "sad", "neutral"]
    found = ["happy", None, "sad", "sad"]
    assert weighted_f1(gold, found) == pytest.approx((2 * 2 / 3 + 2 / 3 + 0) / 4)
    assert macro_f1(gold, found) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


def test_unreadable_is_wrong_and_never_neutral() -> None:
    """Taking broken replies for neutral would give a model that says nothing the score of a constant guess."""
    assert weighted_f1(["neutral"] * 4, [None] * 4) == 0
    assert weighted_f1(["neutral", "happy"], [None, "happy"]) == 0.5
    matrix = confusion(["neutral", "happy"], [None, None])
    assert matrix.columns == ("neutral", "happy", UNREADABLE)
    assert matrix.counts.tolist() == [[0, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize("seed", range(12))
def test_f1_equals_scikit_learn(seed: int) -> None:
    """Over random labels, some unreadable, some outside the references' classes."""
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn, the reference, is not installed")
    generator = np.random.default_rng(seed)
    classes = list(EMOTIONS[: 2 + seed % 6])
    gold = generator.choice(classes, size=60).tolist()
    answers = [*EMOTIONS, None] if seed % 2 else [*classes, None]
    found = [answers[number] for number in generator.integers(len(answers), size=60)]
    written = [answer or UNREADABLE for answer in found]
    for average, ours in (("weighted", weighted_f1), ("macro", macro_f1)):
        theirs = metrics.f1_score(gold, written, labels=sorted(set(gold)), average=average, zero_division=0)
        assert ours(gold, found) == pytest.approx(theirs, abs=1e-12)
    matrix = confusion(gold, found)
    labels = list(matrix.columns)
    theirs = metrics.confusion_matrix(gold, written, labels=labels)
    assert np.array_equal(matrix.counts, theirs[: len(matrix.labels)])


def test_references_without_emotion_do_not_count() -> None:
    """A corpus that labels some turns only is scored on those."""
    metric = emotion_f1([None, "sad", None], ["happy", "sad", None], "weighted")
    assert metric.n == 1
    assert metric.value == 1


def test_a_reference_without_emotion_is_no_class() -> None:
    """It would stand in the confusion matrix as a row of its own."""
    matrix = confusion([None, "sad"], ["happy", "sad"])
    assert (matrix.labels, matrix.columns) == (("sad",), ("sad", "happy", UNREADABLE))
    assert matrix.counts.tolist() == [[1, 0, 0]]


def test_f1_without_any_reference_is_refused() -> None:
    """There is no such number."""
    with pytest.raises(ValueError, match="at least one reference"):
        weighted_f1([], [])


def test_lists_of_different_lengths_are_refused() -> None:
    """Silently scoring the shorter part would shift every pair."""
    with pytest.raises(ValueError, match="2 references for 1 replies"):
        weighted_f1(["sad", "sad"], ["sad"])


def test_f1_of_a_resample_is_the_f1_of_its_replies() -> None:
    """The bootstrap works on sums; it must equal scoring the drawn replies themselves."""
    gold, found = ["happy", "sad", "sad", "neutral", "happy"], ["happy", "sad", "happy", None, "sad"]
    metric = emotion_f1(gold, found, "macro")
    for drawn in resample(list("abcde"), 20, 1).astype(int):
        again = [number for number, times in enumerate(drawn) for _ in range(times)]
        direct = macro_f1([gold[n] for n in again], [found[n] for n in again])
        assert metric.combine(drawn @ metric.rows) == pytest.approx(direct)


def test_majority_takes_the_paper_s_order_in_a_tie() -> None:
    """The baseline must not depend on the order of the replies."""
    assert majority(["sad", "happy", "sad", "happy", None]) == "happy"
    assert majority(["sad", "happy", "sad"]) == "sad"
    assert majority(["sad", None, None]) == "sad"


def test_style_accuracy_counts_known_fields_only() -> None:
    """An unknown field of the reference is no target; an unreadable style is wrong in every known one."""
    gold = [Style("male", "sad", "slow", "low"), Style(emotion="happy"), Style(emotion="angry")]
    found = [Style("male", "sad", "fast", "low"), Style("female", "happy", "fast", "high"), None]
    scores = {name: (metric.value, metric.n) for name, metric in style_accuracies(gold, found).items()}
    assert scores == {
        "gender": (1, 1),
        "emotion": (pytest.approx(2 / 3), 3),
        "speed": (0, 1),
        "pitch": (1, 1),
        "all": (pytest.approx(1 / 3), 3),
    }


def test_style_accuracy_without_known_fields_is_absent() -> None:
    """Nothing to compare: no number."""
    assert style_accuracies([Style()], [Style("male")]) == {}

"""Differences between two models on the same dialogues: their intervals, and when chance explains them."""

import numpy as np
import pytest

from omnichat.metrics.emotion import emotion_f1
from omnichat.metrics.paired import compare
from omnichat.metrics.statistic import mean, resample
from omnichat.metrics.text import bleu


def names(count: int) -> list[str]:
    """Every reply a unit of its own."""
    return [str(number) for number in range(count)]


def test_exact_permutations_by_hand() -> None:
    """Six pairs, all won by the first by the same: 2 of the 64 swaps are as far from 0, so p is 2/64 = 0.031."""
    a, b = mean([1.0] * 6, "m"), mean([0.0] * 6, "m")
    found = compare(a, b, names(6), 20_000, 0)
    assert found.value == 1
    assert found.ci95 == (1, 1)
    assert found.p_value == pytest.approx(2 / 64, abs=0.005)


def test_equal_models_are_seldom_told_apart() -> None:
    """Of 200 pairs of equal models about one in twenty has p below 0.05; and the interval holds 0 in the others."""
    generator = np.random.default_rng(0)
    below, outside = 0, 0
    for seed in range(200):
        hits = generator.random((2, 40)) < 0.5
        found = compare(mean(hits[0].tolist(), "m"), mean(hits[1].tolist(), "m"), names(40), 300, seed)
        assert found.p_value is not None
        assert found.ci95 is not None
        below += found.p_value < 0.05
        outside += not found.ci95[0] <= 0 <= found.ci95[1]
    assert 1 <= below <= 20
    assert 1 <= outside <= 24


def test_pairing_sees_what_two_intervals_do_not() -> None:
    """Dialogues differ far more than models: the intervals of the two overlap, that of the difference is clear of 0."""
    generator = np.random.default_rng(1)
    hardness = generator.normal(0.5, 0.2, 100)
    a, b = mean((hardness + 0.03).tolist(), "m"), mean((hardness + generator.normal(0, 0.02, 100)).tolist(), "m")
    weights = resample(names(100), 500, 0)
    left, right = a.interval(weights), b.interval(weights)
    assert left is not None
    assert right is not None
    assert left[0] < right[1]
    found = compare(a, b, names(100), 1000, 0)
    assert found.ci95 is not None
    assert found.ci95[0] > 0
    assert found.p_value is not None
    assert found.p_value < 0.01


def test_the_interval_has_the_width_that_theory_gives() -> None:
    """For the mean of n independent differences about 2 x 1.96 x standard deviation / sqrt(n)."""
    values = np.random.default_rng(2).normal(0.5, 0.2, size=(2, 400))
    found = compare(mean(values[0].tolist(), "m"), mean(values[1].tolist(), "m"), names(400), 4_000, 0)
    assert found.ci95 is not None
    expected = 2 * 1.96 * (values[0] - values[1]).std() / 400**0.5
    assert found.ci95[1] - found.ci95[0] == pytest.approx(expected, rel=0.05)
    assert found.ci95[0] < found.value < found.ci95[1]


def test_units_are_kept_together() -> None:
    """Seven copies of one dialogue are one observation: they must not make a difference significant."""
    values = ([1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0])
    once = compare(mean(values[0], "m"), mean(values[1], "m"), list("abcd"), 2000, 0)
    copied = compare(mean(values[0] * 7, "m"), mean(values[1] * 7, "m"), list("abcd") * 7, 2000, 0)
    assert once == copied
    assert once.units == 4


def test_metrics_of_sums_can_be_compared() -> None:
    """F1 of two models of which one answers emotions that the references lack; BLEU."""
    gold = ["sad", "happy"] * 10
    good, odd = list(gold), ["fearful", None, "sad", "happy"] * 5
    found = compare(emotion_f1(gold, good, "weighted"), emotion_f1(gold, odd, "weighted"), names(20), 200, 0)
    assert found.value == pytest.approx(1 - emotion_f1(gold, odd, "weighted").value)
    assert found.p_value is not None
    assert found.p_value < 0.05
    references = [f"the {word} is over there now" for word in ("dog", "cat", "rain", "sun", "bell")]
    same = compare(bleu(references, references), bleu(references, references), names(5), 50, 0)
    assert (same.value, same.ci95, same.p_value) == (0, (0, 0), 1)


def test_different_metrics_are_refused() -> None:
    """A difference of two scorings, or of other replies, is none of two models."""
    with pytest.raises(ValueError, match="not the same metric"):
        compare(mean([1.0], "m"), mean([1.0], "n"), ["a"], 10, 0)
    with pytest.raises(ValueError, match="not the same metric"):
        compare(mean([1.0, None], "m"), mean([None, 1.0], "m"), ["a", "b"], 10, 0)


def test_one_unit_has_no_test() -> None:
    """One script says nothing of others."""
    found = compare(mean([1.0, 1.0], "m"), mean([0.0, 0.0], "m"), ["a", "a"], 100, 0)
    assert (found.value, found.ci95, found.p_value) == (1, None, None)

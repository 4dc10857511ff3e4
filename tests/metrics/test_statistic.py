"""Values and bootstrap intervals of metrics that are sums over replies."""

import math

import numpy as np

from omnichat.metrics.statistic import mean, resample


def test_mean_leaves_out_what_has_no_value() -> None:
    """A reply with nothing to be compared with must neither help nor hurt."""
    metric = mean([1.0, None, 0.0, None], "m")
    assert metric.value == 0.5
    assert metric.n == 2


def test_mean_of_nothing_is_undefined() -> None:
    """Zero would read as a score."""
    assert math.isnan(mean([None, None], "m").value)


def test_take_scores_the_chosen_replies_only() -> None:
    """Scores by scenario are the same metric over a part."""
    metric = mean([1.0, 0.0, 1.0, None], "m").take(np.array([True, False, True, True]))
    assert metric.value == 1.0
    assert metric.n == 2


def test_resample_draws_whole_groups_as_many_as_there_are() -> None:
    """Dialogues of one script share words and voice; drawn one by one they would give too narrow an interval."""
    drawn = resample(["a", "b", "a", "c"], 200, seed=0)
    assert drawn.shape == (200, 4)
    assert (drawn[:, 0] == drawn[:, 2]).all()
    assert (drawn[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert drawn.std() > 0


def test_resample_depends_on_the_seed_alone() -> None:
    """Scores of the same replies must come out the same, every time."""
    groups = [str(number) for number in range(30)]
    assert np.array_equal(resample(groups, 50, 7), resample(groups, 50, 7))
    assert not np.array_equal(resample(groups, 50, 7), resample(groups, 50, 8))


def test_interval_has_the_width_that_theory_gives() -> None:
    """For a mean of n independent values it is about 2 x 1.96 x standard deviation / sqrt(n)."""
    values = np.random.default_rng(0).normal(0.5, 0.2, size=400)
    metric = mean(values.tolist(), "m")
    interval = metric.interval(resample([str(n) for n in range(400)], 2000, 0))
    assert interval is not None
    expected = 2 * 1.96 * values.std() / math.sqrt(400)
    assert abs(interval[1] - interval[0] - expected) < 0.1 * expected
    assert interval[0] < metric.value < interval[1]


def test_copies_of_a_dialogue_do_not_narrow_its_interval() -> None:
    """Seven branches of one script that all succeed or all fail are one observation, not seven."""
    values, names = [0.0, 1.0, 1.0, 0.0, 1.0], ["a", "b", "c", "d", "e"]
    once = mean(values, "m").interval(resample(names, 1000, 3))
    copied = mean(values * 7, "m").interval(resample(names * 7, 1000, 3))
    assert once == copied


def test_no_interval_without_resamples_or_with_one_reply() -> None:
    """An interval from nothing would look like certainty."""
    assert mean([1.0, 0.0], "m").interval(resample(["a", "b"], 0, 0)) is None
    assert mean([1.0, None], "m").interval(resample(["a", "b"], 10, 0)) is None
    assert mean([1.0, 0.0], "m").interval(resample(["a", "b"], 50, 0)) == (0.0, 1.0)


def test_no_interval_of_one_unit() -> None:
    """Turns of one dialogue are drawn together: their interval has no width, and would pass for certainty."""
    values = [1.0, 0.0, 1.0, None]
    assert mean(values, "m").interval(resample(["a", "a", "a", "b"], 50, 0)) is None
    assert mean(values, "m").interval(resample(["a", "b", "b", "c"], 50, 0)) is not None


def test_resamples_without_anything_that_counts_are_left_out() -> None:
    """Few resamples of many replies of which few count: what is not defined is no end of an interval."""
    values: list[float | None] = [0.0, 1.0, *[None] * 60]
    names = [str(number) for number in range(62)]
    for seed in range(20):
        interval = mean(values, "m").interval(resample(names, 1, seed))
        assert interval is None or all(map(math.isfinite, interval))

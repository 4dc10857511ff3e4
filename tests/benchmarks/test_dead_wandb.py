"""What the benchmark of a dead W&B concludes from its pairs."""

import math

import pytest

from benchmarks.dead_wandb import _interval, _verdict, against_neighbours


def test_intervals() -> None:
    """Fails when an interval is too narrow for so few pairs, or one pair is taken for certain; Student's numbers."""
    assert _interval([1.0, 3.0]) == pytest.approx((2.0, 2 - 12.706, 2 + 12.706))
    mean, low, high = _interval([0.1, 0.2, 0.3, 0.4, 0.5])
    assert (mean, high - mean) == pytest.approx((0.3, 2.776 * math.sqrt(0.025 / 5)))
    assert mean - low == pytest.approx(high - mean)
    assert _interval([7.0]) == (7.0, -math.inf, math.inf)


def test_verdicts() -> None:
    """Noise must neither meet a target nor miss it."""
    assert _verdict((0.0, -0.1, 0.009), 0.01) == "met"
    assert _verdict((0.02, 0.011, 0.03), 0.01) == "missed"
    assert _verdict((0.0, -0.1, 0.02), 0.01) == "open"


def test_a_machine_that_slows_down_is_not_taken_for_a_cost() -> None:
    """A run of two minutes is slower at its end on a shared machine; turns are held against those beside them."""
    drifting = [1.01**k for k in range(7)]
    assert against_neighbours(drifting) == pytest.approx([0, 0, 0])
    costly = [one * (1.05 if k % 2 else 1) for k, one in enumerate(drifting)]
    assert against_neighbours(costly) == pytest.approx([math.log(1.05)] * 3)

"""Refusing to compare what is not equal, and counting time and memory."""

import pytest
import torch

from benchmarks.measure import (
    Difference,
    NotEqualError,
    Outcome,
    Timing,
    difference,
    outcome,
    peak_bytes,
    require_equal,
    time_arms,
)
from benchmarks.report import Ratio, Report

EXPECTED = Outcome(2.0, {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([1.0])})


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (Outcome(2.1, EXPECTED.gradients), "loss differs by 5.0e-02"),
        (Outcome(float("nan"), EXPECTED.gradients), "loss differs by nan"),
        (Outcome(2.0, {"a": torch.tensor([3.0, 4.5]), "b": torch.tensor([1.0])}), "gradient of a by 1.0e-01"),
        (Outcome(2.0, {"a": EXPECTED.gradients["a"], "b": torch.tensor([float("nan")])}), "gradient of b by nan"),
        (Outcome(2.0, {"a": EXPECTED.gradients["a"]}), "train different tensors: b"),
    ],
)
def test_arms_that_differ_are_refused(found: Outcome, message: str) -> None:
    """Fails when an arm that computes something else, or nothing finite, would be timed."""
    with pytest.raises(NotEqualError, match=message):
        require_equal("one", found, "other", EXPECTED)


def test_rounding_is_equal() -> None:
    """Fails when rounding is refused: in a tensor, or in one whose gradient is nothing but rounding."""
    expected = Outcome(2.0, {**EXPECTED.gradients, "zero": torch.tensor([1e-9])})
    found = Outcome(2.0 + 1e-6, {"a": torch.tensor([3.0, 4.00001]), "b": torch.ones(1), "zero": torch.tensor([-1e-9])})
    gap = require_equal("one", found, "other", expected)
    assert gap.gradient == pytest.approx(2e-6, rel=0.1)
    assert gap.tensor == "a"
    with pytest.raises(NotEqualError, match="gradient of zero"):  # small in the reference, yet not in the other arm
        require_equal("one", Outcome(2.0, {**EXPECTED.gradients, "zero": torch.tensor([1e-3])}), "other", expected)


def test_outcome_takes_every_gradient() -> None:
    """Fails when a tensor that the loss does not reach is taken for equal, or gradients pile up."""
    weight, unused = torch.ones(2, requires_grad=True), torch.ones(1, requires_grad=True)
    for _ in range(2):
        found = outcome((weight * torch.tensor([2.0, 3.0])).sum(), {"weight": weight})
        assert found.loss == 5.0
        assert found.gradients["weight"].tolist() == [2.0, 3.0]
    with pytest.raises(NotEqualError, match="unused has no gradient"):
        outcome(weight.sum(), {"weight": weight, "unused": unused})


def test_peak_counts_what_is_held_at_once() -> None:
    """Fails when released tensors are counted, or the highest point is missed."""
    size = 4_000_000

    def run() -> None:
        first = torch.zeros(size // 4)
        second = first + 1
        del first, second
        torch.zeros(size // 4)

    assert peak_bytes(run) == pytest.approx(2 * size, rel=0.01)


def test_arms_take_turns() -> None:
    """Fails when an arm is timed more often than another, or the warm-up counts."""
    calls: list[str] = []
    timings = time_arms({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repetitions=3)
    assert calls == ["a", "b"] * 4
    assert [len(timing.seconds) for timing in timings.values()] == [3, 3]


def test_report_judges_the_ratio_of_medians() -> None:
    """Fails when a missed target is passed over, or one slow repetition decides."""
    timings = {"slow": Timing((3.0, 4.0, 90.0), 2**20), "fast": Timing((1.0, 2.0, 1.0), 2**21)}
    ratios = [Ratio("slow", "fast", 3.9), Ratio("slow", "fast", 4.1), Ratio("slow", "fast")]
    gap = Difference("fast", "slow", 1e-7, 2e-7, "a")
    report = Report("title", {"tokens": 1234}, [gap], [], timings, ratios)
    assert report.missed() == [ratios[1]]
    lines = [line for line in report.text().splitlines() if line.startswith("fast against slow")]
    assert [line.split()[3:] for line in lines] == [
        ["4.00x", "2.00..90.00", ">=", "3.9", "met"],
        ["4.00x", "2.00..90.00", ">=", "4.1", "MISSED"],
        ["4.00x", "2.00..90.00"],
    ]
    assert report.record()["ratios"][0]["speedup"] == 4.0
    assert difference("fast", EXPECTED, "slow", EXPECTED).gradient == 0.0

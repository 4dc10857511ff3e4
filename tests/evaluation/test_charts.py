"""Plots: axes that hold their data, and no broken SVG from odd data."""

import math
from xml.etree import ElementTree

import pytest

from omnichat.evaluation.charts import MAX_POINTS, Bar, Line, bar_plot, gauge, line_plot, smooth, thin, ticks


@pytest.mark.parametrize("top", [1e-6, 0.07, 0.3, 1.0, 2.4, 7, 99.9, 100, 30_000, 123_456_789])
def test_ticks_are_few_round_and_reach_the_top(top: float) -> None:
    """A value above the last tick would be drawn outside the plot."""
    marks = ticks(top, 5)
    assert marks[0] == 0
    assert marks[-1] >= top * (1 - 1e-9)
    assert 3 <= len(marks) <= 8
    assert all(len(f"{mark:g}") <= 8 for mark in marks)


@pytest.mark.parametrize("top", [0.0, -1.0, math.nan, math.inf])
def test_ticks_of_nothing(top: float) -> None:
    """A loss of zero, or none at all, still gets axes."""
    assert ticks(top, 5) == [0, 1]


def test_line_plot_is_valid_and_inside_its_frame() -> None:
    """Every point lies in the view, the loss of the first steps included."""
    xs = list(range(1, 2001))
    lines = [
        Line("a <b>", xs, [5 / x for x in xs], "c1", faint=True),
        Line("c", [1, 1000], [0.5, 0.1], "c2", dots=True),
    ]
    svg = line_plot(lines, "step", "loss")
    root = ElementTree.fromstring(f"<div>{svg}</div>")
    lines_drawn = root.findall(".//polyline")
    assert len(lines_drawn) == 2
    for line in lines_drawn:
        points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        assert len(points) <= MAX_POINTS
        assert all(0 <= x <= 520 and 0 <= y <= 300 for x, y in points)
    assert len(root.findall(".//circle")) == 2


def test_plots_of_nothing_are_nothing() -> None:
    """The report leaves the panel out."""
    assert line_plot([Line("a", [], [], "c1")], "step", "loss") == ""
    assert bar_plot({}, "gate") == ""


def test_bars_are_as_high_as_their_values() -> None:
    """Twice the value, twice the height."""
    svg = bar_plot({"s": [Bar("a", 0.4, 0.3, 0.5, "c1"), Bar("b", 0.8, 0.8, 0.8, "c2")]}, "gate")
    heights = [float(bar.attrib["height"]) for bar in ElementTree.fromstring(f"<div>{svg}</div>").iter("rect")]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)


def test_gauge_shows_value_interval_and_baseline() -> None:
    """The band lies between the interval's ends, the tick at the baseline."""
    root = ElementTree.fromstring(gauge(0.5, [0.25, 0.75], 0.0))
    assert [path.attrib["class"] for path in root.iter("path")] == ["track", "band", "base"]
    assert float(next(root.iter("circle")).attrib["cx"]) == pytest.approx(52)
    assert "base" not in gauge(0.5, None, None)


def test_thin_and_smooth_keep_the_course() -> None:
    """A straight line stays straight, a constant constant."""
    xs, ys = thin(list(range(10_000)), [2.0 * x for x in range(10_000)])
    assert len(xs) == MAX_POINTS
    assert ys == pytest.approx([2 * x for x in xs])
    assert smooth([3.0] * 50) == pytest.approx([3.0] * 50)
    assert smooth([]) == []

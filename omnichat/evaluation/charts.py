"""Plots as inline SVG: no library, no script, colours from the page's style sheet so that dark mode follows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 14, 38
MAX_POINTS = 300  # of a line; more would not be seen and would swell the page


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a plot. `colour` is a class of the style sheet (c1, c2, ...); `faint` lines lie behind the others.

    `spreads` has the low and high end at each point, to be drawn as whiskers, or is empty.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: str
    faint: bool = False
    dots: bool = False
    spreads: Sequence[tuple[float, float] | None] = ()


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar with its spread from `low` to `high`."""

    name: str
    value: float
    low: float
    high: float
    colour: str


def line_plot(lines: Sequence[Line], x_label: str, y_label: str, y_max: float | None = None) -> str:
    """Lines over common axes that start at 0; empty where no line has a point."""
    shown = [line for line in lines if len(line.xs)]
    if not shown:
        return ""
    x_ticks = ticks(max(max(line.xs) for line in shown), 5)
    y_ticks = ticks(y_max or max(_top(line) for line in shown), 5)
    parts = [_axes(x_ticks, y_ticks, x_label, y_label)]
    for line in sorted(shown, key=lambda one: not one.faint):
        xs, ys = thin(line.xs, line.ys)
        points = [(_x(x, x_ticks[-1]), _y(min(y, y_ticks[-1]), y_ticks[-1])) for x, y in zip(xs, ys, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        kind = f"line {line.colour}" + (" faint" if line.faint else "")
        title = f"<title>{escape(line.name)}: last {line.ys[-1]:.3g}</title>"
        parts.append(f'<polyline class="{kind}" points="{path}">{title}</polyline>')
        if line.dots:
            parts += [
                f'<circle class="dot {line.colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.4"><title>{escape(line.name)}, '
                f"{x_label} {at:g}: {value:.3g}</title></circle>"
                for (x, y), at, value in zip(points, xs, ys, strict=True)
            ]
        parts += [
            f'<path class="whisker" d="M{x:.1f} {_y(low, y_ticks[-1]):.1f}V{_y(high, y_ticks[-1]):.1f}"/>'
            for (x, _), (low, high) in _whiskers(points, line.spreads)
        ]
    return _figure(parts, y_label) + legend([(line.name, line.colour) for line in shown if not line.faint])


def bar_plot(groups: Mapping[str, Sequence[Bar]], y_label: str) -> str:
    """Groups of bars between 0 and 1 with their spread as whiskers."""
    if not groups:
        return ""
    y_ticks = [0, 0.25, 0.5, 0.75, 1.0]
    parts = [_axes([], y_ticks, "", y_label)]
    slot = (WIDTH - LEFT - RIGHT) / len(groups)
    for number, (name, bars) in enumerate(groups.items()):
        width = min(46.0, 0.78 * slot / max(1, len(bars)))
        start = LEFT + slot * (number + 0.5) - width * len(bars) / 2
        for place, bar in enumerate(bars):
            x, middle, y = start + place * width, start + (place + 0.5) * width, _y(bar.value, 1)
            title = f"{name}, {bar.name}: mean {bar.value:.3f}, middle 80 % {bar.low:.3f} to {bar.high:.3f}"
            parts.append(
                f'<g><title>{escape(title)}</title><rect class="bar {bar.colour}" x="{x + 2:.1f}" y="{y:.1f}" '
                f'width="{width - 4:.1f}" height="{_y(0, 1) - y:.1f}" rx="2"/><path class="whisker" d="M{middle:.1f} '
                f"{_y(bar.low, 1):.1f}V{_y(bar.high, 1):.1f}M{middle - 5:.1f} {_y(bar.low, 1):.1f}h10M{middle - 5:.1f} "
                f'{_y(bar.high, 1):.1f}h10"/><text class="value" x="{middle:.1f}" y="{_y(0, 1) - 6:.1f}">'
                f"{bar.value:.2f}</text></g>"
            )
        middle = LEFT + slot * (number + 0.5)
        parts.append(f'<text class="tick middle" x="{middle:.1f}" y="{HEIGHT - 16}">{escape(name)}</text>')
    first = next(iter(groups.values()))
    return _figure(parts, y_label) + legend([(bar.name, bar.colour) for bar in first])


def gauge(value: float, interval: Sequence[float] | None, baseline: float | None) -> str:
    """A value between 0 and 1 on a track, with its interval as a band and the baseline as a tick."""
    width, middle = 104, 8

    def at(share: float) -> float:
        return 4 + (width - 8) * min(max(share, 0.0), 1.0)

    parts = [f'<path class="track" d="M4 {middle}H{width - 4}"/>']
    if interval:
        parts.append(f'<path class="band" d="M{at(interval[0]):.1f} {middle}H{at(interval[1]):.1f}"/>')
    if baseline is not None:
        parts.append(f'<path class="base" d="M{at(baseline):.1f} 1V15"/>')
    parts.append(f'<circle class="mark" cx="{at(value):.1f}" cy="{middle}" r="4"/>')
    opening = f'<svg class="gauge" viewBox="0 0 {width} 16" width="{width}" height="16" aria-hidden="true">'
    return f"{opening}{''.join(parts)}</svg>"


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Names beside their colours."""
    items = "".join(f'<span><i class="{colour}"></i>{escape(name)}</span>' for name, colour in entries)
    return f'<div class="legend">{items}</div>'


def ticks(top: float, count: int) -> list[float]:
    """Round numbers from 0 to at least `top`, about `count` steps apart."""
    if not top > 0 or not math.isfinite(top):
        return [0.0, 1.0]
    step = top / count
    size = 10.0 ** math.floor(math.log10(step))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= step * 0.999)
    return [step * number for number in range(math.ceil(top / step - 1e-9) + 1)]


def thin(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most `MAX_POINTS` points: means over stretches of equal length."""
    if len(xs) <= MAX_POINTS:
        return list(xs), list(ys)
    parts = [(np.mean(part), np.mean(values)) for part, values in zip(_cut(xs), _cut(ys), strict=True)]
    return [float(x) for x, _ in parts], [float(y) for _, y in parts]


def smooth(values: Sequence[float], share: float = 0.04) -> list[float]:
    """Centred means over a stretch of `share` of all values."""
    reach = max(1, round(len(values) * share / 2))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = [(max(0, at - reach), min(len(values), at + reach + 1)) for at in range(len(values))]
    return [float(sums[stop] - sums[start]) / (stop - start) for start, stop in ends]


def _cut(values: Sequence[float]) -> list[np.ndarray]:
    return np.array_split(np.array(values, dtype=np.float64), MAX_POINTS)


def _whiskers(
    points: Sequence[tuple[float, float]], spreads: Sequence[tuple[float, float] | None]
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    return [(point, ends) for point, ends in zip(points, spreads, strict=bool(spreads)) if ends is not None]


def _top(line: Line) -> float:
    finite = [y for y in [*line.ys, *(high for ends in line.spreads if ends for high in ends)] if math.isfinite(y)]
    # The first steps of a loss tower over the rest; a faint line may leave the plot at the top.
    return float(np.percentile(finite, 97 if line.faint else 100)) if finite else 1.0


def _x(value: float, last: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * value / last


def _y(value: float, last: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / last


def _axes(x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str, y_label: str) -> str:
    parts = [
        f'<path class="grid" d="M{LEFT} {_y(tick, y_ticks[-1]):.1f}H{WIDTH - RIGHT}"/><text class="tick end" '
        f'x="{LEFT - 6}" y="{_y(tick, y_ticks[-1]) + 4:.1f}">{tick:g}</text>'
        for tick in y_ticks
    ]
    parts += [
        f'<text class="tick middle" x="{_x(tick, x_ticks[-1]):.1f}" y="{HEIGHT - BOTTOM + 16}">{tick:g}</text>'
        for tick in x_ticks
    ]
    if x_label:
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text class="tick middle" x="{middle}" y="{HEIGHT - 4}">{escape(x_label)}</text>')
    return "".join(parts)


def _figure(parts: Sequence[str], label: str) -> str:
    opening = f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
    return f"{opening}{''.join(parts)}</svg>"

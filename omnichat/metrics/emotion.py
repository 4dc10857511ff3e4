"""How well a reply's style fits: F1 of its emotion, accuracy of each field, and what a constant guess would get.

A reply whose style could not be read (None) is wrong: it counts against its reference's class, and as no class of its
own. Classes are those of the references. Checked against scikit-learn in the tests.

Shapes: R replies, G classes of the references, C columns (all classes, and replies without one).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnichat.dialogue import EMOTIONS, STYLE_FIELDS, Style
from omnichat.metrics.statistic import Statistic, mean

UNREADABLE = "unreadable"
Average = Literal["weighted", "macro"]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts (G, C) of references in rows and replies in columns; the last column holds replies without a class."""

    labels: tuple[str, ...]
    columns: tuple[str, ...]
    counts: NDArray[np.int64]


def weighted_f1(gold: Sequence[str], found: Sequence[str | None]) -> float:
    """F1 averaged over the references' classes by their share (scikit-learn's `average="weighted"`)."""
    return emotion_f1(gold, found, "weighted").value


def macro_f1(gold: Sequence[str], found: Sequence[str | None]) -> float:
    """F1 averaged over the references' classes alike (scikit-learn's "macro" with `labels` = the references')."""
    return emotion_f1(gold, found, "macro").value


def emotion_f1(gold: Sequence[str | None], found: Sequence[str | None], average: Average) -> Statistic:
    """F1 over the replies whose reference has an emotion.

    Raises:
        ValueError: lists of different lengths, or no reference with an emotion.
    """
    labels, columns, cells = _cells(gold, found)
    known = cells >= 0
    if not known.any():
        raise ValueError("F1 needs at least one reference with an emotion")
    # One column for all that is no class of the references: two models' rows for one set can then be swapped.
    wide = len(labels) + 1
    places, answered = np.divmod(cells[known], len(columns))
    rows = np.zeros((len(cells), len(labels) * wide))
    rows[known.nonzero()[0], places * wide + np.minimum(answered, len(labels))] = 1

    def combine(sums: NDArray[np.float64]) -> float:
        return _f1(sums.reshape(len(labels), wide), average)

    return Statistic(rows, combine, f"f1:{average}|classes:references|unreadable:wrong|omnichat:1", known)


def confusion(gold: Sequence[str | None], found: Sequence[str | None]) -> Confusion:
    """Which emotion was answered where which was right."""
    labels, columns, cells = _cells(gold, found)
    counts = np.bincount(cells[cells >= 0], minlength=len(labels) * len(columns)).reshape(len(labels), len(columns))
    return Confusion(labels, columns, counts)


def majority(gold: Sequence[str | None]) -> str:
    """The most frequent class, the first of them in the paper's order where several are; a constant guess's best."""
    counts = Counter(label for label in gold if label is not None)
    return max(_ordered(counts), key=lambda label: counts[label])


def style_accuracies(gold: Sequence[Style], found: Sequence[Style | None]) -> dict[str, Statistic]:
    """Share of replies with the reference's value, per field, and `all`: every known field at once.

    A field that the reference does not know has nothing to be compared with; a style that could not be read is wrong.
    Fields that no reference knows are left out.
    """
    accuracies = {}
    for name in STYLE_FIELDS:
        hits = [_hit(wanted.known(), style, [name]) for wanted, style in zip(gold, found, strict=True)]
        if any(hit is not None for hit in hits):
            accuracies[name] = mean(hits, f"accuracy:{name}|unreadable:wrong|omnichat:1")
    hits = [_hit(wanted.known(), style, list(wanted.known())) for wanted, style in zip(gold, found, strict=True)]
    if accuracies:
        accuracies["all"] = mean(hits, "accuracy:every known field|unreadable:wrong|omnichat:1")
    return accuracies


def _hit(wanted: Mapping[str, str], style: Style | None, names: Sequence[str]) -> float | None:
    if not names or any(name not in wanted for name in names):
        return None
    return float(style is not None and all(getattr(style, name) == wanted[name] for name in names))


def _cells(
    gold: Sequence[str | None], found: Sequence[str | None]
) -> tuple[tuple[str, ...], tuple[str, ...], NDArray[np.int64]]:
    """Labels (G), columns (C), and for each reply its cell `row * C + column`, -1 where the reference has no class."""
    if len(gold) != len(found):
        raise ValueError(f"{len(gold)} references for {len(found)} replies")
    labels = _ordered(label for label in gold if label is not None)
    others = _ordered({answer for answer in found if answer is not None} - set(labels))
    columns = (*labels, *others, UNREADABLE)
    cells = [
        -1 if label is None else labels.index(label) * len(columns) + columns.index(answer or UNREADABLE)
        for label, answer in zip(gold, found, strict=True)
    ]
    return labels, columns, np.array(cells, dtype=np.int64)


def _ordered(labels: object) -> tuple[str, ...]:
    order = {name: place for place, name in enumerate(EMOTIONS)}
    return tuple(sorted(set(labels), key=lambda label: (order.get(label, len(order)), label)))  # type: ignore[call-overload]


def _f1(counts: NDArray[np.float64], average: Average) -> float:
    """From a confusion matrix (G, C) whose first G columns are the classes of its rows."""
    support = counts.sum(axis=1)
    answered = counts.sum(axis=0)[: len(support)]
    f1 = 2 * np.diagonal(counts) / np.maximum(support + answered, 1)
    present = support > 0  # a resample may lack a class
    if not present.any():
        return float("nan")
    return float(np.average(f1[present], weights=support[present] if average == "weighted" else None))

"""Is one model better than another on the same dialogues: paired bootstrap and paired permutation test.

Koehn 2004 ("Statistical significance tests for machine translation evaluation") for the first; Riezler and Maxwell 2005
("On some pitfalls in automatic evaluation and significance testing for MT") for approximate randomisation.

Shapes: R replies, U units drawn as a whole, P numbers per reply, B resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omnichat.metrics.statistic import Statistic


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of the first model minus that of the second.

    Attributes:
        value: over all replies.
        ci95: of the paired bootstrap, percentiles 2.5 and 97.5; None where fewer than two units count.
        p_value: of the two-sided permutation test; None as above. At least 1 / (resamples + 1).
        units: how many units count.
    """

    value: float
    ci95: tuple[float, float] | None
    p_value: float | None
    units: int


def compare(a: Statistic, b: Statistic, units: Sequence[str], resamples: int, seed: int) -> Difference:
    """Compare a metric of two models over the same replies, row by row.

    Args:
        a: the first model's.
        b: the second model's.
        units: (R,) what is drawn, or swapped, as a whole: dialogues of one script are not independent.
        resamples: of the bootstrap, and of the permutation test.
        seed: of both.

    Raises:
        ValueError: the two are not the same metric over the same replies.
    """
    if a.signature != b.signature or a.rows.shape != b.rows.shape or not np.array_equal(a.counted, b.counted):
        raise ValueError(f"not the same metric over the same replies: {a.signature!r}, {b.signature!r}")
    names, members = np.unique(np.array(units, dtype=str), return_inverse=True)
    counts = np.zeros(len(names), dtype=bool)
    np.logical_or.at(counts, members, a.counted)
    first, second = _by_unit(a.rows, members, len(names))[counts], _by_unit(b.rows, members, len(names))[counts]
    value, count = a.value - b.value, int(counts.sum())
    if count < 2 or resamples < 1:
        return Difference(value, None, None, count)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)
    differences = _combine(a, drawn @ first) - _combine(b, drawn @ second)
    low, high = np.nanpercentile(differences, [2.5, 97.5])
    swapped = generator.integers(0, 2, size=(resamples, count)).astype(np.float64)
    change = swapped @ (second - first)
    by_chance = _combine(a, first.sum(axis=0) + change) - _combine(b, second.sum(axis=0) - change)
    # The order as it is counts as one of the permutations; sums in another order may differ in the last digits.
    as_far = int((np.abs(by_chance) >= abs(value) - 1e-12).sum())
    return Difference(value, (float(low), float(high)), (as_far + 1) / (resamples + 1), count)


def _by_unit(rows: NDArray[np.float64], members: NDArray[np.intp], count: int) -> NDArray[np.float64]:
    sums = np.zeros((count, rows.shape[1]))
    np.add.at(sums, members, rows)
    return sums


def _combine(metric: Statistic, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([metric.combine(one) for one in sums])

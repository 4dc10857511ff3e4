"""A metric as a sum over replies, so that every metric gets its bootstrap interval in the same way.

Shapes: R replies, P numbers per reply, B resamples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Missing:
    """A metric that cannot be computed here. It has a reason, never a number."""

    reason: str


@dataclass(frozen=True, slots=True)
class Whole:
    """A metric of a whole set, which is no function of sums over its replies: it has no interval and no parts."""

    value: float
    signature: str
    n: int


@dataclass(frozen=True, slots=True)
class Statistic:
    """A metric that is a function of sums over replies.

    Attributes:
        rows: (R, P) what each reply adds; zeros where the reply does not count (nothing to compare it with).
        combine: the metric from the (P,) sums; NaN where it is not defined.
        signature: library, version and settings behind the number.
        counted: (R,) which replies count.
    """

    rows: NDArray[np.float64]
    combine: Callable[[NDArray[np.float64]], float]
    signature: str
    counted: NDArray[np.bool_]

    @property
    def n(self) -> int:
        """How many replies count."""
        return int(self.counted.sum())

    @property
    def value(self) -> float:
        """The metric over all replies."""
        return self.combine(self.rows.sum(axis=0))

    def interval(self, multiplicities: NDArray[np.float64]) -> tuple[float, float] | None:
        """The bootstrap's 95 % interval (percentiles 2.5 and 97.5).

        None where the replies that count are fewer than two, or always drawn together: how much one group alone would
        vary cannot be known, and an interval without width would pass for certainty.

        Args:
            multiplicities: (B, R), from `resample`.
        """
        drawn = multiplicities[:, self.counted]
        if self.n < 2 or bool((drawn == drawn[:, :1]).all()):
            return None
        values = np.array([self.combine(sums) for sums in multiplicities @ self.rows])
        defined = values[np.isfinite(values)]  # a resample may hold nothing that counts
        if not len(defined):
            return None
        low, high = np.percentile(defined, [2.5, 97.5])
        return float(low), float(high)

    def take(self, chosen: NDArray[np.bool_]) -> "Statistic":
        """The same metric over the replies where `chosen` (R,) holds."""
        return replace(self, rows=self.rows[chosen], counted=self.counted[chosen])


def mean(values: Sequence[float | None], signature: str) -> Statistic:
    """The mean over the replies that have a value."""
    return ratio([(0, 0) if value is None else (value, 1) for value in values], signature)


def ratio(parts: Sequence[tuple[float, float]] | NDArray[np.float64], signature: str) -> Statistic:
    """Sum of the first numbers by sum of the second; a reply whose second is 0 does not count."""
    rows = np.array(parts, dtype=np.float64).reshape(-1, 2)
    return Statistic(rows, _divide, signature, rows[:, 1] > 0)


def resample(groups: Sequence[str], resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each reply occurs in each bootstrap resample, (B, R).

    Whole groups are drawn with replacement: dialogues that share their script are not independent, and drawing them
    one by one would give intervals that are too narrow.

    Args:
        groups: (R,) the group of each reply; a name of its own for a reply that stands alone.
        resamples: B.
        seed: of the draws.
    """
    names, members = np.unique(np.array(groups, dtype=str), return_inverse=True)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(names), np.full(len(names), 1 / max(1, len(names))), size=resamples)
    return drawn[:, members].astype(np.float64)


def _divide(sums: NDArray[np.float64]) -> float:
    return float(sums[0] / sums[1]) if sums[1] else float("nan")

"""From the scores of an experiment's runs to means over seeds and decided claims."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from omnichat.evaluation.experiments.definition import Claim, Experiment
from omnichat.evaluation.experiments.runs import Outcome

# Student's t at 97.5 % for 1, 2, ... degrees of freedom (any table of it); beyond, the last is kept, which is wider.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
Verdict = Literal["holds", "does not hold", "undecided"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True, slots=True)
class Value:
    """A mean over seeds.

    Attributes:
        mean: of the seeds' values.
        interval: 95 %; Student's over seeds, or for one seed the bootstrap's over dialogues; None where there is none.
        seeds: how many.
    """

    mean: float
    interval: tuple[float, float] | None
    seeds: int


@dataclass(frozen=True, slots=True)
class Decision:
    """A claim's difference, paired by seed, and what it says."""

    claim: Claim
    value: Value | None
    verdict: Verdict
    why: str


def over_seeds(values: Sequence[float]) -> Value:
    """Mean with Student's 95 % interval; none for fewer than two values."""
    count = len(values)
    mean = sum(values) / count
    if count < 2:
        return Value(mean, None, count)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    half = STUDENT[min(count - 1, len(STUDENT)) - 1] * spread / math.sqrt(count)
    return Value(mean, (mean - half, mean + half), count)


def value_of(outcomes: Sequence[Outcome], row: str, split: str, metric: str) -> Value | None:
    """A cell of the table; None where no seed of the row has the metric. A baseline counts as one seed."""
    found = {
        outcome.planned.folder: found
        for outcome in outcomes
        if outcome.planned.row == row and (found := _metric(outcome, split, metric))
    }
    if not found:
        return None
    value = over_seeds([mean for mean, _ in found.values()])
    return Value(value.mean, next(iter(found.values()))[1], 1) if len(found) == 1 else value


def decide(experiment: Experiment, outcomes: Sequence[Outcome]) -> list[Decision]:
    """Every claim of which all rows are run at this size.

    It holds where the whole interval of the difference over seeds is above 0, and does not where it is below; in
    between, and with fewer than two seeds, it stays undecided.
    """
    there = {outcome.planned.row for outcome in outcomes}
    return [_decide(claim, outcomes) for claim in experiment.claims if set(claim.weights) <= there]


def _decide(claim: Claim, outcomes: Sequence[Outcome]) -> Decision:
    by_seed: dict[int, dict[str, float]] = {}
    for outcome in outcomes:
        if outcome.planned.row in claim.weights and (found := _metric(outcome, claim.split, claim.metric)):
            by_seed.setdefault(outcome.planned.seed, {})[outcome.planned.row] = found[0]
    whole = [values for values in by_seed.values() if len(values) == len(claim.weights)]
    if not whole:
        return Decision(claim, None, "undecided", "no seed has all of its rows")
    value = over_seeds([_weighted(claim.weights, values) for values in whole])
    if value.interval is None:
        return Decision(claim, value, "undecided", "one seed alone decides nothing")
    low, high = value.interval
    if low > 0:
        return Decision(claim, value, "holds", "")
    if high < 0:
        return Decision(claim, value, "does not hold", "the difference is the other way round")
    return Decision(claim, value, "undecided", "the interval holds 0")


def _weighted(weights: Mapping[str, float], values: Mapping[str, float]) -> float:
    return sum(weight * values[row] for row, weight in weights.items())


def _metric(outcome: Outcome, split: str, metric: str) -> tuple[float, tuple[float, float] | None] | None:
    found = outcome.scores["splits"].get(split, {}) if outcome.scores else {}
    cell = found.get("metrics", {}).get(metric)
    if not cell or cell["value"] is None:
        return None
    ends = cell["ci95"]
    return float(cell["value"]), None if ends is None else (float(ends[0]), float(ends[1]))

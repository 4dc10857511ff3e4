"""What a ledger says in numbers: yield, reasons, attempts and costs of each stage."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_prep.synthesis.ledger import COSTS, Ledger

STAGES = ("scripts", "deduplicate", "speak", "conversation", "mix")


@dataclass(slots=True)
class Figures:
    """Of one stage.

    Attributes:
        stage: its name.
        counts: items by status.
        reasons: of rejected items.
        refusals: of all attempts that failed, whatever became of the item.
        attempts: how many items took so many.
        costs: sums, by the names of `stage.Cost`.
        seconds: that workers had items in hand.
    """

    stage: str
    counts: dict[str, int]
    reasons: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    costs: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """All items."""
        return sum(self.counts.values())

    @property
    def finished(self) -> int:
        """Items that are done or rejected."""
        return self.counts["done"] + self.counts["rejected"]

    @property
    def share(self) -> float | None:
        """Of the finished items those that passed."""
        return self.counts["done"] / self.finished if self.finished else None


def figures(ledger: Ledger, stages: Sequence[str] = STAGES) -> list[Figures]:
    """Of each stage that has items."""
    found = [_stage(ledger, stage) for stage in stages]
    return [one for one in found if one.total]


def _stage(ledger: Ledger, stage: str) -> Figures:
    finished = "FROM items WHERE stage = ? AND wanted AND status IN ('done', 'rejected')"
    sums = ", ".join(f"total({name})" for name in (*COSTS, "seconds"))
    (totals,) = ledger.query(f"SELECT {sums} FROM items WHERE stage = ? AND wanted", stage)
    refusals: Counter[str] = Counter()
    for text, count in ledger.query(
        f"SELECT refusals, count(*) {finished} AND refusals != '[]' GROUP BY refusals", stage
    ):
        for reason in json.loads(text):
            refusals[reason] += count
    return Figures(
        stage=stage,
        counts=ledger.counts(stage),
        reasons=Counter(
            dict(ledger.query(f"SELECT reason, count(*) {finished} AND reason != '' GROUP BY reason", stage))
        ),
        refusals=refusals,
        attempts=Counter(
            dict(ledger.query(f"SELECT attempts, count(*) {finished} AND attempts GROUP BY attempts", stage))
        ),
        costs=dict(zip(COSTS, totals, strict=False)),
        seconds=totals[-1],
    )


def listed(counts: Counter[str]) -> str:
    """Counts as text, most frequent first."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())

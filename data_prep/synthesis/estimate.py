"""What a whole run will take, from its first scripts: calls, tokens, hours, disk and money, with an interval."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.synthesis.blobs import blob_path
from data_prep.synthesis.contracts import Speech
from data_prep.synthesis.pipeline import WORKED, Pipeline
from omnichat.audio import SAMPLE_RATE

RESAMPLES = 2_000
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A quantity of the whole run: its value and a 95 % interval."""

    name: str
    unit: str
    value: float
    low: float
    high: float


def estimate(pipeline: Pipeline, scripts: int) -> list[Estimate]:
    """Extrapolate from what the ledger holds to `scripts` scripts.

    The interval is a bootstrap over the scripts that were made: it tells how far they differ, not whether the servers
    will be as fast under load, nor that later scripts repeat earlier ones more often.

    Raises:
        ValueError: nothing was made yet.
    """
    made = sorted(brief.number for brief in pipeline.briefs)
    if not made:
        raise ValueError("there are no scripts to extrapolate from")
    place = {number: row for row, number in enumerate(made)}
    sums: dict[tuple[str, str], NDArray[np.float64]] = {}

    def add(name: str, unit: str, number: int, amount: float) -> None:
        if number in place:
            sums.setdefault((name, unit), np.zeros(len(made)))[place[number]] += amount

    for name, unit, number, amount in _amounts(pipeline):
        add(name, unit, number, amount)
    rng = np.random.Generator(np.random.Philox(0))
    rows = rng.integers(len(made), size=(RESAMPLES, len(made)))
    found = []
    for (name, unit), values in sums.items():
        low, high = np.percentile(values[rows].mean(axis=1), [2.5, 97.5]) * scripts
        found.append(Estimate(name, unit, float(values.mean()) * scripts, float(low), float(high)))
    return found


def _amounts(pipeline: Pipeline) -> Iterator[tuple[str, str, int, float]]:
    """Quantity, unit, script number, amount; a quantity that is free or unused is left out."""
    prices, ledger = pipeline.config.prices, pipeline.ledger
    for stage in WORKED:
        beside = pipeline.stages[stage].concurrency  # items that share a worker's time
        rows = ledger.query(
            "SELECT number, calls, tokens_in, tokens_out, seconds FROM items WHERE stage = ? AND wanted "
            "AND status IN ('done', 'rejected')",
            stage,
        )
        for number, calls, tokens_in, tokens_out, seconds in rows:
            hours = seconds / beside / HOUR
            if stage != "mix":
                yield f"{stage}: calls", "", number, calls
            if tokens_in or tokens_out:
                yield f"{stage}: tokens in", "", number, tokens_in
                yield f"{stage}: tokens out", "", number, tokens_out
            yield f"{stage}: worker hours", "h", number, hours
            if prices.tokens_in or prices.tokens_out or prices.hour:
                tokens = (tokens_in * prices.tokens_in + tokens_out * prices.tokens_out) / 1e6
                yield "money", "", number, tokens + hours * prices.hour.get(stage, 0)  # type: ignore[call-overload]
    yield from _disk(pipeline)


def _disk(pipeline: Pipeline) -> Iterator[tuple[str, str, int, float]]:
    sizes: dict[str, int] = {}

    def size(blob: str) -> int:
        """Of a blob that is met for the first time."""
        if blob in sizes:
            return 0
        sizes[blob] = blob_path(pipeline.folder.blobs, blob).stat().st_size
        return sizes[blob]

    for found in pipeline.ledger.results("speak"):
        if found.output is not None:
            yield "disk: blobs", "GB", found.number, size(Speech.model_validate_json(found.output).blob) / 1e9
    for mixed in pipeline.mixed():
        number = mixed.plan.brief.number
        pieces = [piece for piece in mixed.pieces if piece is not None]
        yield "disk: blobs", "GB", number, sum(size(piece.blob) for piece in pieces) / 1e9
        yield "disk: store", "GB", number, sum(sizes[piece.blob] for piece in pieces) / 1e9
        yield "dialogues", "", number, 1
        yield "hours heard", "h", number, sum(piece.num_samples for piece in pieces) / SAMPLE_RATE / HOUR
    rows = pipeline.ledger.query("SELECT number, length(input) + length(coalesce(output, '')) FROM items WHERE wanted")
    for number, characters in rows:
        yield "disk: ledger", "GB", number, characters / 1e9

"""A driver: it leases items of a stage, has them worked on, and writes down what became of them."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from data_prep.synthesis.executors import Executor, Job
from data_prep.synthesis.leases import Lease, lost_drivers
from data_prep.synthesis.ledger import Ledger
from data_prep.synthesis.serve import StageFailed
from data_prep.synthesis.work import Outcome

POLL = 0.25  # seconds; how soon it is seen that another driver has finished
COMMIT_EVERY = 0.1  # seconds: outcomes are written down at least as often, and whenever `capacity` of them wait


class DiskFull(RuntimeError):
    """There is no more room; the ledger is whole, and the message says how to go on."""


@dataclass(slots=True)
class Tally:
    """What a driver did of a stage in this call."""

    done: int = 0
    rejected: int = 0
    seconds: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)

    def plus(self, other: "Tally") -> "Tally":
        """Both together."""
        reasons = {
            name: self.reasons.get(name, 0) + other.reasons.get(name, 0) for name in {**self.reasons, **other.reasons}
        }
        return Tally(self.done + other.done, self.rejected + other.rejected, self.seconds + other.seconds, reasons)

    def add(self, outcomes: list[Outcome]) -> None:
        """Count outcomes that were written down."""
        for outcome in outcomes:
            if outcome.status == "done":
                self.done += 1
            elif outcome.status == "rejected":
                self.rejected += 1
                self.reasons[outcome.reason] = self.reasons.get(outcome.reason, 0) + 1


def run_stage(
    ledger: Ledger,
    lease: Lease,
    job: Job,
    make_executor: Callable[[Job], Executor],
    progress: Callable[[dict[str, int]], None] = lambda counts: None,
) -> Tally:
    """Work until no wanted item of the stage is pending or leased, whoever else works on it.

    Args:
        ledger: with the stage's items.
        lease: of this driver.
        job: the stage and its surroundings.
        make_executor: what works on items; not asked for where there is nothing to do.
        progress: told the counts by status now and then.

    Raises:
        DiskFull: nothing more can be kept.
        StageFailed: see `Executor`; or what the stage works with refuses altogether while it works.
    """
    tally, began = Tally(), time.monotonic()
    try:
        while unfinished(counts := ledger.counts(job.stage.name)):
            progress(counts)
            ledger.reap(lost_drivers(ledger.connection))
            if ledger.counts(job.stage.name)["pending"]:
                with make_executor(job) as executor:
                    _drive(ledger, lease, executor, tally, progress)
            else:
                time.sleep(POLL)  # the rest is in other drivers' hands
    except sqlite3.OperationalError as error:
        if "full" not in str(error):
            raise
        raise DiskFull(f"{ledger.path}: {error}; free some space, then `resume`: nothing is lost") from None
    finally:
        tally.seconds = time.monotonic() - began
        _give_back(ledger, lease)
    progress(ledger.counts(job.stage.name))
    return tally


def unfinished(counts: dict[str, int]) -> int:
    """Items that are not yet made nor rejected."""
    return counts["pending"] + counts["leased"]


def _drive(
    ledger: Ledger, lease: Lease, executor: Executor, tally: Tally, progress: Callable[[dict[str, int]], None]
) -> None:
    """Keep the executor busy until there is nothing to claim and all that was claimed is written down.

    Fewer than twice the executor's capacity are in hand or not yet written down at any time, however slow the disk: so
    many are made again where this process is killed.
    """
    stage = executor.job.stage.name
    outcomes: list[Outcome] = []
    written = shown = time.monotonic()
    more = True
    while more or executor.pending or outcomes:
        # Half of the room at least, so that a claim, which is a transaction, takes several items.
        if more and executor.room * 2 >= executor.capacity:
            tasks = ledger.claim(stage, lease.name, executor.room)
            more = bool(tasks)
            executor.submit(tasks)
        outcomes += executor.collect(COMMIT_EVERY if executor.pending else 0)
        now = time.monotonic()
        due = now - written >= COMMIT_EVERY or len(outcomes) >= executor.capacity or not (more or executor.pending)
        if outcomes and due:
            _write(ledger, lease, outcomes, tally)
            more = more or any(outcome.status == "lost" for outcome in outcomes)
            outcomes, written = [], now
        if now - shown >= 1:
            progress(ledger.counts(stage))
            shown = now


def _write(ledger: Ledger, lease: Lease, outcomes: list[Outcome], tally: Tally) -> None:
    stops: dict[str, type[RuntimeError]] = {"disk_full": DiskFull, "backend": StageFailed}
    kept = [outcome for outcome in outcomes if outcome.reason not in stops]
    ledger.commit(lease.name, kept)
    tally.add(kept)
    for reason, error in stops.items():
        if back := [outcome for outcome in outcomes if outcome.reason == reason]:
            raise error(f"{back[0].message}; items in hand went back, nothing is lost: `resume` goes on")


def _give_back(ledger: Ledger, lease: Lease) -> None:
    with suppress(sqlite3.Error):  # on a full disk the lease lapses with this process instead
        ledger.release(lease.name)

"""One driver's time with a run: ledger and lease are held, progress is shown, and what was done is noted."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from data_prep.synthesis.executors import cores
from data_prep.synthesis.folder import RunFolder
from data_prep.synthesis.leases import Lease
from data_prep.synthesis.ledger import Ledger
from data_prep.synthesis.pipeline import Pipeline

SESSIONS = "sessions"


@contextmanager
def session(folder: RunFolder, limit: int | None = None) -> Iterator[Pipeline]:
    """A pipeline that can be walked.

    Args:
        folder: of the run.
        limit: only the first so many scripts.

    Raises:
        FolderError, LedgerError: see there.
    """
    config = folder.config()
    began, clock = time.time(), time.monotonic()
    with (
        Ledger(folder.ledger) as ledger,
        Lease(folder.ledger, config.execution.lease_seconds) as lease,
        _Bars() as bars,
    ):
        pipeline = Pipeline(folder, config, ledger, lease, limit, bars.show)
        yield pipeline
        done = {
            stage: {"done": tally.done, "rejected": tally.rejected, "seconds": round(tally.seconds, 3)}
            for stage, tally in pipeline.tallies.items()
            if tally.done or tally.rejected
        }
        if done:
            record = {
                "host": socket.gethostname(),
                "executor": config.execution.executor,
                "workers": config.execution.workers or cores(),
                "started": began,
                "seconds": round(time.monotonic() - clock, 3),
                "stages": done,
            }
            with ledger.transaction():
                ledger.set_fact(SESSIONS, json.dumps([*json.loads(ledger.fact(SESSIONS) or "[]"), record]))


class _Bars:
    """A bar for each stage on a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[rejected]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.bars: dict[str, TaskID] = {}

    def __enter__(self) -> "_Bars":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, stage: str, counts: dict[str, int]) -> None:
        """Move a stage's bar."""
        if stage not in self.bars:
            self.bars[stage] = self.progress.add_task(stage, rejected="")
        rejected = counts["rejected"]
        self.progress.update(
            self.bars[stage],
            total=sum(counts.values()),
            completed=counts["done"] + rejected,
            rejected=f"{rejected:,} rejected" if rejected else "",
        )

"""The ledger and its driver: items named, leased, worked on by a stage that does nothing, written down."""

import resource
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from data_prep.synthesis.benchmarks.figure import Figure
from data_prep.synthesis.contracts import Utterance, Voice
from data_prep.synthesis.executors import Executor, Inline, Job, Local
from data_prep.synthesis.leases import Lease
from data_prep.synthesis.ledger import LEDGER_FILE, Item, Ledger
from data_prep.synthesis.runner import run_stage
from data_prep.synthesis.seeds import Namer
from data_prep.synthesis.stage import Attempt, Stage
from omnichat.dialogue import Style

TARGET = 200.0  # items a second: what the slowest part of a run, its servers, will hardly reach
ITEMS, QUICK_ITEMS = 10_000, 500


class Nothing(Stage[Utterance, Utterance]):
    """Gives back what it takes: all that is measured is what is around a stage."""

    name: ClassVar[str] = "nothing"
    version: ClassVar[str] = "1"
    takes = Utterance
    gives = Utterance

    def identity(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    async def run(self, item: Utterance, attempt: Attempt) -> Utterance:
        """The item."""
        return item


def run(quick: bool = False) -> list[Figure]:
    """Items a second of CPU time: of one process that does it all, and of a driver with two worker processes."""
    count = QUICK_ITEMS if quick else ITEMS
    return [_measure(count, Inline, "one process"), _measure(count, Local, "a driver and its two workers together")]


def _measure(count: int, kind: type[Executor], name: str) -> Figure:
    stage = Nothing()
    with TemporaryDirectory(prefix="omnichat-bench-") as folder:
        path = Path(folder) / LEDGER_FILE
        with Ledger(path) as ledger, Lease(path) as lease:
            before, clock = _spent(), time.monotonic()
            ledger.want(stage.name, _items(stage, count))
            run_stage(ledger, lease, Job(stage, 0, Path(folder), 1 if kind is Inline else 2), kind)
            done = ledger.counts(stage.name)["done"]
            assert done == count, f"{done} of {count} items are done"
        spent = _spent() - before
        size = path.stat().st_size / count
    rate = count / (time.monotonic() - clock)
    about = f"{count:,} items, {rate:,.0f} a second of the clock, {size:,.0f} bytes each"
    return Figure(f"ledger, {name}", count / spent, "items a second of CPU time", about, TARGET)


def _items(stage: Nothing, count: int) -> Iterator[Item]:
    naming, voice, style = Namer(stage, 0), Voice(name="ann", gender="female"), Style("female", "sad", "slow", "low")
    for number in range(count):
        text = f"Sentence {number} is about as long as what somebody would say in a dialogue."
        item = Utterance(text=text, style=style, voice=voice)
        yield Item(naming(item), number, item.model_dump_json())


def _spent() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )

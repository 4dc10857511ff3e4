"""How far a long stage is: a bar on a terminal, a line for each tenth elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives the function that is told how much more is done."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(what, total).advance
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.update(task, advance=count)


class _Lines:
    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0

    def advance(self, count: int) -> None:
        tenth, self.done = self.done * 10 // self.total, self.done + count
        if self.done * 10 // self.total > tenth:
            print(f"{self.what}: {self.done}/{self.total} done", file=sys.stderr, flush=True)

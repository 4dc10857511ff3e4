"""Work over many processes that may be stopped at any moment: each finished piece is kept, under what it depends on."""

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from omnichat.dialogue import DataError

INTERRUPTED = 130  # exit code, as shells report Ctrl-C


@dataclass(frozen=True, slots=True)
class Task:
    """A piece of work.

    Attributes:
        key: of everything that its result depends on (`digest`); a kept result with another key is made again.
        arguments: of the function that does it.
        makes: a file that it writes besides its result; without it a kept result is worth nothing.
    """

    key: str
    arguments: tuple[Any, ...]
    makes: Path | None = None


def digest(*values: Any) -> str:
    """SHA-256 of the values as JSON; sets in order, and what JSON does not know as Python shows it."""

    def shown(value: Any) -> Any:
        return sorted(value) if isinstance(value, (set, frozenset)) else repr(value)

    text = json.dumps(values, ensure_ascii=True, sort_keys=True, default=shown)
    return hashlib.sha256(text.encode()).hexdigest()


def run_tasks(
    tasks: Sequence[Task], work: Callable[..., dict[str, Any]], kept: Path, workers: int, label: str
) -> Iterator[dict[str, Any]]:
    """The result of each task, in the order of the tasks whatever the number of processes.

    Args:
        tasks: what is to be done.
        work: a module's function; its result is JSON. "depends" in it are stamps of files it has read: a kept result
            is made again when one of them has changed.
        kept: folder of the results. Those that are there already are not made again.
        workers: processes; 1 works in this one.
        label: what the progress bar says.

    Raises:
        DataError: what `work` raises, or `worker_killed`.
        KeyboardInterrupt: after the pieces at work are finished and kept.
    """
    kept.mkdir(parents=True, exist_ok=True)
    for stale in kept.glob(".*.partial"):
        stale.unlink()
    files = [kept_file(kept, number) for number in range(len(tasks))]
    missing = [number for number, task in enumerate(tasks) if _load(files[number], task) is None]
    with _bar(label, len(tasks), len(tasks) - len(missing)) as advance:
        jobs = [(work, tasks[number], files[number]) for number in missing]
        with _stops() as stop:
            if workers == 1 or len(jobs) < 2:
                for job in jobs:
                    _do(*job)
                    advance()
                    stop.check()
            else:
                _in_processes(jobs, min(workers, len(jobs)), advance, stop)
    for file, task in zip(files, tasks, strict=True):
        result = _load(file, task, check=False)
        assert result is not None, f"{file} was made just now"
        yield result


class _Stop:
    """Ctrl-C waits for the piece at work: a decoder would swallow it, and the file would be taken for a broken one."""

    asked = False

    def ask(self, number: int, frame: Any) -> None:
        """The handler of the signal. The second time it ends everything: what is finished is whole in any case."""
        shown = "\033[?25h" if sys.stderr.isatty() else ""  # a progress bar has hidden the cursor
        if self.asked:
            print(f"{shown}stopped at once; what is finished is kept", file=sys.stderr, flush=True)
            os._exit(INTERRUPTED)
        self.asked = True
        print("stopping after the pieces at work; Ctrl-C again stops at once", file=sys.stderr, flush=True)

    def check(self) -> None:
        """Raise KeyboardInterrupt where it was asked for."""
        if self.asked:
            raise KeyboardInterrupt


@contextmanager
def _stops() -> Iterator[_Stop]:
    stop, before = _Stop(), signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield stop  # somebody else's affair
        return
    signal.signal(signal.SIGINT, stop.ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _in_processes(jobs: Sequence[tuple[Any, ...]], workers: int, advance: Callable[[], None], stop: _Stop) -> None:
    # spawn: the progress bar runs a thread, and a fork would copy its locks
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_parent) as pool:
        try:
            with _without_interrupts():  # a process that is being started would be cut off, with a traceback of its own
                waiting = {pool.submit(_do, *job) for job in jobs}
            while waiting:
                stop.check()
                done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    advance()
        except BrokenProcessPool:
            message = "a process was killed, most likely for want of memory; take fewer: --workers 1"
            raise DataError("worker_killed", message) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C waits until the end. Processes started meanwhile never get it: they leave it to their parent."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow_parent() -> None:
    """End with the parent, even where it is killed."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _do(work: Callable[..., dict[str, Any]], task: Task, file: Path) -> None:
    record = {"key": task.key, "result": work(*task.arguments)}
    write_whole(file, json.dumps(record, ensure_ascii=True))


def write_whole(path: Path, text: str) -> None:
    """Write a text file in one piece, on the disk before it gets its name."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8", newline="\n") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.replace(partial, path)


def kept_file(kept: Path, number: int) -> Path:
    """Where the result of a task is kept, as {"key": ..., "result": ...}."""
    return kept / f"{number:06d}.json"


def stamp(path: Path | str) -> list[str | int]:
    """What changes when a file does: its path, size and time of change."""
    try:
        status = os.stat(path)
    except OSError:
        return [str(path), -1, -1]
    return [str(path), status.st_size, status.st_mtime_ns]


def _load(file: Path, task: Task, check: bool = True) -> dict[str, Any] | None:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        result: dict[str, Any] = record["result"]
        if record["key"] != task.key or (task.makes is not None and not task.makes.is_file()):
            return None
        if check and any(stamp(one[0]) != one for one in result.get("depends", ())):
            return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return result


@contextmanager
def _bar(label: str, total: int, done: int) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal; a line elsewhere, where a bar would fill the log."""
    console = Console(stderr=True)
    if not console.is_terminal:
        kept = f", {done} kept from before" if done else ""
        console.print(f"{label}: {total} pieces{kept}", highlight=False)
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(label, total=total, completed=done)
        yield lambda: progress.advance(bar)


@contextmanager
def bytes_bar(label: str) -> Iterator[Callable[[int], None]]:
    """How much was written, where the total is not known."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(label, highlight=False)
        yield lambda count: None
        return
    columns = (TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(label, total=None)
        yield lambda count: progress.advance(bar, count)

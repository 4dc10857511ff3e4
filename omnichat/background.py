"""Work beside what goes on, which the end of the program does not wait for."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")
ENDED_SECONDS = 2.0  # for the system to end what was killed


def in_background(work: Callable[[], Result]) -> Future[Result]:
    """What `work` returns or raises, from a thread of its own. One of a pool would be waited for at the end."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # whoever waits gets it
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def end_children(process: int) -> None:
    """End all processes that a process has started, and theirs, in whatever session they are; not itself."""
    import psutil

    try:
        children = psutil.Process(process).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(children, timeout=ENDED_SECONDS)

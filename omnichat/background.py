"""Work beside what goes on, which the end of the program does not wait for."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")


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

"""A worker process: items come through a pipe, outcomes go back, until the pipe closes."""

import asyncio
import os
import signal
import socket
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from data_prep.synthesis.stage import Refused, Stage
from data_prep.synthesis.work import Outcome, Task, work

READY = "ready"


class StageFailed(RuntimeError):
    """A stage cannot work at all: its server is down, its engine is not installed. The message says what to do."""


async def opened(stage: Stage[Any, Any]) -> None:
    """Open a stage.

    Raises:
        StageFailed: in place of whatever it raises.
    """
    try:
        await stage.open()
    except Refused as error:
        raise StageFailed(f"{stage.name}: {error.message} [{error.reason}]") from None
    except Exception as error:
        raise StageFailed(f"{stage.name}: {error or type(error).__name__}") from error


def serve(connection: Connection, stage: Stage[Any, Any], seed: int, blobs: Path) -> None:
    """The process's main function. Ctrl-C is the driver's business: it decides what is still finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers share the cores already
    asyncio.run(_serve(connection, stage, seed, blobs))


async def _serve(connection: Connection, stage: Stage[Any, Any], seed: int, blobs: Path) -> None:
    try:
        await opened(stage)
    except StageFailed as error:
        _send(connection, str(error))
        connection.close()
        return
    name = f"{socket.gethostname()}-{os.getpid()}"
    tasks: asyncio.Queue[Task | None] = asyncio.Queue()
    _read_in_thread(connection, tasks)
    _send(connection, READY)
    places = asyncio.Semaphore(stage.concurrency)
    running: set[asyncio.Task[None]] = set()

    async def do(task: Task) -> None:
        try:
            _send(connection, await work(stage, task, seed, blobs, name))
        finally:
            places.release()

    while True:
        await places.acquire()
        task = await tasks.get()
        if task is None:
            break
        running.add(started := asyncio.create_task(do(task)))
        started.add_done_callback(running.discard)
    if running:
        await asyncio.wait(running)
    await stage.close()


def _read_in_thread(connection: Connection, tasks: "asyncio.Queue[Task | None]") -> None:
    """Put what comes into the queue. A thread of its own sees the driver die even while a stage blocks the loop."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        task: Task | None
        while True:
            try:
                task = connection.recv()
            except (EOFError, OSError):
                os._exit(1)  # the driver is gone, and with it whoever would take the outcome
            loop.call_soon_threadsafe(tasks.put_nowait, task)
            if task is None:
                return

    threading.Thread(target=read, daemon=True, name="tasks").start()


def _send(connection: Connection, message: Outcome | str) -> None:
    try:
        connection.send(message)
    except OSError:
        os._exit(1)  # the driver is gone

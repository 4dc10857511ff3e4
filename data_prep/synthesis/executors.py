"""Where items are worked on: in this process, in processes of this machine, or on a Ray cluster (`ray_executor`)."""

import asyncio
import multiprocessing
import os
import time
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any

from data_prep.synthesis.serve import READY, StageFailed, opened, serve
from data_prep.synthesis.stage import Stage
from data_prep.synthesis.work import Outcome, Task, work

MAX_FAILED_STARTS = 3  # of workers in a row that die before they have done anything


@dataclass(frozen=True, slots=True)
class Job:
    """What workers need to know.

    Attributes:
        stage: whose items are worked on.
        seed: of the run.
        blobs: folder of the blob store.
        workers: side by side.
    """

    stage: Stage[Any, Any]
    seed: int
    blobs: Path
    workers: int


class Executor(ABC):
    """Workers of one stage, within a `with` block. Tasks go in, their outcomes come out in any order.

    Raises:
        StageFailed: on entering or later, where the stage cannot be opened or its workers die as they start.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.pending = 0  # submitted, and not yet collected

    @property
    def capacity_of_each(self) -> int:
        """Tasks that keep a worker busy: twice what it does at a time, so that it does not wait for the next."""
        return 2 * self.job.stage.concurrency

    @property
    def capacity(self) -> int:
        """Tasks that keep all workers busy."""
        return self.job.workers * self.capacity_of_each

    @property
    def room(self) -> int:
        """How many more tasks are taken."""
        return max(0, self.capacity - self.pending)

    @abstractmethod
    def __enter__(self) -> "Executor": ...

    @abstractmethod
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """End the workers: after an error at once, whatever they have in hand."""

    @abstractmethod
    def submit(self, tasks: list[Task]) -> None:
        """Hand tasks over."""

    @abstractmethod
    def collect(self, timeout: float) -> list[Outcome]:
        """Outcomes that are there, or that come within `timeout` seconds."""


class Inline(Executor):
    """One worker in this process, for tests and for looking at a fault with a debugger."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[Outcome]] = set()
        self._queue: deque[Task] = deque()

    def __enter__(self) -> "Inline":
        self._loop.run_until_complete(opened(self.job.stage))
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            self._loop.run_until_complete(asyncio.wait(self._tasks))
        self._loop.run_until_complete(self.job.stage.close())
        self._loop.close()

    def submit(self, tasks: list[Task]) -> None:
        """Hand tasks over; they are worked on while `collect` waits."""
        self._queue += tasks
        self.pending += len(tasks)

    def collect(self, timeout: float) -> list[Outcome]:
        """See `Executor`."""
        job = self.job
        while self._queue and len(self._tasks) < job.stage.concurrency:
            attempt = work(job.stage, self._queue.popleft(), job.seed, job.blobs, "inline")
            self._tasks.add(self._loop.create_task(attempt))
        if not self._tasks:
            return []
        waiting = asyncio.wait(self._tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        done, self._tasks = self._loop.run_until_complete(waiting)
        self.pending -= len(done)
        return [task.result() for task in done]


@dataclass(slots=True)
class _Worker:
    process: multiprocessing.process.BaseProcess
    connection: Connection
    ready: bool = False
    tasks: dict[str, Task] = field(default_factory=dict)  # in the order in which they were sent


class Local(Executor):
    """Processes of this machine, each with an event loop and `stage.concurrency` items at a time.

    Where one dies, it is replaced. What it had begun is lost, and is then done with nothing beside it, so that an item
    that kills its worker is known; what had only been sent to it goes to another.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._queue: deque[Task] = deque()
        self._workers: list[_Worker] = []
        self._outcomes: list[Outcome] = []
        self._failed_starts = 0

    def __enter__(self) -> "Local":
        self._workers = [self._start() for _ in range(self.job.workers)]
        return self

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")  # a fork would share locks and connections with the driver
        ours, theirs = context.Pipe()
        arguments = (theirs, self.job.stage, self.job.seed, self.job.blobs)
        process = context.Process(target=serve, args=arguments, daemon=True, name=f"synthesis-{self.job.stage.name}")
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for worker in self._workers:
            with suppress(OSError):
                if kind is None and not worker.tasks:
                    worker.connection.send(None)  # it closes its stage
                else:
                    worker.process.terminate()
        for worker in self._workers:
            worker.process.join(10)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()

    def submit(self, tasks: list[Task]) -> None:
        """See `Executor`."""
        self._queue += tasks
        self.pending += len(tasks)
        self._send()

    def _send(self) -> None:
        """Give each worker what it does now and as much again; an item that goes alone waits for an idle worker."""
        room = self.capacity_of_each
        for _ in range(room):  # in rounds, so that the last items are spread evenly
            for worker in self._workers:
                if not self._queue:
                    return
                alone = self._queue[0].alone
                busy = any(task.alone for task in worker.tasks.values())
                if worker.ready and not busy and len(worker.tasks) < (1 if alone else room):
                    task = self._queue.popleft()
                    worker.tasks[task.id] = task
                    with suppress(OSError):  # it is dead; `collect` sees that
                        worker.connection.send(task)

    def collect(self, timeout: float) -> list[Outcome]:
        """See `Executor`."""
        objects: list[Any] = [worker.connection for worker in self._workers]
        wait(objects, timeout)
        for number, worker in enumerate(self._workers):
            if not self._read(worker):
                self._bury(worker)
                self._workers[number] = self._start()
        self._send()
        outcomes, self._outcomes = self._outcomes, []
        self.pending -= len(outcomes)
        return outcomes

    def _read(self, worker: _Worker) -> bool:
        """Take what a worker has sent; False where it is dead."""
        try:
            while worker.connection.poll():
                message = worker.connection.recv()
                if isinstance(message, Outcome):
                    worker.tasks.pop(message.id)
                    self._outcomes.append(message)
                    self._failed_starts = 0
                elif message == READY:
                    worker.ready = True
                else:
                    raise StageFailed(message)
        except (EOFError, OSError):
            return False
        return True

    def _bury(self, worker: _Worker) -> None:
        worker.process.join(10)
        code = worker.process.exitcode
        worker.connection.close()
        started = list(worker.tasks.values())[: self.job.stage.concurrency]
        rest = list(worker.tasks.values())[self.job.stage.concurrency :]
        self._queue.extendleft(reversed(rest))
        message = f"exit code {code}" if code is None or code >= 0 else f"signal {-code}"
        now = time.time()
        self._outcomes += [Outcome(task.id, "lost", message=message, started=now) for task in started]
        if not started:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise StageFailed(f"{self.job.stage.name}: workers die as they start ({message})")


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))

"""Items on Ray: actors, here or on a cluster, each with an event loop and `stage.concurrency` items at a time.

Ray only carries tasks to workers and outcomes back; what is done stands in the ledger. So a lost actor or node costs
what it had in hand, and a cluster that is gone costs nothing: the run goes on with any executor. All nodes must see the
run's folder at the same path, and have this package.
"""

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from data_prep.synthesis.executors import MAX_FAILED_STARTS, Executor, Job
from data_prep.synthesis.serve import StageFailed, opened
from data_prep.synthesis.stage import Stage
from data_prep.synthesis.work import Outcome, Task, work

ROOT = Path(__file__).parents[2]
START_SECONDS = 300  # an engine may load weights first


class RayWorker:
    """An actor. Its methods run in one event loop, so that items wait for servers side by side."""

    def __init__(self, stage: Stage[Any, Any], seed: int, blobs: Path) -> None:
        self.stage, self.seed, self.blobs = stage, seed, blobs
        self.name = f"ray-{os.uname().nodename}-{os.getpid()}"

    async def open(self) -> None:
        """See `serve.opened`."""
        await opened(self.stage)

    async def work(self, task: Task) -> Outcome:
        """See `work.work`."""
        return await work(self.stage, task, self.seed, self.blobs, self.name)

    async def close(self) -> None:
        """End what the stage has started."""
        await self.stage.close()


class OnRay(Executor):
    """Actors of a Ray cluster; needs the extra `ray`.

    Args:
        job: what to do.
        address: of the cluster, as `ray.init` takes it ("auto": the one that this node belongs to); None starts Ray
            here, with as many CPUs as there are workers.
    """

    def __init__(self, job: Job, address: str | None) -> None:
        super().__init__(job)
        try:
            import ray
        except ImportError:
            raise StageFailed("execution.executor=ray needs Ray; pip install -e '.[ray]'") from None
        self.ray, self.address = ray, address
        self._actors: list[Any] = []
        self._running: dict[Any, tuple[int, Task]] = {}  # by Ray's reference of the outcome: which actor, which task
        self._waiting: list[Task] = []
        self._outcomes: list[Outcome] = []
        self._failed_starts = 0
        self._ours = False

    def __enter__(self) -> "OnRay":
        if not self.ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            here = {} if self.address else {"num_cpus": self.job.workers, "include_dashboard": False}
            paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
            environment = {"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}}
            try:
                self.ray.init(
                    self.address or "local", runtime_env=environment, log_to_driver=False, logging_level="error", **here
                )
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise StageFailed(f"Ray: {error}; see execution.ray_address") from None
            self._ours = True
        self._actors = [self._start() for _ in range(self.job.workers)]
        return self

    def _start(self) -> Any:
        kind = self.ray.remote(num_cpus=1, max_concurrency=self.job.stage.concurrency, max_restarts=0)(RayWorker)
        actor = kind.remote(self.job.stage, self.job.seed, self.job.blobs.resolve())
        try:
            self.ray.get(actor.open.remote(), timeout=START_SECONDS)
        except self.ray.exceptions.GetTimeoutError:
            message = f"no actor came up in {START_SECONDS} s; has the cluster free CPUs, and this package?"
            raise StageFailed(f"{self.job.stage.name}: {message}") from None
        except self.ray.exceptions.RayTaskError as error:
            raise StageFailed(str(error.cause)) from None
        except self.ray.exceptions.RayActorError:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise StageFailed(f"{self.job.stage.name}: Ray's actors die as they start") from None
            return self._start()
        return actor

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            for actor in self._actors:
                try:
                    self.ray.get(actor.close.remote(), timeout=10)
                except (self.ray.exceptions.RayError, TimeoutError):
                    continue
        for actor in self._actors:
            self.ray.kill(actor)
        if self._ours:
            self.ray.shutdown()

    def submit(self, tasks: list[Task]) -> None:
        """See `Executor`."""
        self._waiting += tasks
        self.pending += len(tasks)
        self._send()

    def _send(self) -> None:
        room = self.capacity_of_each
        while self._waiting:
            task = self._waiting[0]
            loads = [
                [running for at, running in self._running.values() if at == number]
                for number in range(len(self._actors))
            ]
            free = [
                number
                for number, load in enumerate(loads)
                if len(load) < (1 if task.alone else room) and not any(one.alone for one in load)
            ]
            if not free:
                return
            number = min(free, key=lambda one: len(loads[one]))
            self._running[self._actors[number].work.remote(task)] = number, task
            del self._waiting[0]

    def collect(self, timeout: float) -> list[Outcome]:
        """See `Executor`."""
        if self._running:
            done, _ = self.ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
            if not done:
                done, _ = self.ray.wait(list(self._running), num_returns=1, timeout=timeout)
            for reference in done:
                if reference in self._running:  # not one of an actor that was buried meanwhile
                    self._take(reference)
        self._send()
        outcomes, self._outcomes = self._outcomes, []
        self.pending -= len(outcomes)
        return outcomes

    def _take(self, reference: Any) -> None:
        try:
            self._outcomes.append(self.ray.get(reference))
            del self._running[reference]
        except self.ray.exceptions.RayError as error:
            self._bury(self._running[reference][0], str(error).splitlines()[0])

    def _bury(self, number: int, message: str) -> None:
        """Replace an actor. What it may have begun is lost; what was only sent to it goes to another."""
        mine = {reference: task for reference, (at, task) in self._running.items() if at == number}
        begun = self.job.stage.concurrency
        for place, (reference, task) in enumerate(mine.items()):
            del self._running[reference]
            if place < begun:
                self._outcomes.append(Outcome(task.id, "lost", message=message, started=time.time()))
            else:
                self._waiting.insert(0, task)
        self._actors[number] = self._start()

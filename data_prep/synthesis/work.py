"""One item through its attempts: what a worker does, in whatever process it lives."""

import errno
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data_prep.synthesis.seeds import generator
from data_prep.synthesis.stage import Attempt, BackendError, Cost, Refused, Retry, Stage
from omnichat.secrets import masked

MAX_MESSAGE = 500  # characters
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Task:
    """An item as it goes to a worker.

    Attributes:
        id: of the item.
        input: JSON of the stage's `takes`.
        first_attempt: number of the first attempt: those before were made in vain, before a `retry`.
        alone: a worker has died at it, so that nothing else is done beside it.
    """

    id: str
    input: str
    first_attempt: int = 0
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task.

    Attributes:
        id: of the item.
        status: "lost" where the worker died before it could tell.
        output: JSON of the stage's `gives`.
        reason, message: of a rejection; "disk_full" and "backend" are none of the item's, and stop the run.
        attempts: that were made, those before the task included.
        refusals: reason of each attempt that failed, in order.
        cost: of all attempts.
        started: seconds since 1970.
        seconds: that the worker had the item.
        worker: who did it.
    """

    id: str
    status: Literal["done", "rejected", "lost"]
    output: str | None = None
    reason: str = ""
    message: str = ""
    attempts: int = 0
    refusals: tuple[str, ...] = ()
    cost: Cost = field(default_factory=Cost)
    started: float = 0.0
    seconds: float = 0.0
    worker: str = ""


async def work(stage: Stage[Any, Any], task: Task, seed: int, blobs: Path, worker: str) -> Outcome:
    """Try the item until it is made, refused for good, or out of attempts. Raises nothing but what ends the worker."""
    started, clock = time.time(), time.perf_counter()
    cost, refusals = Cost(), []
    number, reason, message, output = task.first_attempt, "", "", None
    while output is None:
        attempt = Attempt(number, generator(seed, task.id, number), blobs, last_reason=reason)
        number += 1
        retry = False
        try:
            output = (await stage.run(stage.takes.model_validate_json(task.input), attempt)).model_dump_json()
        except Refused as error:
            reason, message, retry = error.reason, error.message, isinstance(error, Retry)
        except BackendError as error:
            reason, message = "backend", str(error)
        except Exception as error:
            reason, message = ("disk_full" if _full(error) else "internal"), _last_line(error)
        _add(cost, attempt.cost)
        if output is None:
            refusals.append(reason)
            if not retry or number >= task.first_attempt + stage.max_attempts:
                break
    return Outcome(
        id=task.id,
        status="rejected" if output is None else "done",
        output=output,
        reason=reason if output is None else "",
        message=str(masked(message))[:MAX_MESSAGE] if output is None else "",
        attempts=number,
        refusals=tuple(refusals),
        cost=cost,
        started=started,
        seconds=time.perf_counter() - clock,
        worker=worker,
    )


def _add(total: Cost, cost: Cost) -> None:
    for name in Cost.__slots__:
        setattr(total, name, getattr(total, name) + getattr(cost, name))


def _full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in FULL


def _last_line(error: Exception) -> str:
    """The error and where it was raised: all that is kept of a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}".strip().splitlines()[-1] + place

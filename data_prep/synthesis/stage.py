"""What a stage is, whoever runs it: here, in another process, or on another machine."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from data_prep.synthesis.contracts import REASONS, Contract

In = TypeVar("In", bound=Contract)
Out = TypeVar("Out", bound=Contract)


class Refused(Exception):
    """An attempt that gave nothing usable. `reason` is a key of `REASONS`; the message says what was found."""

    def __init__(self, reason: str, message: str) -> None:
        assert reason in REASONS, f"{reason!r} is missing in REASONS"
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type["Refused"], tuple[str, str]]:
        # Workers send it between processes.
        return type(self), (self.reason, self.message)


class BackendError(RuntimeError):
    """What a stage works with is missing or refuses altogether; the message says which and how to mend it."""


class Retry(Refused):
    """Try again with another seed, up to the stage's number of attempts."""


class Reject(Refused):
    """Another attempt would end the same way."""


@dataclass(slots=True)
class Cost:
    """What an attempt used, for the report and for `estimate`."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    audio_seconds: float = 0.0


@dataclass(slots=True)
class Attempt:
    """One attempt at one item.

    Attributes:
        number: from 0.
        rng: Philox, keyed by the run's seed, the item and the number of the attempt: the result depends on nothing
            else, whatever the order and the worker.
        blobs: folder of the blob store.
        cost: to be filled in by the stage as it spends, so that a refused attempt is counted too.
        last_reason: why the attempt before this one was refused; "" for the first.
    """

    number: int
    rng: np.random.Generator
    blobs: Path
    cost: Cost = field(default_factory=Cost)
    last_reason: str = ""


class Stage(ABC, Generic[In, Out]):
    """A kind of work on items that do not depend on each other. It is pickled to where it runs.

    Attributes:
        name: of the stage in the ledger.
        version: changes when the same input would give another result; items of an older version are made again.
        takes, gives: contracts of input and output.
        max_attempts: of an item; the last refusal becomes the item's.
        concurrency: attempts side by side in one worker: 1 for work on the CPU, more where a server is waited for.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    takes: type[In]
    gives: type[Out]
    max_attempts: int = 1
    concurrency: int = 1

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """What the result depends on besides the input (engine, model, prompt, thresholds), as JSON.

        Addresses, keys, batch sizes and workers are no part of it.
        """

    async def open(self) -> None:
        """Start what the worker keeps (an engine's process, connections). Called once per worker.

        Raises:
            BackendError: it cannot be started, so that no item could be made.
        """
        return None

    @abstractmethod
    async def run(self, item: In, attempt: Attempt) -> Out:
        """One attempt.

        Raises:
            Retry: a further attempt may do better.
            Reject: none would.
        """

    async def close(self) -> None:
        """End what `open` started."""
        return None

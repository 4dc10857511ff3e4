"""What one optimizer step saw and how long it took, without asking the device for anything before it is logged."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

import torch
from torch import Tensor

from omnichat.batch import PackedBatch
from omnichat.models.omnichat import Losses


@dataclass(frozen=True)
class Moment:
    """A place in time.

    Attributes:
        host: seconds of the clock.
        event: where the host hands its work to a GPU and goes on: this place in that work.
    """

    host: float
    event: torch.cuda.Event | None = None

    @classmethod
    def now(cls) -> "Moment":
        """Where the work that was handed to the GPU so far ends, if there is any; else by the clock alone."""
        if not torch.cuda.is_initialized():
            return cls(perf_counter())
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return cls(perf_counter(), event)

    def until(self, later: "Moment") -> float:
        """Seconds from here; of a GPU's own time, once it has come so far."""
        if self.event is None or later.event is None:
            return later.host - self.host
        later.event.synchronize()
        return float(self.event.elapsed_time(later.event)) / 1000


@dataclass
class StepSums:
    """What one optimizer step saw, summed over its micro-batches; tensors stay on the device until they are logged.

    Its seconds are those of training alone: neither what comes before the first step nor validation nor saving.

    Attributes:
        skipped: whether the step was left out; a tensor where only the device knows as yet.
    """

    losses: list[Losses] = field(default_factory=list)
    batches: list[PackedBatch] = field(default_factory=list)
    gradient_norms: dict[str, Tensor] = field(default_factory=dict)
    waited: float = 0.0
    learning_rate: float = 0.0
    skipped: bool | Tensor = False
    saves: list[tuple[Moment, Moment]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """The step begins now, with waiting for its data."""
        self.started = self.ended = Moment.now()
        self.asked = self.started.host
        self._begun_after = len(self.saves)

    def ask(self) -> None:
        """From now on data is waited for."""
        self.asked = perf_counter()

    def got(self) -> None:
        """The data is there."""
        self.waited += perf_counter() - self.asked

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """What is done inside is saving, and neither the step nor waiting for its data."""
        begun = Moment.now()
        yield
        self.saves.append((begun, Moment.now()))
        self.asked += perf_counter() - begun.host

    def followed(self) -> "StepSums":
        """The sums of the next step, which begins where this one ends."""
        following = StepSums()
        self.ended = following.started
        return following

    @property
    def saving(self) -> float:
        """Seconds of the saves after the step before."""
        return sum(begun.until(done) for begun, done in self.saves)

    @property
    def seconds(self) -> float:
        """Of the step; on a GPU it is waited for."""
        saving = sum(begun.until(done) for begun, done in self.saves[self._begun_after :])
        return max(self.started.until(self.ended) - saving, 1e-9)

"""The data of a run, as Lightning takes it: batches for training from any step on, and for validation.

The position in the data is the step alone (`omnichat.data.steps`). Lightning's own restoring of loaders is not used: it
repeats and loses samples.
"""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from omnichat.batch import PackedBatch, pack
from omnichat.data.dataset import StoreDataset
from omnichat.data.shares import Shares
from omnichat.data.steps import StepBatches, Steps
from omnichat.dialogue import DataError

T = TypeVar("T")


class StoreBatches:
    """The batches of one rank over whole stores, each dialogue once over all ranks, as many batches on every rank.

    Raises:
        ValueError: fewer dialogues than ranks.
    """

    def __init__(self, datasets: Sequence[StoreDataset], batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.datasets = tuple(datasets)
        places = [(number, row) for number, dataset in enumerate(self.datasets) for row in range(len(dataset))]
        if len(places) < world_size or batch_size < 1:
            raise ValueError(
                f"{len(places)} held-out dialogues cannot be shared by {world_size} ranks in batches of {batch_size}; "
                "raise trainer.validation_dialogues, give data.val more, or set trainer.validate_every=0"
            )
        count = min(-(-len(places) // (batch_size * world_size)), len(places) // world_size)
        self._batches = [
            [places[place] for place in np.array_split(batch, world_size)[rank]]
            for batch in np.array_split(np.arange(len(places)), count)
        ]

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._batches)

    def __getitem__(self, number: int) -> PackedBatch:
        """A packed batch; the loss over the whole set is the sum over batches divided by the sum of targets."""
        return pack([self.datasets[dataset][row] for dataset, row in self._batches[number]])


class DialogueModule(LightningDataModule):
    """The data of a run.

    Args:
        steps: the stream to train on, cut into steps.
        max_steps: steps of the run.
        val: stores to validate on, together.
        val_batch_size: dialogues of a validation batch.
        num_workers: processes that prepare batches; 0 for none.
        start_step: the first step to train, the whole of the data's state.
    """

    def __init__(
        self,
        steps: Steps,
        max_steps: int,
        val: Sequence[StoreDataset] = (),
        val_batch_size: int = 8,
        num_workers: int = 0,
        start_step: int = 0,
    ) -> None:
        super().__init__()
        self.steps, self.dataset, self.max_steps = steps, steps.dataset, max_steps
        self.val, self.val_batch_size = tuple(val), val_batch_size
        self.num_workers, self.start_step = num_workers, start_step

    def train_dataloader(self) -> DataLoader[Any]:
        """Micro-batches of this rank from `start_step` to the end of the run."""
        accumulation, rank, world_size = 1, 0, 1
        if self.trainer is not None:
            accumulation = self.trainer.accumulate_grad_batches
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        batches = StepBatches(self.steps, accumulation, rank, world_size)
        batches.check(self.max_steps)
        return make_loader(
            batches, range(self.start_step * accumulation, self.max_steps * accumulation), self.num_workers
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Batches of this rank over all validation stores."""
        if not self.val:
            return []
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        batches = StoreBatches(self.val, self.val_batch_size, rank, world_size)
        return make_loader(batches, range(len(batches)), self.num_workers)

    def passes(self, steps: int) -> Mapping[str, float]:
        """How often each source that is drawn will have been walked through after so many steps."""
        passes = dict(zip(self.dataset.names, self.dataset.mixture.passes(self.steps.start(steps)), strict=True))
        return {name: passes[name] for name, _ in self.dataset.drawn_scans()}

    def shares(self) -> Shares:
        """What is drawn of each source before `start_step`, for the run to count on."""
        return self.dataset.shares(self.steps.start(self.start_step))


def make_loader(batches: StepBatches | StoreBatches, numbers: range, num_workers: int = 0) -> DataLoader[Any]:
    """A loader of the batches with these numbers, in order. A `DataError` in a worker arrives as itself."""
    return _Loader(
        _Caught(batches.__getitem__),  # type: ignore[arg-type]
        batch_size=None,
        sampler=numbers,
        num_workers=num_workers,
        collate_fn=_same,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_outlive_signals,
    )


def _outlive_signals(worker: int) -> None:
    """Leave an orderly stop to the process that trains: schedulers and Ctrl-C signal the workers too, at once.

    One that died of it would end the run with an error, before the save. It ends by itself when that process does.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


class _Caught:
    """Hands a `DataError` over as a value: torch's workers would make it a RuntimeError with a traceback for a text."""

    def __init__(self, get: Callable[[int], PackedBatch]) -> None:
        self.get = get

    def __getitem__(self, number: int) -> PackedBatch | DataError:
        try:
            return self.get(number)
        except DataError as error:
            return error


class _Loader(DataLoader[Any]):
    def __iter__(self) -> Iterator[PackedBatch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, DataError):
                raise batch
            yield batch


def _same(item: T) -> T:
    return item

"""Steps: the same dialogues whatever the ranks, micro-batches, workers and restarts."""

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from omnichat.batch import PackedBatch, to_device
from omnichat.data.dataset import DialogueDataset, StoreDataset
from omnichat.data.made_up import made_up_dialogues
from omnichat.data.module import DialogueModule, StoreBatches, make_loader
from omnichat.data.scan import scan
from omnichat.data.steps import StepBatches, Steps
from omnichat.data.store import Store
from omnichat.dialogue import DataError
from omnichat.prompt import Prompt


@pytest.fixture
def stream(tmp_path: Path, prompt: Prompt) -> DialogueDataset:
    """Eleven synthetic and five real dialogues at alpha 0.3."""
    scans = {}
    for name, count in (("synthetic", 11), ("real", 5)):
        made_up_dialogues(tmp_path / name, count)
        scans[name] = scan(Store(tmp_path / name / "train.jsonl"), prompt)
    return DialogueDataset(scans, {"synthetic": 0.3, "real": 0.7}, prompt)


def flat(batches: list[PackedBatch]) -> list[tuple[Any, ...]]:
    """What identifies batches, down to their samples."""
    return [(batch.indices, batch.ids.tolist(), batch.waves.sum().item(), batch.global_targets) for batch in batches]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("size", [{"dialogues": 4}, {"tokens": 700}])
def test_workers_and_restarts_change_nothing(stream: DialogueDataset, size: dict[str, int]) -> None:
    """The position is one integer: from step 3 on, with any number of workers, come the same batches."""
    whole = flat(list(make_loader(StepBatches(Steps(stream, **size), accumulation=2), range(0, 12))))
    for num_workers in (0, 1, 2, 4):
        batches = StepBatches(Steps(stream, **size), accumulation=2)  # which has walked no step yet
        assert flat(list(make_loader(batches, range(6, 12), num_workers))) == whole[6:]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_shared_prefix_travels(stream: DialogueDataset, num_workers: int) -> None:
    """Lost between a worker and the model, it would be a key without effect."""
    batches = StepBatches(Steps(stream, 2, share_prefix=True))
    for batch in make_loader(batches, range(3), num_workers):
        moved = to_device(batch, torch.device("meta"))
        assert moved.shared is not None
        assert moved.shared.length == batch.shared.length > 0
        assert moved.shared.keys.device.type == "meta"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_data_error_in_a_worker_arrives_as_itself(stream: DialogueDataset, num_workers: int) -> None:
    """torch would make it a RuntimeError with a traceback; the good batches before it still come."""
    batches = StepBatches(Steps(stream, 2))
    broken = stream[5].tokens.slots[0].audio.path
    Path(broken).unlink()
    arrived: list[PackedBatch] = []
    with pytest.raises(DataError, match=r"^.*/train\.jsonl:\d+: dialogue .*: turn \d: .*\[no_file\]$") as caught:
        arrived.extend(make_loader(batches, range(10), num_workers))
    assert caught.value.reason == "no_file"
    assert broken in str(caught.value)
    first = next(index for index in range(6) if broken in _paths(stream, index))
    assert len(arrived) == first // 2


def _paths(stream: DialogueDataset, index: int) -> set[str]:
    source, place = stream.mixture[index]
    part = stream.scans[stream.names[source]]
    return {turn.audio.path for turn in part.store[int(part.rows[place])].turns if turn.audio is not None}


@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (4, 1), (4, 2), (1, 3), (100, 4), (3, 16)])
def test_validation_sees_each_dialogue_once_over_all_ranks(
    tmp_path: Path, prompt: Prompt, batch_size: int, world_size: int
) -> None:
    """A dialogue twice, or never, changes the figure; a rank with fewer batches hangs the others."""
    for name, count in (("a", 9), ("b", 8)):
        made_up_dialogues(tmp_path / name, count, split=name)
    datasets = [StoreDataset(tmp_path / name / f"{name}.jsonl", prompt) for name in ("a", "b")]
    ranks = [StoreBatches(datasets, batch_size, rank, world_size) for rank in range(world_size)]
    assert len({len(rank) for rank in ranks}) == 1
    seen = [name for rank in ranks for number in range(len(rank)) for name in rank[number].dialogue_ids]
    assert sorted(seen) == sorted([f"a-{n}" for n in range(9)] + [f"b-{n}" for n in range(8)])
    with pytest.raises(ValueError, match=r"17 held-out dialogues cannot be shared by 18 ranks .*validation_dialogues"):
        StoreBatches(datasets, batch_size, 0, 18)


class Recorder(pl.LightningModule):
    """Keeps what Lightning hands it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, PackedBatch]] = []
        self.validated: list[PackedBatch] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Any optimizer: the weights are not looked at."""
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch: PackedBatch, batch_idx: int) -> torch.Tensor:
        """Keep the step and its batch."""
        self.seen.append((self.global_step, batch))
        return self.weight.sum()

    def validation_step(self, batch: PackedBatch, batch_idx: int) -> None:
        """Keep the batch."""
        self.validated.append(batch)


def test_lightning_trains_on_exactly_these_steps(stream: DialogueDataset, tmp_path: Path, prompt: Prompt) -> None:
    """Through a real Trainer: accumulation, the last step, validation, and batches that are still `PackedBatch`es."""
    made_up_dialogues(tmp_path / "val", 5)
    val = StoreDataset(tmp_path / "val" / "train.jsonl", prompt)
    data = DialogueModule(Steps(stream, 4), max_steps=6, val=[val], val_batch_size=2, start_step=2)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=4,  # this process's own: two of the six were trained before
        accumulate_grad_batches=2,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    model = Recorder()
    trainer.fit(model, datamodule=data)
    assert [step for step, _ in model.seen] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert all(isinstance(batch, PackedBatch) for _, batch in model.seen)
    for step in range(4):
        indices = sorted(index for seen, batch in model.seen if seen == step for index in batch.indices)
        assert indices == list(range(4 * (step + 2), 4 * (step + 3)))
    assert sorted(name for batch in model.validated for name in batch.dialogue_ids) == [f"train-{n}" for n in range(5)]


def test_passes_tell_how_often_each_source_is_walked(stream: DialogueDataset) -> None:
    """At a small alpha's complement a small corpus is walked hundreds of times: it must be said."""
    data = DialogueModule(Steps(stream, 8), max_steps=100)
    passes = data.passes(100)
    drawn = stream.mixture.counts(800)
    assert passes == {"synthetic": drawn[0] / 11, "real": drawn[1] / 5}


class Marked:
    """Batches that leave a file when they are begun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, number: int) -> int:
        (self.folder / str(number)).touch()
        return number


def test_workers_prepare_batches_while_a_step_runs(tmp_path: Path) -> None:
    """A loader that starts on a batch only when it is asked for lets the device wait for all of it, in every step."""
    batches = iter(make_loader(Marked(tmp_path), range(12), num_workers=1))  # type: ignore[arg-type]
    for number in range(10):
        assert next(batches) == number
        deadline = time.monotonic() + 60
        while not (tmp_path / str(number + 1)).exists():  # the step goes on until then: nobody asks for the next
            assert time.monotonic() < deadline, f"batch {number + 1} waits to be asked for"
            time.sleep(0.01)

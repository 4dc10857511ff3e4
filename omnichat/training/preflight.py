"""Before the first step: what would end the run hours later is found now, and the hours are estimated."""

import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor, nn

from omnichat.audio import SAMPLE_RATE
from omnichat.batch import Example, PackedBatch, pack
from omnichat.checkpoint import Checkpoint, trainable
from omnichat.config import RunConfig
from omnichat.data.dataset import DialogueDataset
from omnichat.data.module import DialogueModule
from omnichat.dialogue import STYLE_FIELDS
from omnichat.models.omnichat import to_device
from omnichat.training.guard import TrainingError
from omnichat.training.module import OmniChatModule

COPIES = 3  # a checkpoint holds a weight and AdamW's two moments of it
AT_ONCE = 2  # checkpoints on the disk while one is written beside the other
BYTES = 4  # float32
LOOKED_THROUGH = 1_000  # places of the stream, for one dialogue of each source


class PreflightDone(Exception):
    """`preflight=only`: everything was looked at, nothing is to be trained."""


@dataclass(frozen=True)
class Trial:
    """Forward and backward of the largest micro-batch, twice: the seconds of each, the device's peak in bytes."""

    first: float
    seconds: float
    peak: int | None


class Preflight(pl.Callback):
    """Looks at versions, disk, memory and time when everything is in its place and nothing is trained yet.

    The weights, the moments and the random state of every step stay as they are.

    Args:
        data: of the run.
        run_dir: where checkpoints will be written.
        only: end here, with `PreflightDone`.

    Raises:
        TrainingError: the disk cannot hold two checkpoints.
    """

    def __init__(self, data: DialogueModule, run_dir: Path, only: bool) -> None:
        self.data, self.run_dir, self.only = data, run_dir, only

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print what was found."""
        assert isinstance(pl_module, OmniChatModule)
        lines = [
            versions(trainer.strategy.root_device, trainer.world_size),
            disk(trainable(pl_module.model), self.run_dir),
        ]
        ahead = to_come(self.data, trainer.max_steps)
        if isinstance(trainer.strategy, DeepSpeedStrategy):
            lines.append("largest micro-batch: not tried, DeepSpeed would take its gradients for the first step's")
            lines.append(f"the run: {ahead}; its hours are not known, since nothing was tried")
        else:
            batch = pack(largest(self.data, trainer), share_prefix=self.data.steps.share_prefix)
            pl_module.current_batch = batch = to_device(batch, pl_module.device)  # named where memory runs out
            trial = try_out(lambda: _gradients(pl_module, batch), pl_module, pl_module.device)
            pl_module.current_batch = None
            hours = ahead.tokens / trainer.world_size * trial.seconds / len(batch.ids) / 3600
            lines.append(tried(_shape(batch), trial))
            lines.append(
                f"the run: {ahead}; about {hours:,.2f} h at this speed (estimated from the micro-batch above, "
                "without validation)"
            )
        if trainer.is_global_zero:
            say([*lines, *(shown(self.data.dataset, sys.stdout.isatty()) if self.only else [])])
        if self.only:
            raise PreflightDone


def shown(dataset: DialogueDataset, colour: bool) -> list[str]:
    """The first dialogue that is drawn of each source, as the model reads it, and what of it counts in the loss."""
    known = dataset.style_fields()
    without = [name for name in STYLE_FIELDS if name not in known]
    lines = [
        f"styles that are learnt: {', '.join(known) or 'none'}"
        + (f"; no dialogue knows {', '.join(without)}: replies will say unknown" if without else "")
    ]
    _, indices = np.unique(dataset.mixture.draw(0, LOOKED_THROUGH)[0], return_index=True)
    for example in map(dataset.__getitem__, indices.tolist()):
        text = dataset.prompt.show(example.tokens, colour).replace("\n", "\n    ")
        lines.append(f"{example.source}, {example.dialogue_id}: «style» and ⟦words⟧ are learnt\n    {text}")
    return lines


@dataclass(frozen=True)
class Ahead:
    """What a run still has before it: steps, dialogues, tokens, seconds of audio."""

    first_step: int
    last_step: int
    dialogues: int
    tokens: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"steps {self.first_step:,} to {self.last_step:,}, {self.dialogues:,} dialogues, {self.tokens:,.0f} "
            f"tokens, {self.seconds / 3600:,.2f} h heard"
        )


def to_come(data: DialogueModule, stop: int) -> Ahead:
    """What the steps from the data's first one to `stop` hold; the tokens of a long run by the mean of a part."""
    drawn = range(data.steps.start(data.start_step), data.steps.start(stop))
    sample = range(drawn.start, min(drawn.stop, drawn.start + 100_000))
    tokens = float(data.dataset.lengths(sample).mean()) * len(drawn)
    before, after = (data.dataset.shares(end).drawn.values() for end in (drawn.start, drawn.stop))
    seconds = sum(one.seconds for one in after) - sum(one.seconds for one in before)
    return Ahead(data.start_step + 1, stop, len(drawn), tokens, seconds)


def is_due(config: RunConfig, start: Checkpoint | None) -> bool:
    """Whether to look: where a run begins, and wherever `preflight=only` asks for it."""
    return config.preflight == "only" or (config.preflight == "auto" and start is None)


def say(lines: Sequence[str]) -> None:
    """Print what was found."""
    print("\n  ".join(["preflight", *lines]), flush=True)


def versions(device: torch.device, ranks: int) -> str:
    """What computes, and with which libraries."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    packages = ", ".join(f"{package} {version(package)}" for package in ("torch", "lightning", "transformers", "peft"))
    return f"{ranks} x {name}; python {platform.python_version()}, {packages}"


def disk(trained: Mapping[str, Tensor], run_dir: Path) -> str:
    """What a checkpoint takes, and what is free.

    Raises:
        TrainingError: the disk cannot hold two checkpoints.
    """
    # ZeRO-3 leaves nothing of a parameter in its place but the size it has.
    size = COPIES * BYTES * sum(int(getattr(one, "ds_numel", one.numel())) for one in trained.values())
    free = shutil.disk_usage(run_dir).free
    if free < AT_ONCE * size:
        raise TrainingError(
            f"{run_dir}: a checkpoint takes {_bytes(size)} and {AT_ONCE} must fit, but {_bytes(free)} are "
            "free; free disk space, or train on another disk with hydra.run.dir=FOLDER"
        )
    return f"disk: a checkpoint takes {_bytes(size)}, {_bytes(free)} are free"


def largest(data: DialogueModule, trainer: pl.Trainer) -> list[Example]:
    """The largest micro-batch that a rank can get: as many of the longest dialogues as it may hold, and no more read.

    Where there are fewer, they come again, as they do in a step.
    """
    parts = trainer.world_size * trainer.accumulate_grad_batches
    if data.steps.dialogues is not None:
        count = -(-data.steps.dialogues // parts)
    else:
        lengths = np.sort(np.concatenate([part.lengths for _, part in data.dataset.drawn_scans()]))[::-1]
        budget = (data.steps.tokens or 0) // parts
        again = np.tile(lengths, 1 + budget // int(lengths.sum()))
        count = max(1, int(np.searchsorted(np.cumsum(again), budget, side="right")))
    return [*islice(cycle(data.dataset.longest(count)), count)]


def try_out(gradients: Callable[[], object], model: nn.Module, device: torch.device) -> Trial:
    """Forward and backward, twice: the second time without what only the first call has to do.

    Args:
        gradients: adds to the gradients of the model, which are dropped.
        model: that is trained.
        device: where it computes.
    """
    seconds: list[float] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(2):
        started = perf_counter()
        gradients()
        model.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(perf_counter() - started)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Trial(seconds[0], seconds[1], peak)


def tried(batch: str, trial: Trial) -> str:
    """How the largest micro-batch went; `batch` says what it holds."""
    peak = f", peak {_bytes(trial.peak)}" if trial.peak is not None else ""
    return f"largest micro-batch: {batch}; forward and backward {trial.seconds:.2f} s{peak}"


def _gradients(module: OmniChatModule, batch: PackedBatch) -> None:
    with module.trainer.precision_plugin.train_step_context():
        loss = module.model(batch).total / max(1, batch.num_targets)
    loss.backward()


def _shape(batch: PackedBatch) -> str:
    longest = max(batch.wave_lengths.tolist(), default=0) / SAMPLE_RATE
    clips = f"{len(batch.wave_lengths)} clips of at most {longest:.1f} s"
    return f"{len(batch.dialogue_ids)} dialogues, {len(batch.ids):,} tokens, {clips}"


def _bytes(count: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count //= 1024
    return f"{count:,.0f} GiB"

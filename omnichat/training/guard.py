"""What can go wrong inside a step: numbers that are not finite, memory, a worker, another rank; each named."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.optim import Optimizer

from omnichat.audio import SAMPLE_RATE
from omnichat.batch import PackedBatch
from omnichat.checkpoint import in_parts, trainable
from omnichat.run_folder import SKIPPED_FILE
from omnichat.training.module import OmniChatModule
from omnichat.training.optim import Verdict, leave_out_unless, leaves_out_by_itself

IN_A_ROW = 3  # ours: one bad step may be a bad sample, three are a diverged model


class TrainingError(ValueError):
    """Training cannot go on; the message says in which step, with which dialogues, and what to do."""


class SkippedSteps:
    """Steps that are left out, on record in `skipped.jsonl`; too many in a row end the run.

    Args:
        run_dir: of the run.
        what: a step is made of: the record's key of their names.
    """

    def __init__(self, run_dir: Path, what: str = "dialogues") -> None:
        self.path, self.what = run_dir / SKIPPED_FILE, what
        self._in_a_row = 0

    def sound(self) -> None:
        """A step was finite."""
        self._in_a_row = 0

    def leave_out(self, step: int, rank: int, indices: Sequence[int], names: Sequence[str], possible: bool) -> None:
        """Note a step whose gradients are not finite, before it is left out.

        Args:
            step: that is being trained, from 1 on.
            rank: that tells.
            indices: of the stream.
            names: of what was drawn there.
            possible: False where the engine takes the step in any case.

        Raises:
            TrainingError: three such steps in a row, or it cannot be left out; the disk refuses.
        """
        self._in_a_row += 1
        record = {"step": step, "rank": rank, "indices": list(indices), self.what: list(names)}
        try:
            with self.path.open("a", encoding="utf-8") as out:
                out.write(json.dumps(record, ensure_ascii=False) + "\n")
        except OSError as error:
            raise TrainingError(
                f"{self.path}: step {step}, whose gradients are not finite, cannot be noted ({error.strerror}); free "
                "disk space, and the same command goes on from the last checkpoint"
            ) from None
        where = f"step {step}: the gradients are not finite, {self.what} {', '.join(names[:8])} of rank {rank}"
        if not possible or self._in_a_row == IN_A_ROW:
            raise TrainingError(
                f"{where} (all in {self.path}); "
                + (f"{IN_A_ROW} steps in a row" if possible else "this DeepSpeed takes the step nevertheless")
                + f": the last checkpoint is sound; lower trainer.learning_rate, or look at these {self.what}' audio"
            )
        print(f"{where}; the step is left out", flush=True)


class Drawn(NamedTuple):
    """A step and what was drawn for it: indices of the stream, and their dialogues."""

    step: int
    rank: int
    indices: list[int]
    names: list[str]


class NonFiniteGuard(pl.Callback):
    """Leaves out a step whose gradients are not finite: weights and moments stay as they were.

    The dialogues of the step are written to `skipped.jsonl`; `optim/skipped` is logged, 1 at such a step and else 0.
    The norms are logged too, as `grad_norm/mixformer` and `grad_norm/lora`: of the global batch, before clipping.
    A GPU leaves the step out by itself, and is asked for it while it computes the next: to wait for its answer would
    leave it without work. So such a step is told of one step later there, but always before a save.
    DeepSpeed keeps its gradients to itself, and leaves such a step out by itself too: it is asked after each step, and
    what it says is written and logged alike; there are no norms.

    Raises:
        TrainingError: three such steps in a row; or a loss was not finite and DeepSpeed took the step nevertheless.
    """

    def __init__(self, run_dir: Path) -> None:
        self.skipped = SkippedSteps(run_dir)
        self._parts: dict[str, list[Parameter]] = {}
        self._asked: tuple[Drawn, Verdict] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What is trained stays the same parameters from here on; to look for them in each step would cost."""
        assert isinstance(pl_module, OmniChatModule)
        parts = in_parts(trainable(pl_module.model), "lora")
        self._parts = {part: [*parameters.values()] for part, parameters in parts.items() if parameters}

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """After the backward of the last micro-batch, before clipping."""
        assert isinstance(pl_module, OmniChatModule)
        if isinstance(trainer.strategy, DeepSpeedStrategy):
            return
        self.settle()
        sums = pl_module.step_sums
        sums.gradient_norms = {part: gradient_norm(parameters) for part, parameters in self._parts.items()}
        finite = torch.stack([*sums.gradient_norms.values()]).isfinite().all()
        sums.skipped = ~finite
        self._asked = _drawn(trainer.global_step + 1, pl_module), Verdict(finite)
        if leaves_out_by_itself(optimizer):
            leave_out_unless(finite, optimizer)
        elif not self.settle():
            # AdamW passes over parameters without a gradient: neither weights nor moments nor their step change.
            optimizer.zero_grad(set_to_none=True)

    def settle(self) -> bool:
        """Note the last step if it was left out; whether it was sound.

        Raises:
            TrainingError: see `SkippedSteps.leave_out`.
        """
        if self._asked is None:
            return True
        (drawn, verdict), self._asked = self._asked, None
        if verdict.sound():
            self.skipped.sound()
            return True
        self.skipped.leave_out(*drawn, possible=True)
        return False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ask DeepSpeed, before anything is saved."""
        assert isinstance(pl_module, OmniChatModule)
        inside = isinstance(trainer.strategy, DeepSpeedStrategy)
        if not inside or (batch_idx + 1) % trainer.accumulate_grad_batches != 0:
            return
        left_out = bool(getattr(trainer.optimizers[0], "overflow", False))
        if left_out or not _losses_are_finite(trainer, pl_module):
            pl_module.step_sums.skipped = True
            self.skipped.leave_out(*_drawn(trainer.global_step, pl_module), possible=left_out)
        else:
            self.skipped.sound()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last step is told of too."""
        self.settle()


def _drawn(step: int, module: OmniChatModule) -> Drawn:
    batches = module.step_sums.batches
    names = [name for batch in batches for name in batch.dialogue_ids]
    return Drawn(step, module.global_rank, [index for batch in batches for index in batch.indices], names)


def gradient_norm(parameters: Sequence[Parameter]) -> Tensor:
    """Over all shards; 0 where there is no gradient."""
    norm: Any = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    whole: Tensor = norm.full_tensor() if isinstance(norm, DTensor) else norm
    return whole.to(parameters[0].device)


def _losses_are_finite(trainer: pl.Trainer, module: OmniChatModule) -> bool:
    losses = torch.stack([loss.total for loss in module.step_sums.losses]).isfinite().all()
    return bool(trainer.strategy.reduce_boolean_decision(bool(losses), all=True))


@dataclass(frozen=True)
class Place:
    """Where training is: the step in hand, from 1 on, the rank, and what the micro-batch holds, in words.

    `smaller` says what makes a micro-batch need less memory.
    """

    step: int
    rank: int
    batch: str
    smaller: str


@contextmanager
def explained(place: Callable[[], Place]) -> Iterator[None]:
    """Turn what breaks a step from outside into a message that names the step and its cure.

    Args:
        place: asked for where the fault came.

    Raises:
        TrainingError: the device's memory, a data worker, or another rank is gone.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        at = place()
        raise TrainingError(
            f"step {at.step}: out of memory on the device ({str(error).splitlines()[0]}); the micro-batch held "
            f"{at.batch}. {at.smaller}"
        ) from None
    except RuntimeError as error:
        message, at = str(error), place()
        if "DataLoader worker" in message:
            raise TrainingError(
                f"step {at.step}: a data worker died ({message.splitlines()[0]}); most often the machine ran out "
                "of memory: lower data.num_workers, or set it to 0 to see the worker's own error"
            ) from None
        if _lost_a_rank(message):
            raise TrainingError(
                f"step {at.step}, rank {at.rank}: the connection to another rank is gone "
                f"({message.splitlines()[0][:200]}); that rank's own output says why it ended. "
                "The same command goes on from the last checkpoint"
            ) from None
        raise


def _lost_a_rank(message: str) -> bool:
    signs = ("Connection closed by peer", "Connection reset by peer", "NCCL", "ncclRemoteError", "Timed out waiting")
    return any(sign in message for sign in signs)


def place_of(module: OmniChatModule) -> Place:
    """Where a run that trains on dialogues is."""
    smaller = "Lower trainer.micro_batch or data.max_tokens, or set trainer.activation_checkpointing=true"
    return Place(module.global_step + 1, module.global_rank, _shape(module.current_batch), smaller)


def _shape(batch: PackedBatch | None) -> str:
    if batch is None:
        return "nothing yet"
    longest = max(batch.wave_lengths.tolist(), default=0)
    return (
        f"{len(batch.dialogue_ids)} dialogues ({', '.join(batch.dialogue_ids[:8])}), {len(batch.ids)} tokens, "
        f"{len(batch.wave_lengths)} clips of at most {longest / SAMPLE_RATE:.1f} s"
    )

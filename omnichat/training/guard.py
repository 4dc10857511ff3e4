"""What can go wrong inside a step: numbers that are not finite, memory, a worker, another rank; each named."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.optim import Optimizer

from omnichat.audio import SAMPLE_RATE
from omnichat.batch import PackedBatch
from omnichat.checkpoint import trainable
from omnichat.run_folder import SKIPPED_FILE
from omnichat.training.module import OmniChatModule

IN_A_ROW = 3  # ours: one bad step may be a bad sample, three are a diverged model


class TrainingError(ValueError):
    """Training cannot go on; the message says in which step, with which dialogues, and what to do."""


class NonFiniteGuard(pl.Callback):
    """Leaves out a step whose gradients are not finite: weights and moments stay as they were.

    The dialogues of the step are written to `skipped.jsonl`; `optim/skipped` is logged, 1 at such a step and else 0.
    The norms are logged too, as `grad_norm/mixformer` and `grad_norm/lora`: of the global batch, before clipping.
    DeepSpeed keeps its gradients to itself; under it the loss is watched, and the run ends before the step.

    Raises:
        TrainingError: three such steps in a row, or one under DeepSpeed.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / SKIPPED_FILE
        self._in_a_row = 0
        self._parts: dict[str, list[Parameter]] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What is trained stays the same parameters from here on; to look for them in each step would cost."""
        assert isinstance(pl_module, OmniChatModule)
        self._parts = {}
        for name, parameter in trainable(pl_module.model).items():
            self._parts.setdefault("mixformer" if name.startswith("mixformer.") else "lora", []).append(parameter)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """After the backward of the last micro-batch, before clipping."""
        assert isinstance(pl_module, OmniChatModule)
        inside = isinstance(trainer.strategy, DeepSpeedStrategy)
        norms = {} if inside else {part: _gradient_norm(parameters) for part, parameters in self._parts.items()}
        pl_module.step_sums.gradient_norms = norms
        if _losses_are_finite(trainer, pl_module) if inside else torch.stack([*norms.values()]).isfinite().all():
            self._in_a_row = 0
            return
        self._in_a_row += 1
        step = trainer.global_step + 1
        names = [name for batch in pl_module.step_sums.batches for name in batch.dialogue_ids]
        indices = [index for batch in pl_module.step_sums.batches for index in batch.indices]
        record = {"step": step, "rank": trainer.global_rank, "indices": indices, "dialogues": names}
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
        pl_module.step_sums.skipped = True
        where = f"step {step}: the gradients are not finite, dialogues {', '.join(names[:8])} of rank {record['rank']}"
        if inside or self._in_a_row == IN_A_ROW:
            raise TrainingError(
                f"{where} (all in {self.path}); "
                + ("under DeepSpeed a step cannot be left out" if inside else f"{IN_A_ROW} steps in a row")
                + ": the last checkpoint is sound; lower trainer.learning_rate, or look at these dialogues' audio"
            )
        print(f"{where}; the step is left out", flush=True)
        # AdamW passes over parameters without a gradient: neither weights nor moments nor their step change.
        optimizer.zero_grad(set_to_none=True)


def _gradient_norm(parameters: Sequence[Parameter]) -> Tensor:
    """Over all shards; 0 where there is no gradient."""
    norm: Any = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    whole: Tensor = norm.full_tensor() if isinstance(norm, DTensor) else norm
    return whole.to(parameters[0].device)


def _losses_are_finite(trainer: pl.Trainer, module: OmniChatModule) -> bool:
    losses = torch.stack([loss.total for loss in module.step_sums.losses]).isfinite().all()
    return bool(trainer.strategy.reduce_boolean_decision(bool(losses), all=True))


@contextmanager
def explained(module: OmniChatModule) -> Iterator[None]:
    """Turn what breaks a step from outside into a message that names the step and its cure.

    Raises:
        TrainingError: the device's memory, a data worker, or another rank is gone.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"step {_step(module)}: out of memory on the device ({str(error).splitlines()[0]}); the micro-batch held "
            f"{_shape(module.current_batch)}. Lower trainer.micro_batch or data.max_tokens, or set "
            "trainer.activation_checkpointing=true"
        ) from None
    except RuntimeError as error:
        message = str(error)
        if "DataLoader worker" in message:
            raise TrainingError(
                f"step {_step(module)}: a data worker died ({message.splitlines()[0]}); most often the machine ran out "
                "of memory: lower data.num_workers, or set it to 0 to see the worker's own error"
            ) from None
        if _lost_a_rank(message):
            raise TrainingError(
                f"step {_step(module)}, rank {module.global_rank}: the connection to another rank is gone "
                f"({message.splitlines()[0][:200]}); that rank's own output says why it ended. "
                "The same command goes on from the last checkpoint"
            ) from None
        raise


def _lost_a_rank(message: str) -> bool:
    signs = ("Connection closed by peer", "Connection reset by peer", "NCCL", "ncclRemoteError", "Timed out waiting")
    return any(sign in message for sign in signs)


def _step(module: OmniChatModule) -> int:
    return module.global_step + 1


def _shape(batch: PackedBatch | None) -> str:
    if batch is None:
        return "nothing yet"
    longest = max(batch.wave_lengths.tolist(), default=0)
    return (
        f"{len(batch.dialogue_ids)} dialogues ({', '.join(batch.dialogue_ids[:8])}), {len(batch.ids)} tokens, "
        f"{len(batch.wave_lengths)} clips of at most {longest / SAMPLE_RATE:.1f} s"
    )

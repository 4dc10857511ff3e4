"""The LightningModule: one step of the global-mean loss, validation by loss and by generation."""

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins import MixedPrecision
from numpy.polynomial import Polynomial
from torch import Tensor

from omnichat.audio import SAMPLE_RATE
from omnichat.batch import Example, PackedBatch
from omnichat.checkpoint import trainable
from omnichat.config import TrainerConfig
from omnichat.data.shares import UNITS, Drawn, Shares
from omnichat.dialogue import STYLE_FIELDS, Dialogue
from omnichat.metrics.emotion import weighted_f1
from omnichat.models.encoders import ENCODERS, Encoder
from omnichat.models.layers import compile_layers
from omnichat.models.omnichat import Losses, OmniChat
from omnichat.prompt import Prompt
from omnichat.training.breakdown import drawn_by_source, gates_by_scenario, loss_parts, part_metrics, qformer_norms
from omnichat.training.engines import shard, whole_model
from omnichat.training.flops import count_own, peak_flops, step_flops
from omnichat.training.optim import build_optimizer, learning_rate_at
from omnichat.training.reply_rows import RepliesLogger, reply_rows
from omnichat.training.step_sums import StepSums

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes; getrusage(2)


@dataclass(frozen=True)
class Holdout:
    """Held-out dialogues that validation answers by generation; `examples` end at the last assistant's header.

    `style_fields` are those that the training data knows.
    """

    dialogues: Sequence[Dialogue]
    examples: Sequence[Example]
    prompt: Prompt
    max_new_tokens: int
    batch_size: int
    style_fields: tuple[str, ...] = STYLE_FIELDS


class OmniChatModule(LightningModule):
    """Trains what `OmniChat` leaves trainable.

    The loss of a micro-batch is its sum over targets, divided by the targets of the *global* batch, which travel
    with the batch. Every other division is undone: by DDP over ranks, by Lightning over micro-batches.
    """

    strict_loading = False

    def __init__(
        self,
        model: OmniChat,
        config: TrainerConfig,
        seed: int,
        holdout: Holdout | None = None,
        shares: Shares | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        if config.compile_experts:
            compile_layers(model)  # its experts and its Q-Formers; the language model has a way of its own
        self.config = config
        self.seed = seed
        self.holdout = holdout
        self.shares = shares if shares is not None else Shares({})
        self.step_sums = StepSums()
        self.current_batch: PackedBatch | None = None
        self.validation_sums: dict[str, Tensor] = {}
        self.own_flops: dict[str, Polynomial] | None = {}

    def configure_model(self) -> None:
        """Cut the model into shards where the engine wants them."""
        shard(self.model, self.trainer.strategy)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the trainable parameters; the rate is set before each step, see `on_train_batch_start`."""
        config = self.config
        return build_optimizer(trainable(self.model), config.learning_rate, config.weight_decay, config.betas)

    def on_train_start(self) -> None:
        """Count what experts of the user's own compute; where that cannot be done, say so, and log no figure of it."""
        encoders = cast(Mapping[str, Encoder], self.model.encoders)
        own = {name: encoder for name, encoder in encoders.items() if name not in ENCODERS}
        try:
            self.own_flops = {name: count_own(encoder) for name, encoder in own.items()}
        except Exception as error:  # the user's code may raise anything, and a figure is not worth a run
            self.own_flops = None
            if self.global_rank == 0:
                print(
                    f"perf/tflops_per_s and perf/mfu are not logged: what {', '.join(own)} computes cannot be counted "
                    f"({type(error).__name__}: {error})",
                    flush=True,
                )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """By the norm of all gradients, before a fused update too.

        Lightning's mixed precision refuses to clip before one, which would undo the scale of float16's gradients only
        in its kernel (lightning/pytorch/plugins/precision/amp.py); bfloat16's have no scale.
        """
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is None and gradient_clip_val is not None:
            plugin.clip_grad_by_norm(optimizer, gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_batch_start(self, batch: PackedBatch, batch_idx: int) -> None:
        """Set learning rate and dropout's seed: functions of the step alone, so that a resumed run sees the same."""
        config = self.config
        rate = learning_rate_at(
            self.global_step,
            config.learning_rate,
            config.warmup_steps,
            config.max_steps,
            config.min_learning_rate_ratio,
        )
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate
        micro_batch = batch_idx % self.trainer.accumulate_grad_batches
        torch.manual_seed(hash((self.seed, self.global_step, micro_batch, self.global_rank)) % 2**63)

    def training_step(self, batch: PackedBatch, batch_idx: int) -> Tensor:
        """The micro-batch's share of the global mean loss."""
        self.current_batch = batch
        losses = self.model(batch)
        self.step_sums.losses.append(Losses(*(part.detach() if isinstance(part, Tensor) else part for part in losses)))
        # Waves and ids are not needed for the log; holding them would hold the whole step's audio.
        self.step_sums.batches.append(batch._replace(waves=None, features=None))
        divisions = self.trainer.world_size * self.trainer.accumulate_grad_batches
        return losses.total * divisions / max(1, batch.global_targets)

    def take_step_sums(self) -> StepSums:
        """The sums of the step that just ended; the next step starts its own."""
        sums, self.step_sums = self.step_sums, self.step_sums.followed()
        sums.learning_rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        return sums

    def step_metrics(self, sums: StepSums, in_parts: bool) -> dict[str, float]:
        """What is logged of a step: reads the device, and adds up over ranks.

        With `in_parts` also the loss by source and by turn, the gates by scenario, and the norms of gradients and of
        what the Q-Formers give; on all ranks or on none.
        """
        sources = tuple(self.shares.sizes)
        parts = loss_parts(sums.losses, sums.batches, sources) if in_parts else {}
        total = self._over_ranks(
            parts
            | {
                "style": sum(loss.style for loss in sums.losses),
                "style_targets": sum(loss.style_targets for loss in sums.losses),
                "content": sum(loss.content for loss in sums.losses),
                "content_targets": sum(loss.content_targets for loss in sums.losses),
                "tokens": sum(len(batch.ids) for batch in sums.batches),
                "samples": sum(sum(batch.num_samples) for batch in sums.batches),
                "dialogues": sum(len(batch.dialogue_ids) for batch in sums.batches),
            }
            | {
                f"{unit} {name}": getattr(drawn, unit)
                for name, drawn in drawn_by_source(sums.batches, sources).items()
                for unit in UNITS
            }
        )
        for name in sources:
            self.shares.add(name, Drawn(**{unit: total[f"{unit} {name}"] for unit in UNITS}))
        metrics = _loss_metrics(total) | part_metrics({name: total[name] for name in parts}) | self.shares.metrics()
        if "synthetic" in self.shares.sizes or "real" in self.shares.sizes:  # the paper's two sources
            metrics["data/alpha_realised"] = total.get("dialogues synthetic", 0.0) / max(1, total["dialogues"])
        seconds = sums.seconds
        metrics |= {
            "data/dialogues": total["dialogues"],
            "data/tokens": total["tokens"],
            "perf/seconds": seconds,
            "perf/tokens_per_s": total["tokens"] / seconds,
            "perf/audio_s_per_s": total["samples"] / SAMPLE_RATE / seconds,
            # Of the host, which a GPU need not have waited for; it may be ahead of it by a step.
            "perf/data_wait": min(1.0, sums.waited / seconds),
            "optim/learning_rate": sums.learning_rate,
            "optim/skipped": float(sums.skipped),
        }
        if sums.saves:  # after the step before this one, whose line is written by then
            metrics["perf/save_seconds"] = sums.saving
        metrics |= self._device_metrics(sums)
        if in_parts:
            metrics |= gates_by_scenario(self.model.expert_names, sums.losses, sums.batches)
            metrics |= qformer_norms(self.model.expert_names, sums.losses)
            metrics |= {f"grad_norm/{part}": float(norm) for part, norm in sums.gradient_norms.items()}
        return metrics

    def _device_metrics(self, sums: StepSums) -> dict[str, float]:
        """Of this rank: the most memory so far; the step's own work in TFLOP/s; and the share of the device's peak that
        this is, where the peak is known.
        """
        metrics = {"perf/memory_gib": most_memory(self.device) / 2**30}
        if self.own_flops is None:
            return metrics
        rate = self._flops(sums) / sums.seconds
        metrics["perf/tflops_per_s"] = rate / 1e12
        if peak := peak_flops(self.device):
            metrics["perf/mfu"] = rate / peak
        return metrics

    def _flops(self, sums: StepSums) -> float:
        return sum(
            step_flops(
                self.model,
                batch.starts.diff().tolist(),
                batch.num_targets,
                batch.num_samples,
                batch.shared,
                self.own_flops,
            )
            for batch in sums.batches
        )

    def validation_step(self, batch: PackedBatch, batch_idx: int) -> None:
        """Add this batch's sums; the mean is over all targets of the held-out set."""
        losses = self.model(batch)
        for name in ("style", "style_targets", "content", "content_targets"):
            self.validation_sums[name] = self.validation_sums.get(name, 0) + getattr(losses, name)

    def on_validation_epoch_end(self) -> None:
        """Log the held-out loss, and how the model answers held-out dialogues by itself."""
        total = self._over_ranks(self.validation_sums)
        self.validation_sums = {}
        metrics = {f"validation/{name.removeprefix('loss/')}": value for name, value in _loss_metrics(total).items()}
        if self.holdout is not None and self.holdout.examples:
            metrics |= self._answer(self.holdout)
        # Known to callbacks (best checkpoint), not written again by Lightning's own logging.
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics, step=self.global_step)

    def _answer(self, holdout: Holdout) -> dict[str, float]:
        with whole_model(self.model):
            generated = self.model.generate(
                holdout.examples,
                holdout.max_new_tokens,
                holdout.prompt.stop_id,
                holdout.batch_size,
                lambda written: holdout.prompt.allowed(written, holdout.style_fields),
            )
        replies = [holdout.prompt.parse(holdout.prompt.decode(one.ids)) for one in generated]
        wanted = [dialogue.turns[-1] for dialogue in holdout.dialogues]
        pairs = [(w.style.emotion, r.style.emotion if r.style else None) for w, r in zip(wanted, replies, strict=True)]
        scored = [(gold, found) for gold, found in pairs if gold is not None]
        metrics = {
            "validation/exact": sum(w.text == r.text for w, r in zip(wanted, replies, strict=True)) / len(wanted),
            "validation/guided": sum(one.guided for one in generated) / len(generated),
            "validation/unparsable": sum(reply.style is None for reply in replies) / len(replies),
        }
        if scored:
            metrics["validation/emotion_f1_weighted"] = weighted_f1(*map(list, zip(*scored, strict=True)))
        for logger in self.trainer.loggers:
            if isinstance(logger, RepliesLogger):
                rows = reply_rows(holdout.dialogues, replies, generated, self.model.expert_names)
                logger.log_replies(rows, self.global_step)
        return metrics

    def _over_ranks(self, sums: dict[str, Any]) -> dict[str, float]:
        values = torch.tensor([float(value) for value in sums.values()], dtype=torch.float64, device=self.device)
        if self.trainer.world_size > 1:
            values = self.trainer.strategy.reduce(values, reduce_op="sum")
        return dict(zip(sums, values.tolist(), strict=True))


def most_memory(device: torch.device) -> int:
    """The most bytes so far, allocated on a GPU or, for a CPU, held by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT


def _loss_metrics(total: dict[str, float]) -> dict[str, float]:
    targets = total.get("style_targets", 0) + total.get("content_targets", 0)
    metrics = {"loss/total": (total.get("style", 0) + total.get("content", 0)) / max(1, targets)}
    for part in ("style", "content"):
        if total.get(f"{part}_targets"):
            metrics[f"loss/{part}"] = total[part] / total[f"{part}_targets"]
    return metrics

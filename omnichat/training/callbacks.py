"""What happens around a step: metrics, progress, checkpoints, an orderly stop."""

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning.pytorch as pl
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from omnichat.batch import PackedBatch
from omnichat.checkpoint import Checkpoint, trainable
from omnichat.run_folder import lacks_validation
from omnichat.training.engines import scatter
from omnichat.training.guard import NonFiniteGuard
from omnichat.training.module import OmniChatModule
from omnichat.training.ranks import is_first
from omnichat.training.resume import CheckpointWriter
from omnichat.training.step_sums import StepSums
from omnichat.training.stopping import StopRequest

BEST_BY = "validation/total"  # the held-out loss; the lowest is the best


class StepMetrics(pl.Callback):
    """Logs every optimizer step; the sums stay on the device and are read `log_every` steps at a time.

    The step at which they are read is logged in parts too (by source, turn and scenario): at small sizes that costs as
    much as a tenth of a step, for what a curve with a point every `log_every` steps shows as well.
    """

    def __init__(self, log_every: int, progress: "ProgressLine") -> None:
        self.log_every = log_every
        self.progress = progress
        self._step = 0
        self._unwritten: list[tuple[int, StepSums]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count from where the run goes on."""
        self._step = trainer.global_step

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The first step begins once all has been made ready, preflight included."""
        assert isinstance(pl_module, OmniChatModule)
        pl_module.step_sums.begin()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Time since the last batch ended was spent waiting for data."""
        assert isinstance(pl_module, OmniChatModule)
        pl_module.step_sums.got()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: PackedBatch, batch_idx: int
    ) -> None:
        """Take the sums once the optimizer has stepped, not once per micro-batch."""
        assert isinstance(pl_module, OmniChatModule)
        if trainer.global_step > self._step:
            self._step = trainer.global_step
            self._unwritten.append((self._step, pl_module.take_step_sums()))
            if self._step % self.log_every == 0 or self._step == trainer.max_steps:
                self._write(trainer, pl_module)
        pl_module.step_sums.ask()

    def before_save(self, trainer: pl.Trainer, module: OmniChatModule) -> None:
        """Steps that a checkpoint holds are not trained again: a kill after it must not cost their lines."""
        self._write(trainer, module, shown=False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show what was found; validation is neither waiting nor training."""
        found = {
            name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("validation/")
        }
        shown = ", ".join(f"{name.removeprefix('validation/')} {value:.3f}" for name, value in found.items())
        self.progress.note(f"validation after step {trainer.global_step}: {shown}")
        assert isinstance(pl_module, OmniChatModule)
        pl_module.step_sums.begin()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that is stopped between two lines loses none of its steps."""
        assert isinstance(pl_module, OmniChatModule)
        self._write(trainer, pl_module)

    def _write(self, trainer: pl.Trainer, module: OmniChatModule, shown: bool = True) -> None:
        metrics: dict[str, float] = {}
        for step, sums in self._unwritten:
            metrics = module.step_metrics(sums, in_parts=shown and step == self._unwritten[-1][0])
            self.progress.skipped += int(sums.skipped)
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=step)
        if self._unwritten and shown:
            self.progress.show(self._unwritten[-1][0], metrics)
        self._unwritten = []


class _BarAndState(Progress):
    """A bar, and below it, in as many lines as it takes, how the last step went."""

    state = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bar stays whole on a narrow terminal, and so does the state."""
        yield from super().get_renderables()
        yield Text(self.state)


class ProgressLine:
    """A progress bar on a terminal; elsewhere one line per logged step.

    Attributes:
        skipped: steps that were left out.
        saved: the newest step with a checkpoint; 0 where there is none.
    """

    def __init__(self, title: str, total: int, start: int) -> None:
        self.console = Console(stderr=True, quiet=not is_first())
        self.total, self.saved, self.skipped = total, start, 0
        self._begun = start, perf_counter()
        self.bar: _BarAndState | None = None
        if self.console.is_terminal and not self.console.quiet:
            self.bar = _BarAndState(
                TextColumn(title),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
            )
            self.task = self.bar.add_task(title, total=total, completed=start)
            self.bar.start()

    def show(self, step: int, metrics: dict[str, float]) -> None:
        """Show loss, rate and speed of a step."""
        parts = [f"loss {metrics['loss/total']:.4f}"]
        parts += [f"{part} {metrics[f'loss/{part}']:.3f}" for part in ("style", "content") if f"loss/{part}" in metrics]
        parts += [f"lr {metrics['optim/learning_rate']:.1e}", f"{metrics['perf/tokens_per_s']:,.0f} tok/s"]
        parts += [f"{metrics['perf/audio_s_per_s']:,.0f} audio-s/s", f"wait {metrics['perf/data_wait']:.0%}"]
        parts += [f"mem {metrics['perf/memory_gib']:.1f} GiB"]
        parts += [f"{self.skipped} skipped"] if self.skipped else []
        parts += [f"saved {self.saved}"] if self.saved else []
        self.say(step, " ".join(parts))

    def say(self, step: int, state: str) -> None:
        """Show how a step went, in words."""
        if self.bar is not None:
            self.bar.state = state
            self.bar.update(self.task, completed=step)
        elif not self.console.quiet:
            print(f"step {step}/{self.total} {state} {self._left(step)}", file=sys.stderr, flush=True)

    def _left(self, step: int) -> str:
        start, begun = self._begun
        seconds = (perf_counter() - begun) / max(1, step - start) * (self.total - step)
        return f"left {timedelta(seconds=round(seconds))}"

    def note(self, text: str) -> None:
        """Say something that stays on the screen."""
        if self.bar is not None:
            self.bar.console.print(text)
        elif not self.console.quiet:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal clean."""
        if self.bar is not None:
            self.bar.stop()


class RestoreEngine(pl.Callback):
    """Gives the optimizer its moments back, and a sharded engine its exact weights, once Lightning has made them."""

    def __init__(self, start: Checkpoint) -> None:
        self.start = start

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before the first step."""
        assert isinstance(pl_module, OmniChatModule)
        moments = self.start.tensors.get("optimizer", {})
        scatter(trainer, trainable(pl_module.model), self.start.weights(), moments)


class OverdueValidation(pl.Callback):
    """Validates first where a stop or a kill came between a step and its validation: the curve has no gap, and a best
    step is not missed.

    Args:
        run_dir: of the run.
        every: steps between validations.
    """

    def __init__(self, run_dir: Path, every: int) -> None:
        self.run_dir, self.every = run_dir, every

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """All ranks, or none: the first has the record."""
        step = trainer.global_step
        overdue = trainer.is_global_zero and step % self.every == 0 and lacks_validation(self.run_dir, step)
        if trainer.enable_validation and trainer.strategy.broadcast(overdue):
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True


class Checkpointer(pl.Callback):
    """Saves at every `save_every`-th step and at the end, and at once when the run is asked to stop.

    A step with the lowest held-out loss so far is saved too, and kept.
    """

    def __init__(
        self, save_every: int, save: CheckpointWriter, stop: StopRequest, metrics: StepMetrics, guard: NonFiniteGuard
    ) -> None:
        self.save_every = save_every
        self.save = save
        self.stop = stop
        self.metrics = metrics
        self.guard = guard
        self._saved = -1
        self._best = save.best_value()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What the run resumed from need not be saved again. Lightning has set its own signal handlers by now."""
        self._saved = trainer.global_step
        self.stop.install()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save between steps only: after the optimizer, before the next micro-batch."""
        step = trainer.global_step
        between_steps = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not between_steps or step == self._saved:
            return
        due = (self.save_every > 0 and step % self.save_every == 0) or step == trainer.max_steps
        asked = self.stop.agreed()
        if due or asked:
            self._save(trainer, pl_module)
        if asked:
            trainer.should_stop = True
            # Lightning would validate before it stops, and whoever asked gives no minutes for that.
            trainer.limit_val_batches = 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the best. All ranks have the same loss, so that all of them save."""
        found = trainer.callback_metrics.get(BEST_BY)
        if found is None or not float(found) < self._best:
            return
        self._best = float(found)
        if trainer.global_step != self._saved:
            self._save(trainer, pl_module)
        if trainer.is_global_zero:
            self.save.note_best(trainer.global_step, BEST_BY, self._best)

    def _save(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, OmniChatModule)
        self.guard.settle()
        self.metrics.before_save(trainer, module)
        with module.step_sums.left_out():
            self.save(trainer, module)
        self._saved = self.metrics.progress.saved = trainer.global_step

"""`task: events`: which interaction event a moment is, learnt from two-track dialogues; one process.

Of the config count `model` without its language model, `data`'s sources, `trainer` and `seed`; a step's
`dialogues_per_step` are moments.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter

import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor
from torch.nn import functional as F

from omnichat import build
from omnichat.audio import SAMPLE_RATE
from omnichat.checkpoint import Checkpoint, in_parts, restore_trained, trainable
from omnichat.config import RunConfig
from omnichat.data.mixture import Mixture
from omnichat.data.moments import CLIP, EVENTS, Moments
from omnichat.metrics.emotion import macro_f1
from omnichat.models.events import EventModel
from omnichat.recipes import locate
from omnichat.run_folder import CHECKPOINTS, lacks_validation
from omnichat.training.callbacks import BEST_BY, ProgressLine
from omnichat.training.guard import Place, SkippedSteps, explained, gradient_norm
from omnichat.training.heard import Heard, classify, likeliest
from omnichat.training.loggers import build_loggers
from omnichat.training.module import most_memory
from omnichat.training.opening import opened
from omnichat.training.optim import build_optimizer, learning_rate_at, optimizer_tensors, restore_optimizer
from omnichat.training.preflight import Trial, disk, is_due, say, tried, try_out, versions
from omnichat.training.ranks import is_first
from omnichat.training.resume import CheckpointWriter, check_stream
from omnichat.training.stopping import StopRequest

SMALLER = "Lower trainer.micro_batch, or set data.features=live, which keeps no frames in memory"


def fit_events(config: RunConfig, run_dir: Path | str) -> int:
    """Train as `config` says, in `run_dir`; go on from its newest valid checkpoint where there is one.

    Returns:
        0 when done; after saving, 143 when stopped by SIGTERM, 130 by SIGINT, 138 by SLURM's SIGUSR1.

    Raises:
        ConfigError: something is missing, or the folder is in use or another run's (with the differing keys).
        DataError, CheckpointError, EncoderError, TrainingError: with what failed, where, and the cure.
    """
    run_dir = Path(run_dir)
    with opened(config, run_dir, _unsupported(config)) as folder:
        config = folder.config
        weights = build.source_weights(config)
        stores = build.training_stores(config)
        sources = {name: Moments(path, config.data.first.get(name)) for name, path in stores.items()}
        held_out = {name: Moments(locate(path)) for name, path in config.data.val.items()}
        for name, moments in (sources | held_out).items():
            print(f"{name}: {len(moments):,} moments, {_shares(moments)}", flush=True)
        sizes = [len(sources[name]) if name in sources else 0 for name in weights]
        mixture = Mixture(sizes, list(weights.values()), config.seed)
        check_stream(folder.start, run_dir / CHECKPOINTS, mixture.fingerprint())
        torch.manual_seed(config.seed)
        model = build.build_event_model(config, len(EVENTS), CLIP)
        heard = {name: Heard(model, moments, config.data.features) for name, moments in sources.items()}
        training = _Training(config, run_dir, model, mixture, [heard.get(name) for name in weights])
        if folder.start is not None:
            training.restore(folder.start)
        elif folder.initial is not None:
            restore_trained(model, folder.initial)
            print(f"beginning with the weights of {folder.initial.path}", flush=True)
        with explained(training.place):
            if is_due(config, folder.start):
                training.preflight(folder.first_step)
            if config.preflight == "only":
                return 0
            listening = {name: Heard(model, moments, config.data.features) for name, moments in held_out.items()}
            return training.run(folder.first_step, listening)


class _Training:
    """The steps of a run.

    Args:
        config: of the run.
        run_dir: of its metrics and checkpoints.
        model: on its device.
        mixture: which moment is drawn when.
        sources: the moments of each of the mixture's sources; None for one that is not drawn.
    """

    def __init__(
        self, config: RunConfig, run_dir: Path, model: EventModel, mixture: Mixture, sources: Sequence[Heard | None]
    ) -> None:
        settings = config.trainer
        assert settings.dialogues_per_step is not None, "fit_events refuses steps of so many tokens"
        self.config, self.run_dir, self.model, self.mixture, self.sources = config, run_dir, model, mixture, sources
        self.size, self.micro_batch = settings.dialogues_per_step, settings.micro_batch
        self.parameters = trainable(model)
        self.parts = {part: [*those.values()] for part, those in in_parts(self.parameters, "head").items()}
        decay, betas = settings.weight_decay, settings.betas
        self.optimizer = build_optimizer(self.parameters, settings.learning_rate, decay, betas)
        self.skipped = SkippedSteps(run_dir, "moments")
        self.writer = CheckpointWriter(config, run_dir / CHECKPOINTS, mixture.fingerprint())
        self.step, self.current = 0, list[tuple[int, int]]()
        self._saved = -1

    def restore(self, start: Checkpoint) -> None:
        """Weights and moments of a checkpoint."""
        restore_trained(self.model, start)
        restore_optimizer(self.optimizer, self.parameters, start.tensors.get("optimizer", {}))
        self._saved = start.step
        print(f"going on from {start.path}", flush=True)

    def place(self) -> Place:
        """For messages."""
        names = ", ".join(self._names(self.current)[:8])
        return Place(self.step + 1, 0, f"{len(self.current)} moments ({names})", SMALLER)

    def preflight(self, first: int) -> None:
        """Look at versions, disk, memory and time; the weights of every step stay as they are.

        Raises:
            TrainingError: the disk cannot hold two checkpoints.
        """
        device = self.model.classify.weight.device
        drawn = self._drawn(first)[: self.micro_batch]
        lines = [versions(device, 1), disk(self.parameters, self.run_dir)]
        trial = try_out(lambda: self._gradients(drawn), self.model, device)
        batch = f"{len(drawn)} moments of {CLIP / SAMPLE_RATE:.2f} s, all are as long"
        say([*lines, tried(batch, trial), self._hours(first, len(drawn), trial)])

    def _hours(self, first: int, tried_moments: int, trial: Trial) -> str:
        last = self.config.trainer.max_steps
        count = (last - first) * self.size
        seconds = count / tried_moments * trial.seconds
        known = sum(len(heard.moments) for heard in self.sources if heard is not None)
        if self.config.data.features == "cached":  # the first of both had to listen, once and for all
            seconds += min(count, known) / tried_moments * max(0.0, trial.first - trial.seconds)
        return (
            f"the run: steps {first + 1:,} to {last:,}, {count:,} moments of {known:,}; about {seconds / 3600:,.2f} h "
            "at this speed (estimated from the micro-batch above, without validation)"
        )

    def run(self, first: int, held_out: Mapping[str, Heard]) -> int:
        """The steps from `first` on; returns the exit code."""
        settings, stop = self.config.trainer, StopRequest()
        line = ProgressLine(self.config.run_name, settings.max_steps, first)
        done, asked = first, False
        with stop.giving_back(), _logging(self.config, self.run_dir, first) as loggers, contextlib.closing(line):
            stop.install()
            if self._validates(first, held_out) and lacks_validation(self.run_dir, first):
                self._note_validation(first, held_out, loggers, line)  # a stop or a kill came before it
            while done < settings.max_steps and not asked:
                metrics = self._train(done)
                done, asked = done + 1, stop.agreed()
                _log(loggers, metrics, done)
                last = asked or done == settings.max_steps
                if last or done % settings.log_every == 0:
                    line.say(done, _shown(metrics))
                if last or bool(settings.save_every and done % settings.save_every == 0):
                    self._save(done)
                if self._validates(done, held_out) and not asked:
                    self._note_validation(done, held_out, loggers, line)
        return stop.exit_code(done, True)

    def _validates(self, step: int, held_out: Mapping[str, Heard]) -> bool:
        every = self.config.trainer.validate_every
        return bool(held_out and every and step % every == 0)

    def _note_validation(
        self, step: int, held_out: Mapping[str, Heard], loggers: Sequence[Logger], line: ProgressLine
    ) -> None:
        found = self._validate(held_out)
        _log(loggers, found, step)
        line.note(f"validation after step {step}: {_shown(found)}")
        if found[BEST_BY] < self.writer.best_value():
            if self._saved != step:
                self._save(step)
            self.writer.note_best(step, BEST_BY, found[BEST_BY])

    def _drawn(self, step: int) -> list[tuple[int, int]]:
        """The moments (source, number) of a step."""
        return [self.mixture[index] for index in range(step * self.size, (step + 1) * self.size)]

    def _names(self, drawn: Sequence[tuple[int, int]]) -> list[str]:
        moments = [self._heard(source).moments.found[number] for source, number in drawn]
        return [f"{moment.dialogue} at {moment.sample / SAMPLE_RATE:.2f} s" for moment in moments]

    def _heard(self, source: int) -> Heard:
        heard = self.sources[source]
        assert heard is not None, "a source without moments has the weight 0"
        return heard

    def _train(self, step: int) -> dict[str, float]:
        """One step; left out where its gradients are not finite."""
        self.step, settings, begun = step, self.config.trainer, perf_counter()
        bounds = (settings.warmup_steps, settings.max_steps, settings.min_learning_rate_ratio)
        rate = learning_rate_at(step, settings.learning_rate, *bounds)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        drawn, loss = self._drawn(step), 0.0
        for begin in range(0, self.size, self.micro_batch):
            loss += self._gradients(drawn[begin : begin + self.micro_batch]) / self.size
        for parameter in self.parameters.values():
            assert parameter.grad is not None, "every weight has its part in every class"
            parameter.grad /= self.size
        norms = {part: gradient_norm(parameters) for part, parameters in self.parts.items()}
        sound = bool(torch.stack([*norms.values()]).isfinite().all())
        if sound:
            self.skipped.sound()
            if settings.gradient_clip is not None:
                torch.nn.utils.clip_grad_norm_(self.parameters.values(), settings.gradient_clip)
            self.optimizer.step()
        else:
            indices = range(step * self.size, (step + 1) * self.size)
            self.skipped.leave_out(step + 1, 0, indices, self._names(drawn), possible=True)
        self.optimizer.zero_grad()
        seconds, device = perf_counter() - begun, self.model.classify.weight.device
        metrics = {
            "loss/total": loss,
            "optim/learning_rate": rate,
            "optim/skipped": float(not sound),
            "perf/seconds": seconds,
            "perf/audio_s_per_s": self.size * CLIP / SAMPLE_RATE / seconds,
            "perf/memory_gib": most_memory(device) / 2**30,
        }
        if (step + 1) % settings.log_every == 0:
            metrics |= {f"grad_norm/{part}": float(norm) for part, norm in norms.items()}
        return metrics

    def _gradients(self, drawn: Sequence[tuple[int, int]]) -> float:
        """Add the gradients of the summed cross entropy of moments (source, number); returns the sum."""
        self.current = list(drawn)
        # Heard one by one: in batches their last digits differ, and a run that goes on would draw up other batches than
        # one that was never stopped.
        frames = [self._heard(source).frames([number]) for source, number in drawn]
        wanted = torch.cat([self._heard(source).wanted([number]) for source, number in drawn])
        logits = self.model({name: torch.cat([one[name] for one in frames]) for name in frames[0]})
        loss = F.cross_entropy(logits, wanted, reduction="sum")
        loss.backward()
        return float(loss.detach())

    def _validate(self, held_out: Mapping[str, Heard]) -> dict[str, float]:
        """Macro F1 of each set, and the mean loss of all their moments."""
        metrics, losses = dict[str, float](), list[Tensor]()
        for name, heard in held_out.items():
            logits = classify(self.model, heard, self.micro_batch)
            losses.append(F.cross_entropy(logits, heard.wanted(range(len(heard.moments))), reduction="none"))
            gold = [moment.event for moment in heard.moments.found]
            metrics[f"validation/{name}/f1_macro"] = macro_f1(gold, likeliest(logits))
        return metrics | {BEST_BY: float(torch.cat(losses).mean())}

    def _save(self, step: int) -> None:
        moments = optimizer_tensors(self.optimizer, self.parameters)
        self.writer.write(step, {**in_parts(self.parameters, "head"), "optimizer": moments})
        self._saved = step


@contextlib.contextmanager
def _logging(config: RunConfig, run_dir: Path, first: int) -> Iterator[list[Logger]]:
    """The loggers that the config asks for; told at the end how it came, as Lightning tells them."""
    loggers, status = build_loggers(config, run_dir, first), "failed"
    try:
        yield loggers
        status = "success"
    finally:
        for logger in loggers:
            logger.finalize(status)


def _log(loggers: Sequence[Logger], metrics: dict[str, float], step: int) -> None:
    for logger in loggers:
        logger.log_metrics(metrics, step=step)


def _shown(metrics: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def _unsupported(config: RunConfig) -> list[str]:
    trainer, message = config.trainer, "task=events trains in one process, not compiled, by dialogues_per_step"
    wrong = {"devices": trainer.devices != 1, "num_nodes": trainer.num_nodes != 1, "compile": trainer.compile}
    wrong["compile_experts"] = trainer.compile_experts
    wrong |= {"strategy": trainer.strategy != "auto", "dialogues_per_step": trainer.dialogues_per_step is None}
    faults = [f"trainer.{key}: {getattr(trainer, key)}; {message}" for key, is_wrong in wrong.items() if is_wrong]
    if not is_first():
        faults.append(f"task: events, but this is not the first of several processes; {message}: start it without them")
    return faults


def _shares(moments: Moments) -> str:
    events = [moment.event for moment in moments.found]
    return ", ".join(f"{events.count(event):,} {event}" for event in EVENTS)

"""`task: events`: which interaction event a moment is, learnt from two-track dialogues; one process.

Of the config count `model` without its language model, `data`'s sources, `trainer` and `seed`; a step's
`dialogues_per_step` are moments.
"""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from omnichat import build, checkpoint
from omnichat.checkpoint import CheckpointError, restore_trained, trainable
from omnichat.config import ConfigError, RunConfig
from omnichat.data.mixture import Mixture
from omnichat.data.moments import CLIP, EVENTS, Moments
from omnichat.metrics.emotion import macro_f1
from omnichat.models.events import EventModel
from omnichat.recipes import locate
from omnichat.requirements import missing
from omnichat.run_folder import CHECKPOINTS, CONFIG_FILE, METRICS
from omnichat.secrets import masked
from omnichat.training.callbacks import ProgressLine
from omnichat.training.loggers import JsonLinesLogger
from omnichat.training.optim import build_optimizer, learning_rate_at, optimizer_tensors, restore_optimizer
from omnichat.training.resume import frozen_identities, starting_point
from omnichat.training.stopping import StopRequest


def fit_events(config: RunConfig, run_dir: Path | str) -> int:
    """Train as `config` says, in `run_dir`; go on from its newest valid checkpoint where there is one.

    Returns:
        0 when done; after saving, 143 when stopped by SIGTERM, 130 by SIGINT.

    Raises:
        ConfigError: something is missing, or the folder is another run's (with the differing keys).
        DataError, CheckpointError, EncoderError: with what failed, where, and the cure.
    """
    run_dir = Path(run_dir)
    if faults := [*missing(config), *_unsupported(config)]:
        raise ConfigError(faults)
    run_dir.mkdir(parents=True, exist_ok=True)
    config = build.materialise(config, run_dir)
    start = starting_point(config, run_dir / CHECKPOINTS)
    first = 0 if start is None else start.step
    (run_dir / CONFIG_FILE).write_text(yaml.safe_dump(masked(config.model_dump(mode="json")), sort_keys=False))
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    weights = build.source_weights(config)
    stores = build.training_stores(config)
    sources = {name: Moments(path, config.data.first.get(name)) for name, path in stores.items()}
    held_out = {name: Moments(locate(path)) for name, path in config.data.val.items()}
    for name, moments in (sources | held_out).items():
        print(f"{name}: {len(moments):,} moments, {_shares(moments)}", flush=True)
    sizes = [len(sources[name]) if name in sources else 0 for name in weights]
    mixture = Mixture(sizes, list(weights.values()), config.seed)
    torch.manual_seed(config.seed)
    model = build.build_event_model(config, len(EVENTS), CLIP)
    heard = {name: Heard(model, moments, config) for name, moments in (sources | held_out).items()}
    training = _Training(config, run_dir, model, mixture, [heard.get(name) for name in weights])
    if start is not None:
        training.restore(start)
    return training.run(first, {name: heard[name] for name in held_out})


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
        self, config: RunConfig, run_dir: Path, model: EventModel, mixture: Mixture, sources: "Sequence[Heard | None]"
    ) -> None:
        settings = config.trainer
        self.config, self.run_dir, self.model, self.mixture, self.sources = config, run_dir, model, mixture, sources
        self.parameters = trainable(model)
        decay, betas = settings.weight_decay, settings.betas
        self.optimizer = build_optimizer(self.parameters, settings.learning_rate, decay, betas)

    def restore(self, start: checkpoint.Checkpoint) -> None:
        """Weights and moments of a checkpoint.

        Raises:
            CheckpointError: it was trained on other data.
        """
        if start.state["stream"] != self.mixture.fingerprint():
            raise CheckpointError(f"{start.path}: was trained on other moments; train elsewhere with run_name=NAME")
        restore_trained(self.model, start)
        restore_optimizer(self.optimizer, self.parameters, start.tensors["optimizer"])
        print(f"going on from {start.path}", flush=True)

    def run(self, first: int, held_out: "Mapping[str, Heard]") -> int:
        """The steps from `first` on; returns the exit code."""
        settings, stop = self.config.trainer, StopRequest()
        line = ProgressLine(self.config.run_name, settings.max_steps, first)
        log = JsonLinesLogger(self.run_dir / METRICS, first)
        with stop.giving_back():
            stop.install()
            for step in range(first, settings.max_steps):
                metrics, done = self._step(step), step + 1
                stopped = stop.signal is not None  # asked once: a signal that comes later is the next step's
                if settings.validate_every and done % settings.validate_every == 0:
                    for name, heard in held_out.items():
                        found = predict(self.model, heard, settings.micro_batch)
                        gold = [one.event for one in heard.moments.found]
                        metrics[f"validation/{name}/f1_macro"] = macro_f1(gold, found)
                log.log_metrics(metrics, done)
                last = stopped or done == settings.max_steps
                if last or done % settings.log_every == 0:
                    line.say(done, " ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
                if last or (settings.save_every and done % settings.save_every == 0):
                    self._save(done)
                if stopped:
                    break
        line.close()
        return 0 if stop.signal is None else 128 + stop.signal

    def _step(self, step: int) -> dict[str, float]:
        settings = self.config.trainer
        size = settings.dialogues_per_step
        assert size is not None, "fit_events refuses steps of so many tokens"
        bounds = (settings.warmup_steps, settings.max_steps, settings.min_learning_rate_ratio)
        rate = learning_rate_at(step, settings.learning_rate, *bounds)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        drawn = [self.mixture[index] for index in range(step * size, (step + 1) * size)]
        loss = 0.0
        for begin in range(0, size, settings.micro_batch):
            loss += self._gradients(drawn[begin : begin + settings.micro_batch]) / size
        for parameter in self.parameters.values():
            assert parameter.grad is not None, "every weight has its part in every class"
            parameter.grad /= size
        if settings.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), settings.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"loss/total": loss, "optim/learning_rate": rate}

    def _gradients(self, drawn: Sequence[tuple[int, int]]) -> float:
        """Add the gradients of the summed cross entropy of moments (source, number); returns the sum."""
        frames, wanted = list[dict[str, Tensor]](), list[int]()
        for source, number in drawn:
            heard = self.sources[source]
            assert heard is not None, "a source without moments has the weight 0"
            frames.append(heard.frames([number]))
            wanted.append(EVENTS.index(heard.moments.found[number].event))
        logits = self.model({name: torch.cat([one[name] for one in frames]).float() for name in frames[0]})
        loss = F.cross_entropy(logits, torch.tensor(wanted, device=logits.device), reduction="sum")
        loss.backward()
        return float(loss.detach())

    def _save(self, step: int) -> None:
        tensors: dict[str, Mapping[str, Tensor]] = {
            "events": self.parameters,
            "optimizer": optimizer_tensors(self.optimizer, self.parameters),
        }
        state = {
            "config": masked(self.config.model_dump(mode="json")),
            "stream": self.mixture.fingerprint(),
            "frozen": frozen_identities(self.config),
            "versions": {"python": platform.python_version(), "torch": version("torch")},
        }
        checkpoint.save_checkpoint(self.run_dir / CHECKPOINTS, step, tensors, state)
        checkpoint.purge(self.run_dir / CHECKPOINTS, self.config.trainer.keep_last)


class Heard:
    """The experts' frames of moments: kept in memory with `data.features=cached`, else computed when asked for."""

    def __init__(self, model: EventModel, moments: Moments, config: RunConfig) -> None:
        self.model, self.moments = model, moments
        self._kept: dict[int, dict[str, Tensor]] | None = {} if config.data.features == "cached" else None

    def frames(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Frames (A, N, D) of each expert around moments."""
        kept = self._kept if self._kept is not None else {}
        if lacking := [number for number in dict.fromkeys(numbers) if number not in kept]:
            waves = torch.from_numpy(np.stack([self.moments.clip(number) for number in lacking]))
            frames = self.model.hear(waves.to(self.model.classify.weight.device))
            kept |= {number: {name: one[place] for name, one in frames.items()} for place, number in enumerate(lacking)}
        return {name: torch.stack([kept[number][name] for number in numbers]) for name in self.model.encoders}


def predict(model: EventModel, heard: Heard, batch_size: int) -> list[str]:
    """The likeliest event at each moment, in order."""
    found: list[str] = []
    with torch.no_grad():
        for first in range(0, len(heard.moments), batch_size):
            logits = model(heard.frames(range(first, min(first + batch_size, len(heard.moments)))))
            found += [EVENTS[place] for place in logits.argmax(-1).tolist()]
    return found


def _unsupported(config: RunConfig) -> list[str]:
    trainer, message = config.trainer, "task=events trains in one process, by dialogues_per_step"
    wrong = {"devices": trainer.devices != 1, "num_nodes": trainer.num_nodes != 1}
    wrong["dialogues_per_step"] = trainer.dialogues_per_step is None
    return [f"trainer.{key}: {getattr(trainer, key)}; {message}" for key, is_wrong in wrong.items() if is_wrong]


def _shares(moments: Moments) -> str:
    events = [moment.event for moment in moments.found]
    return ", ".join(f"{events.count(event):,} {event}" for event in EVENTS)

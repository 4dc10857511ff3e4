"""One training run, from a config to a run folder, in seven numbered steps."""

import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.plugins.environments import SLURMEnvironment

from omnichat import build
from omnichat.checkpoint import restore_trained
from omnichat.config import ConfigError, RunConfig, TrainerConfig
from omnichat.data.features import FeatureReader
from omnichat.prompt import Prompt
from omnichat.run_folder import CHECKPOINTS, OVERLONG_FILE, SKIPPED_FILE
from omnichat.training.callbacks import Checkpointer, OverdueValidation, ProgressLine, RestoreEngine, StepMetrics
from omnichat.training.engines import build_strategy
from omnichat.training.guard import NonFiniteGuard, explained, place_of
from omnichat.training.loggers import build_loggers
from omnichat.training.module import Holdout, OmniChatModule
from omnichat.training.opening import opened
from omnichat.training.precompute.fill import fill_feature_store, lacks_features
from omnichat.training.preflight import Preflight, PreflightDone, is_due
from omnichat.training.ranks import is_first
from omnichat.training.resume import CheckpointWriter, check_stream
from omnichat.training.slow_rank import SlowRankWatch
from omnichat.training.stopping import StopRequest, in_slurm


def fit(config: RunConfig, run_dir: Path | str) -> int:
    """Train as `config` says, in `run_dir`; go on from its newest valid checkpoint where there is one.

    Returns:
        0 when done; after saving, 143 when stopped by SIGTERM, 130 by SIGINT, 138 by SLURM's SIGUSR1.

    Raises:
        ConfigError: something is missing, or the folder is another run's (with the differing keys).
        DataError, CheckpointError, EncoderError, TrainingError, ValueError: with what failed, where, and the cure.
    """
    run_dir = Path(run_dir)
    # 1. the run folder: one run at a time, of one config
    with opened(config, run_dir) as folder:
        config, start, first_step = folder.config, folder.start, folder.first_step

        # 2. data: everything is read and counted before a weight is loaded
        prompt = build.build_prompt(config)
        cached = config.data.features == "cached" and config.data.input != "text"  # text is not heard
        if cached and config.preflight == "only" and lacks_features(config):  # to make them may take hours
            print(f"{config.data.features_dir} lacks features, which a run makes first; tried with data.features=live")
            cached = False
        scans = build.scan_data(config, prompt)  # before the experts, which may listen for hours, are asked
        features = fill_feature_store(config) if cached else None
        data = build.build_data(config, prompt, features, first_step, scans)
        stream = data.dataset.fingerprint()
        check_stream(start, run_dir / CHECKPOINTS, stream)
        _list_overlong(run_dir / OVERLONG_FILE, data.dataset.overlong())
        passes = data.passes(config.trainer.max_steps)
        print("passes: " + ", ".join(f"{name} {count:.1f} times" for name, count in passes.items()), flush=True)

        # 3. the model: experts and LLM are frozen; Mix-Former and LoRA are trained
        pl.seed_everything(config.seed, verbose=False)
        model = build.build_model(config, features.widths if features is not None else None)
        shares = data.shares()
        holdout = _holdout(config, prompt, features, data.dataset.style_fields())
        module = OmniChatModule(model, config.trainer, config.seed, holdout, shares)

        # 4. where it goes on from
        if start is not None:
            restore_trained(model, start)
            print(f"going on from {start.path}", flush=True)
        elif folder.initial is not None:
            restore_trained(model, folder.initial)
            print(f"beginning with the weights of {folder.initial.path}", flush=True)

        # 5. Lightning
        _quiet()
        if config.trainer.precision == "bf16-true" and not config.trainer.strategy.startswith("deepspeed"):
            _tell_of_lost_steps()
        stop = StopRequest()
        progress = ProgressLine(config.run_name, config.trainer.max_steps, first_step)
        writer = CheckpointWriter(config, run_dir / CHECKPOINTS, stream, data.dataset.style_fields())
        metrics, guard = StepMetrics(config.trainer.log_every, progress), NonFiniteGuard(run_dir)
        callbacks: list[pl.Callback] = [
            SlowRankWatch(progress.note),
            guard,
            metrics,
            Checkpointer(config.trainer.save_every, writer, stop, metrics, guard),
        ]
        if start is not None:
            callbacks.append(RestoreEngine(start))
            if config.trainer.validate_every and config.preflight != "only":
                callbacks.append(OverdueValidation(run_dir, config.trainer.validate_every))
        if is_due(config, start):
            callbacks.append(Preflight(data, run_dir, config.preflight == "only"))
        trainer = _trainer(config, run_dir, first_step, callbacks)

        # 6. train
        if config.preflight == "only" and first_step >= config.trainer.max_steps:
            print(f"preflight: nothing is left to train, {first_step:,} of {config.trainer.max_steps:,} steps are done")
            return 0
        try:
            if first_step < config.trainer.max_steps:
                with stop.giving_back(), explained(lambda: place_of(module)):
                    trainer.fit(module, datamodule=data)
        except PreflightDone:
            return 0
        finally:
            progress.close()

        # 7. how it ended
        if trainer.is_global_zero:
            print(f"drawn in {trainer.global_step:,} steps:\n{shares.text()}", flush=True)
            if progress.skipped:
                print(
                    f"{progress.skipped} steps were left out; {run_dir / SKIPPED_FILE} names their dialogues",
                    flush=True,
                )
            print(f"the run lies in {run_dir}", flush=True)
        return stop.exit_code(trainer.global_step, trainer.is_global_zero)


def _holdout(
    config: RunConfig, prompt: Prompt, features: FeatureReader | None, style_fields: tuple[str, ...]
) -> Holdout | None:
    count, stores = config.trainer.generate_dialogues, build.validation_stores(config)
    if not count or not stores:
        return None
    path = next(iter(stores.values()))
    dialogues, examples = build.eval_examples(config, prompt, path, features, count)
    settings = config.evaluation
    return Holdout(dialogues, examples, prompt, settings.max_new_tokens, settings.batch_size, style_fields)


def _trainer(config: RunConfig, run_dir: Path, first_step: int, callbacks: list[pl.Callback]) -> pl.Trainer:
    settings = config.trainer
    validated = bool(settings.validate_every and config.data.val)
    trainer = pl.Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=build_strategy(settings.strategy, settings.accelerator),
        precision=settings.precision,
        max_steps=settings.max_steps,
        gradient_clip_val=settings.gradient_clip,
        check_val_every_n_epoch=None,
        limit_val_batches=None if validated else 0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # ours is a pure function of (step, rank)
        enable_checkpointing=False,  # ours hold only what is trained
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=build_loggers(config, run_dir, first_step) if config.preflight != "only" else False,
        callbacks=callbacks,
        default_root_dir=str(run_dir),
        # Lightning's own requeue saves inside the signal handler (its issue 21406).
        plugins=[SLURMEnvironment(auto_requeue=False)] if in_slurm() and SLURMEnvironment.detect() else None,
    )
    # bf16-true and DeepSpeed would round waveforms to 8 bits, as no other run hears them; the experts cast themselves.
    trainer.precision_plugin.convert_input = lambda data: data  # type: ignore[method-assign]
    trainer.accumulate_grad_batches = accumulation = _accumulation(settings, trainer.world_size)
    loop = trainer.fit_loop.epoch_loop
    trainer.val_check_interval = settings.validate_every * accumulation if validated else 1.0
    # The sampler starts at this step; Lightning must count from it too: learning rate, validation and logs follow.
    steps = loop.automatic_optimization.optim_progress.optimizer.step.total
    steps.ready = steps.completed = first_step
    loop.batch_progress.total.ready = loop.batch_progress.total.completed = first_step * accumulation
    return trainer


def _tell_of_lost_steps() -> None:
    """Without DeepSpeed, which keeps float32 weights whatever the precision, weights of bfloat16 are all there is."""
    if is_first():
        print(
            "trainer.precision=bf16-true: what is trained is bfloat16 too, and steps smaller than its last digit are "
            "lost; use bf16-mixed, or DeepSpeed, to keep float32 weights",
            flush=True,
        )


def _list_overlong(path: Path, lines: Sequence[str]) -> None:
    """Name every dialogue that is over the limit, and what was done with it; no file where there is none."""
    if not is_first():
        return
    path.unlink(missing_ok=True)
    if lines:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        print(f"{len(lines)} dialogues are over data.max_tokens; each is named in {path}", flush=True)


def _accumulation(settings: TrainerConfig, ranks: int) -> int:
    """Micro-batches of each rank in a step."""
    if settings.dialogues_per_step is None:
        assert settings.tokens_per_step is not None, "check() asks for one of both"
        share = settings.tokens_per_step / ranks
        return math.ceil(share / (settings.micro_batch_tokens or share))
    accumulation, rest = divmod(settings.dialogues_per_step, settings.micro_batch * ranks)
    if rest:
        raise ConfigError(
            [
                f"trainer.micro_batch: {settings.dialogues_per_step} dialogues a step on {ranks} ranks cannot be "
                f"cut into micro-batches of {settings.micro_batch}; choose another size"
            ]
        )
    return accumulation


def _quiet() -> None:
    """Keep Lightning's advice for its usual users off the screen; its warnings about what we do on purpose too."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*module.s. in eval mode at the start of training.*",  # the frozen experts and LLM
        ".*smaller than the logging interval.*",  # metrics are logged by StepMetrics
        ".*does not have many workers.*",  # the scan and pack are cheap; data.num_workers says how many
        ".*isinstance.treespec, LeafSpec.* is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message)

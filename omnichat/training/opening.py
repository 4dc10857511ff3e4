"""The folder of a run: one process owns it, one config fills it, and it says where training goes on from."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from omnichat import build
from omnichat.checkpoint import Checkpoint
from omnichat.config import ConfigError, RunConfig, TrainerConfig
from omnichat.requirements import missing
from omnichat.run_folder import CHECKPOINTS, CONFIG_FILE, OVERLONG_FILE
from omnichat.secrets import masked
from omnichat.training.ranks import first_speaks, is_first
from omnichat.training.resume import initial_weights, starting_point

LOCK = ".lock"


@dataclass(frozen=True)
class Opened:
    """What a run begins with.

    Attributes:
        config: with all that is made for this run made and pointed to.
        start: the checkpoint to go on from; None to start afresh.
        initial: the checkpoint of `init_from`, of a run that starts afresh.
    """

    config: RunConfig
    start: Checkpoint | None
    initial: Checkpoint | None

    @property
    def first_step(self) -> int:
        """How many steps have been trained."""
        return 0 if self.start is None else self.start.step


@contextlib.contextmanager
def opened(config: RunConfig, run_dir: Path, faults: Sequence[str] = ()) -> Iterator[Opened]:
    """Own the folder until the run ends, with the config written into it and the threads set.

    `preflight=only` is no run: it leaves the config of a run that is there as it is, and of a new folder nothing but
    the list of dialogues that are over the limit, where there are any.

    Args:
        config: as it was asked for.
        run_dir: made where it is not there.
        faults: of the config, to be named together with what is missing.

    Raises:
        ConfigError: the folder is in use, cannot be written to, or is another run's; something is missing, a GPU too.
        CheckpointError, DataError: see `starting_point` and `initial_weights`.
    """
    only_looks = config.preflight == "only"
    with _locked(run_dir, only_looks), first_speaks():
        if faults := [*faults, *missing(config), *missing_gpus(config.trainer)]:
            raise ConfigError(faults)
        config = build.materialise(config, run_dir)
        start = starting_point(config, run_dir / CHECKPOINTS)
        initial = initial_weights(config) if start is None else None
        if is_first() and not only_looks:
            text = yaml.safe_dump(masked(config.model_dump(mode="json")), sort_keys=False, allow_unicode=True)
            (run_dir / CONFIG_FILE).write_text(text, encoding="utf-8")
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        yield Opened(config, start, initial)


@contextlib.contextmanager
def _locked(run_dir: Path, swept: bool) -> Iterator[None]:
    """With `swept`, a folder in which nothing was is emptied again."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        swept = swept and is_first() and not any(run_dir.iterdir())
        lock = (run_dir / LOCK).open("w")
    except OSError as error:
        fault = f"hydra.run.dir: {run_dir} cannot be written to ({error.strerror}); name another folder"
        raise ConfigError([fault]) from None
    with lock:
        if is_first():  # the other ranks share its folder
            try:
                # Of this process alone: `flock` is shared with data workers, which outlive it by seconds at a kill.
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(
                    [f"run_name: {run_dir} is in use by another run; wait for it or choose another name"]
                ) from None
        try:
            yield
        finally:
            if swept:
                _sweep(run_dir)


def _sweep(run_dir: Path) -> None:
    for path in run_dir.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != OVERLONG_FILE:
            path.unlink()
    with contextlib.suppress(OSError):  # it holds the list
        run_dir.rmdir()


def missing_gpus(trainer: TrainerConfig) -> list[str]:
    """A line where fewer are here than are asked for: Lightning would tell only once data and weights are loaded."""
    found = torch.cuda.device_count() if trainer.accelerator == "gpu" and torch.cuda.is_available() else 0
    if trainer.accelerator == "gpu" and found == 0:
        return ["trainer.accelerator: gpu, but there is none; use trainer.accelerator=auto, or trainer=cpu"]
    if trainer.accelerator == "gpu" and trainer.devices != "auto" and trainer.devices > found:
        return [f"trainer.devices: {trainer.devices}, but there are {found} GPUs here; use trainer.devices={found}"]
    return []

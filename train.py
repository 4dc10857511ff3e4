"""Train OmniChat: `python train.py recipe=sharechat_emotion [key=value ...]`.

Composes and checks the config, then hands it to `omnichat.training.fit`. What is heavy is imported after the
checks, so that `--help` and mistakes answer at once. Exit codes: 0 done, 1 failed, 2 wrong usage, 143 stopped by
SIGTERM after saving.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from omnichat.config import ConfigError, checked, validate
from omnichat.recipes import CONF_DIR, compose, read_overrides, register_recipes, with_own_keys
from omnichat.requirements import missing
from omnichat.schema import RunConfig
from omnichat.secrets import mask_output

FAILED, WRONG_USAGE, INTERRUPTED, TERMINATED = 1, 2, 130, 143
MULTIRUN_FLAGS = {"-m", "--multirun"}
failed_runs: list[str] = []  # of the sweep in this process
sweep_folders: list[Path] = []


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="train")
def run(cfg: DictConfig) -> None:
    """One run, or one point of a sweep."""
    job = HydraConfig.get()
    try:
        config = validate(cfg)
        if job.mode == RunMode.MULTIRUN:
            sweep_folders.append(Path(job.runtime.output_dir))
            run_point(config, cfg, job)
            return
        if config.task == "events":
            from omnichat.training.events import fit_events as fit
        else:
            from omnichat.training.fit import fit
        code = fit(config, Path(job.runtime.output_dir))
    except ConfigError as error:
        stop(error, WRONG_USAGE)
    except (ValueError, OSError) as error:
        stop(error, FAILED)
    if code != 0:
        sys.exit(code)


def typed_overrides(job: HydraConf) -> list[str]:
    """The overrides of a point of a sweep as they were typed: an interpolation is the point's own to resolve."""
    task: Any = OmegaConf.to_container(job.overrides.task, resolve=False)
    settings: Any = OmegaConf.to_container(job.overrides.hydra, resolve=False)
    return [*task, *(override for override in settings if key_of(override) == "hydra.run.dir")]


def run_point(config: RunConfig, cfg: DictConfig, job: HydraConf) -> None:
    """Run one point of a sweep in a process and a folder of its own; a failing point does not end the sweep.

    In one process, the weights, process groups and environment of a run would leak into the next. The sweep's folder
    lists the run; its name is the runs' group in W&B.
    """
    from omnichat.evaluation.sweep import note_point

    overrides, sweep = typed_overrides(job), Path(job.runtime.output_dir)
    fixed = {key_of(values[0]) for values in read_overrides(sys.argv[1:])[0] if len(values) == 1}
    swept = [override for override in overrides if key_of(override) not in fixed]
    changes = [key_of(override).rpartition(".")[2] + "_" + override.partition("=")[2] for override in swept]
    name = plain("_".join([config.run_name, *changes]))
    group = config.logger.wandb.group or plain(sweep.name)
    kept = [override for override in overrides if key_of(override) != "run_name"]
    own = [f"run_name={name}", f"logger.wandb.group={group}", "hydra.mode=RUN"]
    folder = folder_of(name, cfg, job)
    note_point(sweep, name, folder, swept, None)
    process = subprocess.Popen([sys.executable, __file__, *kept, *own])
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())  # the run saves, then the sweep ends with it
    try:
        code = process.wait()
    except KeyboardInterrupt:
        note_point(sweep, name, folder, swept, process.wait())
        sys.exit(INTERRUPTED)
    note_point(sweep, name, folder, swept, code)
    if code in (TERMINATED, INTERRUPTED):
        sys.exit(code)
    if code != 0:
        failed_runs.append(name)


def folder_of(run_name: str, cfg: DictConfig, job: HydraConf) -> Path:
    """Where Hydra will let a point of that name run."""
    values: Any = OmegaConf.to_container(cfg, resolve=False)
    folder: Any = OmegaConf.to_container(job.run, resolve=False)
    return Path(OmegaConf.create(values | {"run_name": run_name, "folder": folder["dir"]}).folder)


def plain(name: str) -> str:
    """The name without what a folder, or a value on the command line, should not hold."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", name)


def write_sweep_overview() -> None:
    """One page of what the sweep's runs have come to; `eval/sweep.py` writes it again once they are scored."""
    from omnichat.evaluation.sweep import read_points
    from omnichat.evaluation.sweep_page import write_overview

    for folder in dict.fromkeys(sweep_folders):
        try:
            page = write_overview(read_points([folder]), folder, f"Sweep {folder.name}")
            print(f"overview: {page}\nonce the runs are scored: python eval/sweep.py {folder}", flush=True)
        except (ValueError, OSError) as error:  # the runs are there all the same
            print(f"train.py: no overview: {error}", file=sys.stderr)


def check_command_line(arguments: Sequence[str]) -> None:
    """Check what `python train.py ARGUMENTS` would run, before anything is made or loaded; each value of a sweep too.

    Raises:
        ConfigError: names every fault at once, those of the command line first.
    """
    alternatives, faults = read_overrides(arguments)
    base = [values[0] for values in alternatives if values]
    understood = not faults
    faults += faults_of(base)
    if understood and not faults:
        hydra_config = compose(*base, with_hydra=True).hydra
        faults += folder_faults(Path(hydra_config.run.dir))
        swept = [values for values in alternatives if len(values) > 1]
        if hydra_config.mode == RunMode.MULTIRUN or MULTIRUN_FLAGS & set(arguments):
            keys = {key_of(override) for override in base}
            recipe = (hydra_config.sweeper.params or {}).items()
            swept += read_overrides([f"{key}={values}" for key, values in recipe if key not in keys])[0]
        else:
            faults += [f"{key_of(values[0])}: has {len(values)} values; add -m to run each" for values in swept]
        for value in (value for values in swept for value in values):
            faults += faults_of([*(other for other in base if key_of(other) != key_of(value)), value])
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))


def folder_faults(folder: Path) -> list[str]:
    """Hydra makes the run's folder before the run can say that it may not."""
    above = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if above.is_dir() and os.access(above, os.W_OK):
        return []
    what = "is a folder that is not yours to write to" if above.is_dir() else "is no folder"
    return [f"hydra.run.dir: {folder} cannot be written to, {above} {what}; name another folder"]


def faults_of(overrides: Sequence[str]) -> list[str]:
    """What is wrong with the config that these overrides make, and what it asks for that is not there."""
    config, faults = checked(overrides)
    return faults + (missing(config) if config is not None else [])


def key_of(override: str) -> str:
    """`+data.val.new=PATH` -> `data.val.new`."""
    return override.partition("=")[0].lstrip("+~")


def stop(error: Exception, code: int) -> None:
    """End with the message of a fault that is the user's to mend; with the traceback too where it is asked for."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        raise error
    print(f"train.py: {error}", file=sys.stderr)
    sys.exit(code)


def main() -> None:
    """Check the whole command line, then run it."""
    mask_output()
    register_recipes()
    sys.argv[1:] = with_own_keys(sys.argv[1:])
    flags = {word for word in sys.argv[1:] if word.startswith("-")}
    if flags <= MULTIRUN_FLAGS:  # the others ask for help, or come from Hydra's own tools
        try:
            check_command_line(sys.argv[1:])
        except ConfigError as error:
            stop(error, WRONG_USAGE)
    try:
        run()
    finally:  # a sweep that is stopped has runs to show too
        if sweep_folders:
            write_sweep_overview()
    if failed_runs:
        print(f"train.py: {len(failed_runs)} run(s) of the sweep failed: {', '.join(failed_runs)}", file=sys.stderr)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()

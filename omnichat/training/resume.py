"""From a run to its checkpoint and back."""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from omnichat import build, checkpoint
from omnichat.background import in_background
from omnichat.checkpoint import Checkpoint, CheckpointError, in_parts, trainable
from omnichat.config import ConfigError, RunConfig, with_defaults
from omnichat.exported import load_trained
from omnichat.file_hashes import cached_sha256
from omnichat.free_keys import free_for_weights, free_on_resume
from omnichat.recipes import locate
from omnichat.run_folder import CHECKPOINTS, MANIFEST
from omnichat.secrets import masked
from omnichat.training.engines import gather
from omnichat.training.module import OmniChatModule
from omnichat.training.ranks import is_first


class CheckpointWriter:
    """Saves what is trained, its config, versions and the hashes of what is frozen; keeps the newest `keep_last`.

    A thread hashes from the start on: a stop before the first save may not give the time to read 20 GB of weights.
    """

    def __init__(self, config: RunConfig, folder: Path, stream: str, style_fields: tuple[str, ...] = ()) -> None:
        self.config = config
        self.stream = stream
        self.style_fields = style_fields
        self.folder = folder
        self._frozen = in_background(lambda: frozen_identities(config)) if is_first() else None

    def __call__(self, trainer: pl.Trainer, module: OmniChatModule) -> None:
        """Save the step that just ended: gathered from all ranks, written by rank 0.

        Raises:
            CheckpointError: the disk refuses.
        """
        weights, moments = gather(trainer, trainable(module.model))
        if trainer.is_global_zero:
            self.write(trainer.global_step, in_parts(weights, "adapter") | {"optimizer": moments})

    def write(self, step: int, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Save a step from whole tensors, a file for each group; to be called by one process.

        Raises:
            CheckpointError: the disk refuses.
        """
        assert self._frozen is not None, "the first process saves"
        state = {
            "config": self.config.model_dump(mode="json"),
            "stream": self.stream,
            "style_fields": self.style_fields,
            "frozen": self._frozen.result(),
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in ("torch", "lightning", "transformers", "peft")},
        }
        state = masked(state)
        checkpoint.save_checkpoint(self.folder, step, {k: v for k, v in groups.items() if v}, state)
        checkpoint.purge(self.folder, self.config.trainer.keep_last, step)

    def note_best(self, step: int, metric: str, value: float) -> None:
        """Keep the checkpoint of this step, which has been saved, as the best so far."""
        checkpoint.mark_best(self.folder, step, metric, value)
        checkpoint.purge(self.folder, self.config.trainer.keep_last, step)

    def best_value(self) -> float:
        """The lowest loss noted so far, infinite where there is none."""
        noted = checkpoint.best(self.folder)
        return noted[1] if noted is not None else float("inf")


def frozen_identities(config: RunConfig) -> dict[str, dict[str, str]]:
    """Path and sha256 of every frozen part; of an expert of one's own that of its code, too."""
    paths, options = build.expert_checkpoints(config), build.encoder_options(config)
    paths |= {"llm": str(config.model.llm.checkpoint)} if config.task == "dialogue" else {}
    found = {name: {"path": path, "sha256": cached_sha256(locate(path))} for name, path in paths.items()}
    for name in set(paths) & set(config.model.encoders.own):
        whole = found[name]["sha256"] + options[name]["code"]
        found[name]["sha256"] = hashlib.sha256(whole.encode()).hexdigest()
    return found


def starting_point(config: RunConfig, folder: Path) -> Checkpoint | None:
    """The checkpoint that `config.resume` asks for; None to start afresh.

    Once a run that began with `resume=PATH` has saved, it goes on from its own newest: the same command, and SLURM's
    next start of a job, must not begin with PATH again and again.

    Raises:
        ConfigError: the folder's checkpoints are another config's (lists the keys that differ), or `resume=never`
            and there are some, or `resume=PATH` is one of them and older than the newest.
        CheckpointError: `resume=PATH` names a checkpoint that is not valid, or one of another model; frozen weights
            are not those that were trained with. Lists all that differs.
    """
    if config.resume == "never":
        if checkpoint.list_checkpoints(folder):
            raise ConfigError(
                [f"resume: never, but {folder} holds checkpoints; choose another run_name= or delete them"]
            )
        return None
    newest, refused = checkpoint.newest_valid(folder)
    for reason in refused:
        print(f"refused: {reason}", flush=True)
    if config.resume != "auto":
        path = locate(config.resume)
        if newest is None:
            named = _in_this_version(checkpoint.load_checkpoint(path))
            _check_model(named, config)
            return named
        if not path.exists() or not path.samefile(newest):
            if path.resolve().parent == folder.resolve():
                checkpoint.verify(path)
                raise ConfigError(
                    [
                        f"resume: {path} is not {newest}, the newest of its run, whose steps would be mixed with other "
                        "ones; resume=auto goes on from that, run_name=NAME goes on from this one in another folder"
                    ]
                )
            print(f"resume: this run goes on from its own newest checkpoint, not again from {path}", flush=True)
    if newest is None:
        return None
    start = _in_this_version(checkpoint.load_checkpoint(newest))
    if changed := _changed_keys(start.state["config"], masked(config.model_dump(mode="json"))):
        raise ConfigError(
            [
                *changed,
                f"run_name: {folder.parent} holds checkpoints of another config; "
                "train this one elsewhere with run_name=NAME, or set the keys back",
            ]
        )
    _check_model(start, config)
    return start


def check_stream(start: Checkpoint | None, folder: Path, stream: str) -> None:
    """Refuse to go on where the data is not what it was; a checkpoint that `resume=PATH` names may have had other data.

    Args:
        start: where the run goes on from.
        folder: of the run's own checkpoints.
        stream: fingerprint of what is drawn when.

    Raises:
        CheckpointError: the fingerprints differ.
    """
    if start is not None and start.path.parent == folder and start.state["stream"] != stream:
        raise CheckpointError(
            f"{start.path}: was trained on other data than these files hold now (sizes, weights, seed or dialogues "
            "left out differ); restore the data, or train elsewhere with run_name=NAME"
        )


def initial_weights(config: RunConfig) -> Checkpoint | None:
    """What was trained in `config.init_from`, a run, an export or a checkpoint; None to begin as the seed draws.

    Raises:
        CheckpointError: there is none, it is not valid, or it is one of another model; lists all that differs.
    """
    if config.init_from is None:
        return None
    path = locate(config.init_from)
    of_a_folder = (path / CHECKPOINTS).is_dir() or not (path / MANIFEST).is_file()
    named = _in_this_version(load_trained(path) if of_a_folder else checkpoint.load_checkpoint(path))
    _check_model(named, config)
    return named


def _in_this_version(start: Checkpoint) -> Checkpoint:
    """With the defaults of keys newer than the checkpoint: they are what it was trained with."""
    before, filled = with_defaults(start.state["config"])
    if filled:
        given = ", ".join(f"{key}={json.dumps(value)}" for key, value in filled.items())
        print(f"{start.path}: is older than some keys, which get their defaults: {given}", flush=True)
    return replace(start, state=start.state | {"config": before})


def _check_model(start: Checkpoint, config: RunConfig) -> None:
    """Refuse weights of another model: of what shapes it, or makes another function of it, and what is frozen in it.

    Where the weights lie is free, and so are dropout and the dtype of the frozen language model.
    """
    model = {"model": start.state["config"]["model"]}, {"model": config.model_dump(mode="json")["model"]}
    faults = [line for line in _changed_keys(*model) if not free_for_weights(line.partition(":")[0])]
    before = start.state.get("frozen", {})
    faults += [
        f"{name}: {identity['path']} has the sha256 {identity['sha256'][:12]}..., "
        f"was trained with {before[name]['sha256'][:12]}... ({before[name]['path']})"
        for name, identity in frozen_identities(config).items()
        if name in before and identity["sha256"] != before[name]["sha256"]
    ]
    if faults:
        raise CheckpointError(
            f"{start.path}: does not fit the model of this config; set these back, or choose another checkpoint:\n  "
            + "\n  ".join(faults)
        )


def _changed_keys(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    changed = []
    for key in sorted(before.keys() | now.keys()):
        name, old, new = f"{prefix}{key}", before.get(key), now.get(key)
        if free_on_resume(name) or old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            changed += _changed_keys(old, new, f"{name}.")
        else:
            there, here = (json.dumps(value, ensure_ascii=False) for value in (old, new))
            changed.append(f"{name}: {there} there, {here} here")
    return changed

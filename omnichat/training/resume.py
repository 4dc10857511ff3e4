"""From a run to its checkpoint and back."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from omnichat import build, checkpoint
from omnichat.checkpoint import Checkpoint, trainable
from omnichat.config import ConfigError, RunConfig
from omnichat.recipes import locate
from omnichat.training.engines import gather
from omnichat.training.module import OmniChatModule

# What a resumed run may change: how it runs and what it writes, never what it learns from, or what learns.
FREE_SECTIONS = ("run_name", "resume", "preflight", "threads", "logger", "evaluation")
FIXED_TRAINER_KEYS = ("dialogues_per_step", "tokens_per_step")


class CheckpointWriter:
    """Saves what is trained, its config, versions and the hashes of what is frozen; keeps the newest `keep_last`."""

    def __init__(self, config: RunConfig, folder: Path, stream: str, style_fields: tuple[str, ...]) -> None:
        self.config = config
        self.stream = stream
        self.style_fields = style_fields
        self.folder = folder
        self._frozen: dict[str, dict[str, str]] | None = None

    def __call__(self, trainer: pl.Trainer, module: OmniChatModule) -> None:
        """Save the step that just ended: gathered from all ranks, written by rank 0.

        Raises:
            CheckpointError: the disk refuses.
        """
        weights, moments = gather(trainer, trainable(module.model))
        if not trainer.is_global_zero:
            return
        groups: dict[str, dict[str, Tensor]] = {"mixformer": {}, "adapter": {}, "optimizer": moments}
        for name, tensor in weights.items():
            groups["mixformer" if name.startswith("mixformer.") else "adapter"][name] = tensor
        if self._frozen is None:
            self._frozen = frozen_identities(self.config)
        state = {
            "config": self.config.model_dump(mode="json"),
            "stream": self.stream,
            "style_fields": self.style_fields,
            "frozen": self._frozen,
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in ("torch", "lightning", "transformers", "peft")},
        }
        checkpoint.save_checkpoint(self.folder, trainer.global_step, {k: v for k, v in groups.items() if v}, state)
        checkpoint.purge(self.folder, self.config.trainer.keep_last)

    def note_best(self, step: int, metric: str, value: float) -> None:
        """Keep the checkpoint of this step, which has been saved, as the best so far."""
        checkpoint.mark_best(self.folder, step, metric, value)
        checkpoint.purge(self.folder, self.config.trainer.keep_last)

    def best_value(self) -> float:
        """The lowest loss noted so far, infinite where there is none."""
        noted = checkpoint.best(self.folder)
        return noted[1] if noted is not None else float("inf")


def frozen_identities(config: RunConfig) -> dict[str, dict[str, str]]:
    """Path and sha256 of every frozen part."""
    paths = build.expert_checkpoints(config) | {"llm": str(config.model.llm.checkpoint)}
    return {name: {"path": path, "sha256": checkpoint.file_sha256(locate(path))} for name, path in paths.items()}


def starting_point(config: RunConfig, folder: Path) -> Checkpoint | None:
    """The checkpoint that `config.resume` asks for; None to start afresh.

    Raises:
        ConfigError: the folder's checkpoints are another config's (lists the keys that differ), or `resume=never`
            and there are some.
        CheckpointError: `resume=PATH` names a checkpoint that is not valid.
    """
    if config.resume == "never":
        if checkpoint.list_checkpoints(folder):
            raise ConfigError(
                [f"resume: never, but {folder} holds checkpoints; choose another run_name= or delete them"]
            )
        return None
    if config.resume != "auto":
        return checkpoint.load_checkpoint(locate(config.resume))
    newest, refused = checkpoint.newest_valid(folder)
    for reason in refused:
        print(f"refused: {reason}", flush=True)
    if newest is None:
        return None
    start = checkpoint.load_checkpoint(newest)
    if changed := _changed_keys(start.state["config"], config.model_dump(mode="json")):
        raise ConfigError(
            [
                *changed,
                f"run_name: {folder.parent} holds checkpoints of another config; "
                "train this one elsewhere with run_name=NAME, or set the keys back",
            ]
        )
    return start


def _changed_keys(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    changed = []
    for key in sorted(before.keys() | now.keys()):
        name, old, new = f"{prefix}{key}", before.get(key), now.get(key)
        if name in FREE_SECTIONS or (prefix == "trainer." and key not in FIXED_TRAINER_KEYS) or old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            changed += _changed_keys(old, new, f"{name}.")
        else:
            changed.append(f"{name}: {json.dumps(old)} there, {json.dumps(new)} here")
    return changed

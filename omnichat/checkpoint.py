"""Checkpoints: only what is trained, as safetensors and JSON, whole or not at all.

A checkpoint is a folder named by its step. It is written beside its place, made durable, and renamed;
`manifest.json`, written last, holds the size and sha256 of every file, and its own. A folder without a manifest is
not a checkpoint, and a file that does not match its entry is refused by name.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from omnichat.file_hashes import file_sha256
from omnichat.run_folder import MANIFEST

STATE = "state.json"
TEMPORARY = ".partial-"
BEST = "best.json"
AnyTensor = TypeVar("AnyTensor", bound=Tensor)
FORMAT = 2  # 1 had no sha256 of the manifest itself


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and the cure."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds.

    `tensors` maps a file's stem (`mixformer`, `adapter`, `optimizer`) to its named tensors.
    """

    path: Path
    step: int
    state: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]

    def weights(self) -> dict[str, Tensor]:
        """What is trained, by parameter name, without the optimizer's moments."""
        groups = [group for stem, group in self.tensors.items() if stem != "optimizer"]
        return {name: tensor for group in groups for name, tensor in group.items()}


def save_checkpoint(
    folder: Path | str, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> Path:
    """Write `folder/<step>` so that a crash at any instant leaves either nothing or a valid checkpoint.

    Raises:
        CheckpointError: the disk refuses; names the path, the bytes needed and the bytes free.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    target, partial = folder / str(step), folder / f"{TEMPORARY}{step}"
    shutil.rmtree(partial, ignore_errors=True)
    needed = sum(tensor.nbytes for group in tensors.values() for tensor in group.values())
    try:
        partial.mkdir()
        for stem, group in tensors.items():
            # A copy on the CPU: tensors that share storage are refused by safetensors.
            save_file(
                {name: tensor.detach().cpu().clone() for name, tensor in group.items()}, partial / f"{stem}.safetensors"
            )
        (partial / STATE).write_text(json.dumps({"step": step, **state}, indent=1), encoding="utf-8")
        files = {path.name: _fingerprint(path) for path in sorted(partial.iterdir())}
        manifest = {"format": FORMAT, "step": step, "files": files}
        (partial / MANIFEST).write_text(
            json.dumps(manifest | {"sha256": _content_sha256(manifest)}, indent=1), encoding="utf-8"
        )
        for path in partial.iterdir():
            _flush(path)
        _flush(partial)
        if target.exists():  # the same step again, after a resume: the old one made the same claim
            shutil.rmtree(target)
        partial.rename(target)
        _flush(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        free = shutil.disk_usage(folder).free
        raise CheckpointError(
            f"{target}: could not be saved ({error}); {needed:,} bytes are needed, {free:,} are free. "
            "Free disk space, or train on another disk with hydra.run.dir=FOLDER; earlier checkpoints are untouched"
        ) from None
    return target


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read and verify one checkpoint folder.

    Raises:
        CheckpointError: no manifest, a missing file, a wrong size or sha256; names the file.
    """
    path = Path(path)
    manifest = verify(path)
    try:
        state = dict(json.loads((path / STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path / STATE}: is no JSON object ({error}); use an earlier checkpoint") from None
    stems = [Path(name).stem for name in manifest["files"] if name.endswith(".safetensors")]
    try:
        tensors = {stem: load_file(path / f"{stem}.safetensors") for stem in stems}
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not safetensors ({error}); resume from an earlier checkpoint") from None
    return Checkpoint(path, int(manifest["step"]), state, tensors)


def verify(path: Path | str) -> dict[str, Any]:
    """The manifest of a checkpoint whose every file matches it.

    Raises:
        CheckpointError: see `load_checkpoint`.
    """
    path = Path(path)
    damaged = f"{path / MANIFEST}: is damaged ({{}}); use an earlier checkpoint"
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files, noted = dict(manifest["files"]), manifest.pop("sha256", None)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{path}: has no {MANIFEST}, so it is not a complete checkpoint") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(damaged.format(error)) from None
    if noted != _content_sha256(manifest) and not (noted is None and manifest.get("format") == 1):
        raise CheckpointError(damaged.format("it does not match its own sha256"))
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file}: is missing; use an earlier checkpoint")
        if _fingerprint(file) != expected:
            raise CheckpointError(f"{file}: does not match its sha256 in the manifest; use an earlier checkpoint")
    return manifest


def newest_valid(folder: Path | str) -> tuple[Path | None, list[str]]:
    """The newest checkpoint of a folder that verifies, and why each newer one was refused."""
    refused = []
    for path in reversed(list_checkpoints(folder)):
        try:
            verify(path)
        except CheckpointError as error:
            refused.append(str(error))
        else:
            return path, refused
    return None, refused


def find_checkpoint(folder: Path | str, which: str = "newest") -> Path:
    """The checkpoint of a folder that `which` names: `newest` (that is valid), `best` (`mark_best`), or a step.

    Raises:
        CheckpointError: there is none; says what was refused and why, or which steps there are.
    """
    folder = Path(folder)
    if which == "newest":
        path, refused = newest_valid(folder)
        if path is None:
            reasons = "".join(f"\n  refused: {reason}" for reason in refused)
            raise CheckpointError(f"{folder.parent}: holds no valid checkpoint; train first, or correct run={reasons}")
        for reason in refused:
            print(f"refused: {reason}", file=sys.stderr)
        return path
    steps = ", ".join(path.name for path in list_checkpoints(folder)) or "none"
    if which == "best":
        noted = best(folder)
        if noted is None:
            raise CheckpointError(
                f"{folder}: no checkpoint is noted as the best, which takes trainer.validate_every and data.val; "
                f"name newest or a step ({steps})"
            )
        return noted[0]
    if not which.isdecimal():
        raise CheckpointError(f"checkpoint={which}: is not newest, best or a step ({steps})")
    if not (folder / which).is_dir():
        raise CheckpointError(f"{folder}: has no checkpoint of step {which}; there are: {steps}")
    return folder / which


def list_checkpoints(folder: Path | str) -> list[Path]:
    """Folders named by a step, oldest first, valid or not."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted(
        (path for path in folder.iterdir() if path.is_dir() and path.name.isdecimal()), key=lambda path: int(path.name)
    )


def mark_best(folder: Path | str, step: int, metric: str, value: float) -> None:
    """Note, durably, that the checkpoint of `step` has the best `metric` so far: `purge` never deletes it.

    Raises:
        CheckpointError: the disk refuses; the note before stays.
    """
    folder = Path(folder)
    partial = folder / f"{TEMPORARY}{BEST}"
    try:
        partial.write_text(json.dumps({"step": step, "metric": metric, "value": value}), encoding="utf-8")
        _flush(partial)
        partial.rename(folder / BEST)
        _flush(folder)
    except OSError as error:
        raise CheckpointError(
            f"{folder / BEST}: that step {step} is the best could not be written ({error.strerror}); free disk space, "
            "and the same command goes on from the last checkpoint"
        ) from None


def best(folder: Path | str) -> tuple[Path, float] | None:
    """The checkpoint noted by `mark_best` and its value; None where there is none, or it is gone."""
    folder = Path(folder)
    try:
        noted = json.loads((folder / BEST).read_text(encoding="utf-8"))
        path, value = folder / str(int(noted["step"])), float(noted["value"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (path, value) if (path / MANIFEST).is_file() else None


def purge(folder: Path | str, keep: int, saved: int) -> list[Path]:
    """Delete all but the newest `keep` checkpoints and the best; sweep what a crash left half written.

    Args:
        folder: of the checkpoints.
        keep: how many; 0 for all.
        saved: the step that has just been saved. Later ones, which the run could not go on from, neither count nor go.
    """
    folder, noted = Path(folder), best(folder)
    kept = {noted[0]} if noted is not None else set()
    for partial in folder.glob(f"{TEMPORARY}*"):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
    up_to = [path for path in list_checkpoints(folder) if int(path.name) <= saved]
    old = [path for path in up_to[:-keep] if path not in kept] if keep > 0 else []
    for path in old:
        # Without its manifest a folder is no checkpoint, so a crash half way through deletes it logically at once.
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
    return old


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Named parameters that are trained, in a stable order."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def in_parts(trained: Mapping[str, AnyTensor], rest: str) -> dict[str, dict[str, AnyTensor]]:
    """What is trained, by its part: the `mixformer`, and the `rest` under the name given."""
    parts: dict[str, dict[str, AnyTensor]] = {"mixformer": {}, rest: {}}
    for name, one in trained.items():
        parts["mixformer" if name.startswith("mixformer.") else rest][name] = one
    return parts


def restore_trained(model: nn.Module, start: Checkpoint) -> None:
    """Put a checkpoint's trained tensors into the model.

    Raises:
        CheckpointError: lists every missing, unexpected or differently shaped tensor.
    """
    have = start.weights()
    want = trainable(model)
    faults = [f"missing {name}" for name in sorted(want.keys() - have.keys())]
    faults += [f"unexpected {name}" for name in sorted(have.keys() - want.keys())]
    faults += [
        f"{name}: shape {tuple(have[name].shape)} there, {tuple(want[name].shape)} in the model"
        for name in sorted(want.keys() & have.keys())
        if have[name].shape != want[name].shape
    ]
    if faults:
        raise CheckpointError(f"{start.path}: does not fit the model of this config:\n  " + "\n  ".join(faults))
    with torch.no_grad():
        for name, parameter in want.items():
            parameter.copy_(have[name])


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes: equal weights give equal hashes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _content_sha256(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _fingerprint(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

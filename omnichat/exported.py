"""An exported run as a checkpoint again: what chat, evaluation and `init_from` load where they are given an export.

OUT/
    mixformer.safetensors        adapter_model.safetensors, adapter_config.json   as PEFT lays it out
    omnichat_config.yaml         the run's config; paths of weights in it may be edited
    omnichat_export.json         step, style fields, sha256 of the two and of what was frozen
"""

import json
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from omnichat.checkpoint import Checkpoint, CheckpointError, find_checkpoint, load_checkpoint
from omnichat.file_hashes import file_sha256
from omnichat.run_folder import CHECKPOINTS, EXPORTED_CONFIG, MANIFEST

ADAPTER, MIXFORMER, RECORD = "adapter_model.safetensors", "mixformer.safetensors", "omnichat_export.json"
FORMAT = 1
KEPT = ("style_fields", "frozen", "versions")  # of a checkpoint's state, beside its config


def load_trained(folder: Path | str, which: str = "newest") -> Checkpoint:
    """What was trained: of a run's folder the checkpoint that `which` names, of an export its only one.

    Raises:
        CheckpointError: no such checkpoint, or a damaged one; see `find_checkpoint`.
    """
    folder = Path(folder)
    if not (folder / RECORD).is_file():
        return load_checkpoint(find_checkpoint(folder / CHECKPOINTS, which))
    start = read_export(folder)
    if which not in ("newest", str(start.step)):
        raise CheckpointError(f"checkpoint={which}: {folder} is an export of step {start.step} and holds no other")
    return start


def read_export(folder: Path | str) -> Checkpoint:
    """An export's weights and config, as the checkpoint they came from had them, without the optimizer's moments.

    Raises:
        CheckpointError: a file is missing, damaged, or of a newer version; names it.
    """
    folder = Path(folder)
    record = _record(folder / RECORD)
    for name, sha256 in record["files"].items():
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name}: is missing; copy the whole export again")
        if file_sha256(folder / name) != sha256:
            raise CheckpointError(f"{folder / name}: does not match its sha256 in {RECORD}; copy the export again")
    try:
        config = yaml.safe_load((folder / EXPORTED_CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        message = " ".join(str(error).split())
        raise CheckpointError(
            f"{folder / EXPORTED_CONFIG}: cannot be read ({message}); copy the export again"
        ) from None
    try:
        tensors = {"mixformer": {f"mixformer.{n}": t for n, t in load_file(folder / MIXFORMER).items()}}
        if ADAPTER in record["files"]:
            tensors["adapter"] = our_names(load_file(folder / ADAPTER))
    except SafetensorError as error:
        raise CheckpointError(f"{folder}: not safetensors ({error}); export the run again") from None
    state = {name: record[name] for name in KEPT if name in record}
    return Checkpoint(folder, int(record["step"]), state | {"config": config}, tensors)


def write_record(folder: Path, start: Checkpoint) -> None:
    """Note what an export holds, once its weights lie in `folder`.

    Raises:
        OSError: the disk refuses.
    """
    files = {name: file_sha256(folder / name) for name in (MIXFORMER, ADAPTER) if (folder / name).is_file()}
    record = {
        "format": FORMAT,
        "step": start.step,
        "checkpoint": file_sha256(start.path / MANIFEST),
        "files": files,
        **{name: start.state[name] for name in KEPT if name in start.state},
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def peft_names(adapter: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names of LoRA's tensors -> those in PEFT's files.

    `llm.model.layers.0.self_attn.q_proj.lora_A.default.weight` becomes
    `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` (peft/utils/save_and_load.py).
    """
    return {
        f"base_model.model.{name.removeprefix('llm.').replace('.default.', '.')}": tensor
        for name, tensor in adapter.items()
    }


def our_names(adapter: dict[str, Tensor]) -> dict[str, Tensor]:
    """The way back from `peft_names`."""
    return {
        "llm." + name.removeprefix("base_model.model.").replace(".weight", ".default.weight"): tensor
        for name, tensor in adapter.items()
    }


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        newer, whole = record["format"] > FORMAT, isinstance(record["files"], dict) and MIXFORMER in record["files"]
        int(record["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: is damaged ({error!r}); copy the export again") from None
    if newer:
        raise CheckpointError(f"{path}: is of format {record['format']}, this version reads {FORMAT}; update omnichat")
    if not whole or set(record["files"]) - {MIXFORMER, ADAPTER}:  # no path that leads out of the folder
        raise CheckpointError(f"{path}: is damaged (its list of files); copy the export again")
    return dict(record)

"""A checkpoint of a run as PEFT, transformers and a reader of model cards expect it."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig, PeftModel
from safetensors.torch import save_file

from omnichat import build
from omnichat.checkpoint import (
    STATE,
    TEMPORARY,
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
)
from omnichat.config import ConfigError, RunConfig, saved_config
from omnichat.exported import ADAPTER, MIXFORMER, peft_names, write_record
from omnichat.model_card import model_card
from omnichat.models.llm import load_llm
from omnichat.recipes import locate
from omnichat.run_folder import CHECKPOINTS, EXPORTED_CONFIG

CARD, MERGED = "README.md", "merged"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
    "chat_template.jinja",
)  # fmt: skip


def export(run_dir: Path | str, out: Path | str, which: str = "newest", merge: bool = False) -> Checkpoint:
    """Write a checkpoint of a run into the new folder `out`, all of it or nothing; returns the checkpoint.

    Args:
        run_dir: of `train.py`.
        out: where to; absent or empty.
        which: see `find_checkpoint`.
        merge: write `merged/` too, which loads the whole language model.

    Raises:
        CheckpointError: no such checkpoint, or a damaged one.
        ConfigError: `out` is in use, or there is no adapter to merge.
        ValueError: the language model cannot be loaded; see `load_llm`.
    """
    run_dir, out = locate(str(run_dir)), Path(out)
    start = load_checkpoint(find_checkpoint(run_dir / CHECKPOINTS, which))
    config = saved_config(start.state["config"], start.path / STATE)
    faults = [f"out: {out} is not an empty folder; name a new one"] if out.exists() and _in_use(out) else []
    if merge and not config.model.lora.enabled:
        faults.append("merge: the run has model.lora.enabled=false, so there is no adapter to merge")
    base = locate(str(config.model.llm.checkpoint))
    if not (base / "tokenizer.json").is_file():
        faults.append(f"run: {base}, the language model that was trained on, has no tokenizer.json; put it back")
    if faults:
        raise ConfigError(faults)
    partial = out.with_name(f"{TEMPORARY}{out.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write_parts(partial, config, start, base)
        if merge:
            _write_merged(partial, base, build.DTYPES[config.model.llm.dtype])
        (partial / CARD).write_text(model_card(run_dir, config, start, merge), encoding="utf-8")
        os.replace(partial, out)  # an empty folder gives way
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return start


def _in_use(out: Path) -> bool:
    return not out.is_dir() or any(out.iterdir())


def _write_parts(folder: Path, config: RunConfig, start: Checkpoint, base: Path) -> None:
    mixformer = start.tensors["mixformer"]
    save_file({n.removeprefix("mixformer."): t for n, t in mixformer.items()}, folder / MIXFORMER, {"format": "pt"})
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (folder / EXPORTED_CONFIG).write_text(text, encoding="utf-8")
    if config.model.lora.enabled:
        save_file(peft_names(start.tensors["adapter"]), folder / ADAPTER, {"format": "pt"})
        lora = config.model.lora
        scale: Any = lora.alpha
        LoraConfig(
            r=lora.rank,
            lora_alpha=scale,
            lora_dropout=lora.dropout,
            target_modules=sorted(lora.targets),
            bias="none",
            task_type="CAUSAL_LM",
            inference_mode=True,
            base_model_name_or_path=str(config.model.llm.checkpoint),
        ).save_pretrained(str(folder))
    write_record(folder, start)
    _copy_tokenizer(base, folder)
    _copy_licence(base, folder)


def _write_merged(folder: Path, base: Path, dtype: torch.dtype) -> None:
    """The language model with the adapter that has just been written, merged by PEFT."""
    merged: Any = PeftModel.from_pretrained(load_llm(base, dtype), str(folder)).merge_and_unload(safe_merge=True)
    out = folder / MERGED
    merged.save_pretrained(out)
    path = out / "config.json"
    path.write_text(json.dumps(readable_by_4(json.loads(path.read_text(encoding="utf-8"))), indent=2), encoding="utf-8")
    _copy_tokenizer(base, out)
    _copy_licence(base, out)


def readable_by_4(values: dict[str, Any]) -> dict[str, Any]:
    """A Llama's `config.json` of transformers 5 with the keys that 4.57 looks for as well.

    Without them 4.57 takes rope_theta 10000 and no scaling, in silence: another model.
    """
    rope = dict(values.get("rope_parameters") or {})
    if not rope:
        return values
    theta = rope.pop("rope_theta", values.get("rope_theta"))
    scaling = None if rope.get("rope_type", "default") == "default" else rope
    return {**values, "rope_theta": theta, "rope_scaling": scaling, "torch_dtype": values.get("dtype")}


def _copy_licence(base: Path, folder: Path) -> None:
    """Llama's licence asks for its text beside its weights, and beside what was trained on them."""
    for pattern in ("LICENSE*", "NOTICE*", "USE_POLICY*"):
        for file in base.glob(pattern):
            shutil.copy(file, folder)


def _copy_tokenizer(base: Path, folder: Path) -> None:
    """The tokenizer's files, under the class that both transformers 4 and 5 know.

    `TokenizersBackend`, as 5 calls it, does not exist in 4; all that is needed stands in `tokenizer.json`.
    """
    for name in TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copy(base / name, folder)
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(values.get("extra_special_tokens"), list):  # 5 renamed it; 4 fails on a list of that name
        values["additional_special_tokens"] = values.pop("extra_special_tokens")
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

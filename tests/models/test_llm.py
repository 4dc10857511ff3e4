"""Loading a language model, and LoRA in it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from omnichat.models.llm import add_lora, load_llm
from omnichat.models.target_loss import target_losses
from omnichat.models.tiny import write_tokenizer
from tests.models.conftest import LENGTHS, embeddings, packed


def test_lora_is_all_that_trains(folder: Path) -> None:
    """Fails when a frozen weight trains, or adapters inherit bfloat16, in which AdamW's steps are lost."""
    model = load_llm(folder, torch.bfloat16)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    add_lora(model, rank=2, alpha=4)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * 2  # layers x (q, v) x (A, B)
    assert all("lora_" in name and ("q_proj" in name or "v_proj" in name) for name in trained)
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    rows = [row.bfloat16() for row in embeddings()]
    loss = target_losses(model, torch.cat(packed(model, rows)), torch.arange(sum(LENGTHS))).sum()
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.values())


@pytest.mark.parametrize("targets", [("q_proj", "key"), ("lm_head",), ()])
def test_wrong_lora_targets_are_refused(folder: Path, targets: tuple[str, ...]) -> None:
    """Fails when a misspelt target trains less than was asked for, without a word."""
    with pytest.raises(ValueError, match=r"LoRA targets .*: the model's linear layers are down_proj, gate_proj"):
        add_lora(load_llm(folder), 2, 4, targets=targets)


def edit_weights(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    """A fault: the weights file after `change`."""

    def fault(path: Path) -> None:
        state = load_file(path / "model.safetensors")
        change(state)
        save_file(state, path / "model.safetensors", metadata={"format": "pt"})

    return fault


def edit_config(path: Path, **values: object) -> None:
    """Other values in config.json."""
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | values))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9085657\n"
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "no such folder"),
    "no config": (lambda p: (p / "config.json").unlink(), r"lacks config\.json"),
    "no tokenizer": (lambda p: (p / "tokenizer.json").unlink(), r"lacks tokenizer\.json"),
    "no weights": (
        lambda p: (p / "model.safetensors").unlink(),
        r"lacks model\.safetensors or model\.safetensors\.index\.json",
    ),
    "cut config": (lambda p: (p / "config.json").write_text("{"), "not a JSON object"),
    "other model": (lambda p: (p / "config.json").write_text('{"model_type": "bert"}'), "model_type is 'bert'"),
    "cut weights": (lambda p: (p / "model.safetensors").write_bytes(b"\x99" * 99), "is no safetensors file"),
    "half of the weights": (
        lambda p: (p / "model.safetensors").write_bytes((p / "model.safetensors").read_bytes()[:-9]),
        r"model\.safetensors: is truncated: [\d,]+ of [\d,]+ bytes; download it again",
    ),
    "pointer": (lambda p: (p / "tokenizer.json").write_bytes(LFS), r"tokenizer\.json: is a Git LFS pointer"),
    "shards are missing": (
        lambda p: (
            (p / "model.safetensors").rename(p / "model-00001-of-00002.safetensors")
            and (p / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
            )
        ),
        r"model-00002-of-00002\.safetensors: no such file, but model\.safetensors\.index\.json asks for it",
    ),
    "pickles alone": (
        lambda p: (p / "model.safetensors").rename(p / "pytorch_model.bin"),
        r"pytorch_model\.bin is a pickle, which is not read",
    ),
    "llama.cpp's": (
        lambda p: (p / "config.json").unlink() or (p / "llama-Q4.gguf").write_bytes(b"GGUF"),
        r"holds llama-Q4\.gguf, made for llama\.cpp",
    ),
    "hub's cache": (
        lambda p: shutil.move(p.rename(p.with_name("moved")), (p / "snapshots/0a")),
        r"the hub's cache; give the model in it, .*snapshots/0a",
    ),
    "quantised": (
        lambda p: edit_config(p, quantization_config={"quant_method": "awq"}),
        r"quantised \(awq\).*model\.llm\.quantization=nf4",
    ),
    "many missing": (lambda p: edit_config(p, num_hidden_layers=5), "27 missing keys: .* and 19 more"),
    "cut tokenizer": (lambda p: (p / "tokenizer.json").write_text("{"), "cannot be loaded"),
    "missing": (edit_weights(lambda s: s.pop("model.norm.weight")), r"1 missing keys: model\.norm\.weight"),
    "extra": (edit_weights(lambda s: s.update(extra=torch.zeros(1))), "unexpected keys: extra"),
    "shape": (
        edit_weights(lambda s: s.update({"model.norm.weight": torch.ones(3)})),
        r"mismatched keys: .*model\.norm\.weight",
    ),
    "vocabulary": (lambda p: write_tokenizer(p, [f"{n:05d} some word" for n in range(99)], 400), "the tokenizer that"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_damaged_folder_is_one_clear_error(folder: Path, tmp_path: Path, name: str) -> None:
    """Fails when a broken folder loads as a half-random model, or ends in another library's error."""
    damage, message = FAULTS[name]
    copy = tmp_path / "llama"
    shutil.copytree(folder, copy)
    load_llm(copy)
    damage(copy)
    with pytest.raises(ValueError, match=message) as caught:
        load_llm(copy)
    assert str(copy) in str(caught.value)

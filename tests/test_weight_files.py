"""What is wrong with downloaded weights is told from outside, by file, with the cure."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from omnichat.weight_files import (
    folder_faults,
    foreign,
    mistaken_for_a_folder,
    quantised,
    safetensors_fault,
    torch_fault,
)

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4976698672\n"


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>Sign in", "web page"),
        (b'\xef\xbb\xbf<?xml version="1.0"?><Error><Code>AuthenticationFailed</Code></Error>', "error message"),
        (LFS, "git lfs pull"),
        (b"GGUF\x03\x00\x00\x00", "llama.cpp"),
        (b"lmgg\x00", "whisper.cpp"),
    ],
)
def test_what_a_file_is_instead_of_weights(head: bytes, said: str) -> None:
    """BEATs' expired link left a server's XML behind a byte order mark, which torch calls an invalid load key."""
    what = foreign(head)
    assert what is not None
    assert said in what


@pytest.mark.parametrize("as_zip", [True, False])
def test_files_of_torch(tmp_path: Path, as_zip: bool) -> None:
    """A sound file must pass, in the format of either age, and half an archive must not."""
    path = tmp_path / "model.pt"
    torch.save({"model": {"w": torch.ones(99)}}, path, _use_new_zipfile_serialization=as_zip)
    assert torch_fault(path) is None
    if as_zip:
        path.write_bytes(path.read_bytes()[:-30])
        assert torch_fault(path) == "is truncated, the archive's end is missing"


def test_safetensors_are_measured_by_their_header(tmp_path: Path) -> None:
    """Half a shard of 5 GB is otherwise met after minutes, as `incomplete metadata`, without its name."""
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.ones(100), "v": torch.ones(3)}, path, metadata={"format": "pt"})
    whole = path.read_bytes()
    assert safetensors_fault(path) is None
    for content, said in (
        (whole[:-1], f"is truncated: {len(whole) - 1} of {len(whole)} bytes"),
        (whole[:40], "is truncated"),
        (whole + b"\0", f"is damaged: {len(whole) + 1} bytes where its header says {len(whole)}"),
        (whole[:8] + b"{]" + whole[10:], "is damaged: its header cannot be read"),
        (struct.pack("<Q", 2) + b"{}", None),
        (struct.pack("<Q", 4) + b"{..}", "is damaged: its header cannot be read"),
        (struct.pack("<Q", 10) + b'{"a": [1]}', "is damaged: its header cannot be read"),
        (b"\xff" * 8 + b"{", "is no safetensors file"),
        (b"PK\x03\x04 zip of tor", "is a file of torch.save, not of safetensors"),
        (LFS, "is a Git LFS pointer, not the file itself (`git lfs pull` gets it)"),
    ):
        path.write_bytes(content)
        assert safetensors_fault(path) == said, content[:60]


def test_every_file_of_a_folder_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    """Four shards of 5 GB that are missed one by one are four starts."""
    names = [f"model-{number:05d}-of-00004.safetensors" for number in range(1, 5)]
    save_file({"w": torch.ones(3)}, tmp_path / names[0])
    (tmp_path / names[1]).write_bytes(LFS)
    (tmp_path / names[2]).write_bytes((tmp_path / names[0]).read_bytes()[:-1])
    (tmp_path / "tokenizer.json").write_bytes(LFS)
    pointer = "is a Git LFS pointer, not the file itself (`git lfs pull` gets it)"
    assert folder_faults(tmp_path) == [
        f"{tmp_path}/tokenizer.json: {pointer}; download it again",
        f"{tmp_path}/model.safetensors.index.json: no such file, without which nothing tells what the shards beside it "
        "hold; download it again",
    ]
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {f"w{n}": n for n in names}}))
    lines = folder_faults(tmp_path)
    assert [Path(line.partition(": ")[0]).name for line in lines] == ["tokenizer.json", *names[1:]]
    assert [word in line for word, line in zip(("LFS", "LFS", "truncated", "no such file"), lines, strict=True)] == [
        True
    ] * 4


def test_an_index_that_leads_elsewhere_is_left_to_the_loader(tmp_path: Path) -> None:
    """A download must not make us open files outside its folder."""
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "../../secret"}}))
    assert folder_faults(tmp_path) == []


def test_what_was_meant_as_a_folder(tmp_path: Path) -> None:
    """Each near miss has a cure of its own: `lacks config.json` sends its user to download the same again."""

    def folder(name: str, *files: str) -> Path:
        for file in files:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"{}")
        return tmp_path / name

    cache = folder("models--a--b", "refs/main", "snapshots/0a1b/config.json")
    assert (
        mistaken_for_a_folder(cache) == f"is a folder of the hub's cache; give the model in it, {cache}/snapshots/0a1b"
    )
    for place, said in (
        (folder("gguf", "Llama-Q4_K_M.gguf", "README.md"), "holds Llama-Q4_K_M.gguf, made for llama.cpp"),
        (folder("lora", "adapter_config.json"), "is a LoRA adapter alone"),
        (folder("meta", "original/params.json"), "is Meta's own format"),
        (folder("file", "model.safetensors") / "model.safetensors", "give the folder that holds it"),
    ):
        assert said in (mistaken_for_a_folder(place) or "")
    assert mistaken_for_a_folder(folder("sound", "config.json", "adapter_config.json")) is None
    assert mistaken_for_a_folder(folder("half", "tokenizer.json")) is None
    assert mistaken_for_a_folder(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({}, None),
        ({"quantization_config": None}, None),
        ({"quantization_config": {"quant_method": "awq"}}, "awq"),
        ({"quantization": {"bits": 4}}, "its own"),  # as MLX writes it
    ],
)
def test_quantised(config: dict[str, object], method: str | None) -> None:
    """Weights of 4 bits would end in another library's wish for one more package."""
    assert quantised(config) == method

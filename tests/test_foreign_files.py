"""Files from elsewhere are read, never run: eight payloads in place of every file that a loader opens."""

import io
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate

from omnichat.checkpoint import load_checkpoint, save_checkpoint
from omnichat.config import load_config
from omnichat.data.feature_shards import _read_index
from omnichat.data.store import Store
from omnichat.evaluation.command import read_config
from omnichat.models.encoders import load_encoder
from omnichat.models.encoders.converted import save_converted
from omnichat.models.llm import load_llm
from omnichat.models.tiny import write_random_checkpoints


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.canary,)


class Imported:
    """Unpickled, it is the module os."""

    def __reduce__(self) -> Any:
        return __import__, ("os",)


class Attribute:
    """Unpickled, it is os.mkdir, found by a chain of getattr that names neither."""

    def __call__(self) -> None:
        """The pickler asks for something that can be called."""

    def __reduce__(self) -> Any:
        return getattr, (Imported(), "mkdir")


class Chain(Bomb):
    """As `Bomb`, by `Attribute`."""

    def __reduce__(self) -> Any:
        return Attribute(), (self.canary,)


def saved(content: Any, as_zip: bool = True) -> bytes:
    """By torch.save."""
    out = io.BytesIO()
    torch.save({"model": content}, out, _use_new_zipfile_serialization=as_zip)
    return out.getvalue()


def archived(canary: Path) -> bytes:
    """A pickle in the layout of a TorchScript archive, which torch.load hands to another loader."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(Bomb(canary)))) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
        target.writestr("archive/constants.pkl", source.read("archive/data.pkl"))
    return out.getvalue()


def tarred(canary: Path) -> bytes:
    """torch's oldest format: a tar of pickles."""
    out, pickled = io.BytesIO(), saved(Bomb(canary), as_zip=False)
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("sys_info", "storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.size = len(pickled)
            tar.addfile(member, io.BytesIO(pickled))
    return out.getvalue()


def object_array(canary: Path) -> bytes:
    """A .npy file of Python objects."""
    out = io.BytesIO()
    np.save(out, np.array([Bomb(canary)], dtype=object), allow_pickle=True)
    return out.getvalue()


PAYLOADS: dict[str, Callable[[Path], bytes]] = {
    "reduce": lambda canary: saved(Bomb(canary)),
    "getattr chain": lambda canary: saved(Chain(canary)),
    "not a zip": lambda canary: saved(Bomb(canary), as_zip=False),
    "tar": tarred,
    "torchscript": archived,
    "objects in npy": object_array,
    "yaml": lambda canary: f"!!python/object/apply:os.mkdir ['{canary}']\n".encode(),
    "hydra target": lambda canary: f"model: {{_target_: os.mkdir, _args_: ['{canary}']}}\n".encode(),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound files for every loader."""
    root = tmp_path_factory.mktemp("sound")
    paths = write_random_checkpoints(root / "weights")
    save_converted(load_encoder("beats", paths["beats"]), root / "converted")
    save_checkpoint(root, 1, {"mixformer": {"w": torch.ones(2)}}, {})
    (root / "config.yaml").write_text(yaml.safe_dump(load_config("recipe=smoke").model_dump(mode="json")))
    return root


LOADERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "whisper": ("weights/whisper.pt", lambda root: load_encoder("whisper", root / "weights/whisper.pt")),
    "beats": ("weights/beats.pt", lambda root: load_encoder("beats", root / "weights/beats.pt")),
    **{
        f"emotion2vec {name}": (
            f"weights/emotion2vec/{name}",
            lambda root: load_encoder("emotion2vec", root / "weights/emotion2vec"),
        )
        for name in ("model.pt", "config.yaml", "configuration.json")
    },
    **{
        f"converted {name}": (f"converted/{name}", lambda root: load_encoder("beats", root / "converted"))
        for name in ("encoder.json", "encoder.safetensors")
    },
    **{
        f"llm {name}": (f"weights/llama/{name}", lambda root: load_llm(root / "weights/llama"))
        for name in ("config.json", "tokenizer.json", "model.safetensors")
    },
    **{
        f"checkpoint {name}": (f"1/{name}", lambda root: load_checkpoint(root / "1"))
        for name in ("manifest.json", "state.json", "mixformer.safetensors")
    },
    "config of a run": ("config.yaml", lambda root: read_config(root, {})),
    "index of features": ("part.index.npy", lambda root: _read_index(root / "part.index.npy")),
    "store": ("store.jsonl", lambda root: Store(root / "store.jsonl")[0]),
}


def trusting(payload: bytes, name: str) -> None:
    """Read it as one must not."""
    if name == "yaml":
        yaml.unsafe_load(payload)
    elif name == "hydra target":
        instantiate(yaml.safe_load(payload))
    elif name == "objects in npy":
        np.load(io.BytesIO(payload), allow_pickle=True)
    elif name == "torchscript":  # torch hands it to TorchScript; the pickle in it is what others would read
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            torch.load(io.BytesIO(archive_without_constants(archive)), weights_only=False)
    else:
        torch.load(io.BytesIO(payload), weights_only=False)


def archive_without_constants(archive: zipfile.ZipFile) -> bytes:
    """The same archive, as torch.save would have written it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for name in archive.namelist():
            if not name.endswith("constants.pkl"):
                target.writestr(name, archive.read(name))
    return out.getvalue()


@pytest.mark.parametrize("name", PAYLOADS)
def test_the_payloads_work(name: str, tmp_path: Path) -> None:
    """Duds would prove nothing."""
    if name == "tar":
        with tarfile.open(fileobj=io.BytesIO(PAYLOADS[name](tmp_path / "ran"))) as tar:
            member = tar.extractfile("pickle")
            assert member is not None
            torch.load(io.BytesIO(member.read()), weights_only=False)
    else:
        trusting(PAYLOADS[name](tmp_path / "ran"), name)
    assert (tmp_path / "ran").is_dir()


@pytest.mark.parametrize("loader", LOADERS)
def test_no_loader_runs_what_it_reads(loader: str, folder: Path, tmp_path: Path) -> None:
    """Weights, checkpoints, configs and stores come from strangers: they may be refused, but never run."""
    root = shutil.copytree(folder, tmp_path / "sound")
    name, load = LOADERS[loader]
    for kind, payload in PAYLOADS.items():
        canary = tmp_path / "ran"
        (root / name).write_bytes(payload(canary))
        if name.startswith("1/") and not name.endswith("manifest.json"):
            sign(root / "1")
        with pytest.raises(ValueError) as caught:  # noqa: PT011, the kinds differ, all are ours
            load(root)
        assert not canary.exists(), kind
        assert "omnichat" in type(caught.value).__module__ or type(caught.value) is ValueError, (kind, caught.value)


def sign(path: Path) -> None:
    """As its author would: with a manifest that fits the payload."""
    from omnichat.checkpoint import FORMAT, _content_sha256, _fingerprint

    files = {file.name: _fingerprint(file) for file in sorted(path.iterdir()) if file.name != "manifest.json"}
    manifest = {"format": FORMAT, "step": 1, "files": files}
    (path / "manifest.json").write_text(json.dumps(manifest | {"sha256": _content_sha256(manifest)}))


def test_pickled_weights_beside_the_config_are_not_looked_for(folder: Path, tmp_path: Path) -> None:
    """transformers by itself falls back on pytorch_model.bin."""
    root = shutil.copytree(folder, tmp_path / "sound")
    (root / "weights/llama/model.safetensors").unlink()
    (root / "weights/llama/pytorch_model.bin").write_bytes(PAYLOADS["reduce"](tmp_path / "ran"))
    with pytest.raises(ValueError, match=r"lacks model\.safetensors"):
        load_llm(root / "weights/llama")
    assert not (tmp_path / "ran").exists()

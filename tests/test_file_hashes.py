"""Hashes of files and weights."""

import hashlib
import os
from pathlib import Path

import pytest

from omnichat.file_hashes import cached_sha256, file_sha256, weights_hash


def test_hash_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    """Stores and checkpoints name files by it, and others check them with sha256sum."""
    (tmp_path / "a.pt").write_bytes(b"weights" * 1_000_000)  # more than one block
    expected = hashlib.sha256(b"weights" * 1_000_000).hexdigest()
    assert file_sha256(tmp_path / "a.pt") == cached_sha256(tmp_path / "a.pt") == expected


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """A remembered hash of a file that was replaced would let other weights pass for the ones trained with."""
    folder = tmp_path / "model"
    (folder / "part").mkdir(parents=True)
    file = folder / "part" / "model.safetensors"
    file.write_bytes(b"one")
    before = cached_sha256(folder)
    assert before == file_sha256(folder)
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))  # a clock may be coarser than this test is quick
    assert cached_sha256(folder) == file_sha256(folder) != before
    file.rename(folder / "model.safetensors")
    assert cached_sha256(folder) == file_sha256(folder) != before


def test_a_model_is_known_by_what_it_computes_with(tmp_path: Path) -> None:
    """A read-me, or what a downloader notes beside the weights, makes no other model of them; weights and tables do."""
    (tmp_path / "config.yaml").write_text("a: 1")
    (tmp_path / "model.pt").write_bytes(b"one")
    before = weights_hash(tmp_path)
    (tmp_path / "README.md").write_text("# A model")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "model.pt.json").write_text("{}")
    assert weights_hash(tmp_path) == before
    (tmp_path / "config.yaml").write_text("a: 2, longer")
    assert weights_hash(tmp_path) != before
    assert weights_hash(tmp_path / "model.pt") not in ("", before)
    with pytest.raises(FileNotFoundError):
        weights_hash(tmp_path / "nowhere")

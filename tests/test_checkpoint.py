"""Checkpoints survive crashes whole or not at all, and a damaged one is refused by file name."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from omnichat.checkpoint import (
    CheckpointError,
    best,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    mark_best,
    newest_valid,
    purge,
    restore_trained,
    save_checkpoint,
    tensors_sha256,
)

TENSORS = {
    "mixformer": {"a.weight": torch.arange(6.0).reshape(2, 3)},
    "optimizer": {"a.weight.step": torch.tensor(3.0)},
}


def save(folder: Path, step: int = 5) -> Path:
    """A small checkpoint."""
    return save_checkpoint(folder, step, TENSORS, {"note": "x"})


def test_round_trip_is_bit_exact(tmp_path: Path) -> None:
    """What is saved comes back: a lossy dtype or a lost name would make a resumed run another run."""
    loaded = load_checkpoint(save(tmp_path))
    assert loaded.step == 5
    assert loaded.state["note"] == "x"
    assert {stem: tensors_sha256(group) for stem, group in loaded.tensors.items()} == {
        stem: tensors_sha256(group) for stem, group in TENSORS.items()
    }


def test_no_pickles(tmp_path: Path) -> None:
    """A checkpoint holds safetensors and JSON and nothing else: neither can execute code."""
    assert {path.suffix for path in save(tmp_path).iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize("name", ["mixformer.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "delete"])
def test_any_damage_is_refused_by_file_name(tmp_path: Path, name: str, damage: str) -> None:
    """safetensors itself does not notice a flipped bit; the manifest's sha256 must."""
    path = save(tmp_path) / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(path.parent)


def test_a_folder_without_manifest_is_not_a_checkpoint(tmp_path: Path) -> None:
    """A crash before the manifest must leave nothing that resume would take."""
    (save(tmp_path, 7) / "manifest.json").unlink()
    save(tmp_path, 5)
    path, refused = newest_valid(tmp_path)
    assert path == tmp_path / "5"
    assert len(refused) == 1
    assert "manifest.json" in refused[0]


@pytest.mark.parametrize("content", ['{"format": 2, "st', "", "null", "[]", '"files"', "{}", '{"files": 1}'])
def test_damaged_manifest_is_refused(tmp_path: Path, content: str) -> None:
    """A cut manifest, or something else in its place, must give the named error, not a traceback."""
    path = save(tmp_path) / "manifest.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        load_checkpoint(path.parent)


def test_what_else_lies_there_is_no_checkpoint(tmp_path: Path) -> None:
    """A folder that an editor or a file browser leaves beside them must not stop a run."""
    for name in (".ipynb_checkpoints", "old", "\u00b2"):
        (tmp_path / name).mkdir()
    (tmp_path / "9").write_text("a file")
    assert list_checkpoints(tmp_path) == []
    save(tmp_path, 5)
    assert newest_valid(tmp_path) == (tmp_path / "5", [])


def test_no_valid_checkpoint_is_said_with_its_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An older one may be taken, but not without a word; where there is none, it must be said why."""
    folder = tmp_path / "run" / "checkpoints"
    with pytest.raises(CheckpointError, match=r"run: holds no valid checkpoint; train first"):
        find_checkpoint(folder)
    save(folder, 3)
    (save(folder, 5) / "state.json").unlink()
    assert find_checkpoint(folder) == folder / "3"
    assert "refused: " in (said := capsys.readouterr().err)
    assert f"{folder / '5' / 'state.json'}: is missing" in said
    (folder / "3" / "manifest.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(folder)
    assert str(caught.value).count("\n  refused: ") == 2


def test_tensors_that_share_memory_are_saved(tmp_path: Path) -> None:
    """safetensors refuses them, at the first save of a run."""
    whole = torch.arange(6.0)
    path = save_checkpoint(tmp_path, 1, {"mixformer": {"whole": whole, "part": whole[2:]}}, {})
    found = load_checkpoint(path).tensors["mixformer"]
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "whole": [0, 1, 2, 3, 4, 5],
        "part": [2, 3, 4, 5],
    }


def test_saving_over_the_same_step_and_sweeping_partials(tmp_path: Path) -> None:
    """A run killed in a save leaves a partial folder; the next save of that step must not trip over it."""
    (tmp_path / ".partial-5").mkdir(parents=True)
    (tmp_path / ".partial-5" / "junk").write_text("half")
    save(tmp_path)
    save(tmp_path)
    (tmp_path / ".partial-9").mkdir()
    purge(tmp_path, keep=3, saved=5)
    assert [path.name for path in tmp_path.iterdir()] == ["5"]


def test_purge_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    """Deleting the checkpoint one resumes from would lose the run; deleting the best would lose its result."""
    for step in (1, 2, 3, 10):
        save(tmp_path, step)
    mark_best(tmp_path, 1, "validation/total", 0.5)
    purge(tmp_path, keep=2, saved=10)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["1", "3", "10"]
    assert best(tmp_path) == (tmp_path / "1", 0.5)
    purge(tmp_path, keep=0, saved=10)
    assert len(list_checkpoints(tmp_path)) == 3


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_the_newest_valid_and_the_best_are_kept(seed: int, tmp_path: Path) -> None:
    """Saves, damage, resumes and new bests in any order, kept as few as can be: what one goes on from is always there.

    A resume from behind a damaged checkpoint saves steps that are older than that.
    """
    draw, lowest, noted, step, behind = random.Random(seed), 1.0, 0, 0, 0
    for _ in range(40):
        step += draw.randint(1, 4)
        save(tmp_path, step)
        if draw.random() < 0.3:
            lowest, noted = lowest / 2, step
            mark_best(tmp_path, step, "validation/total", lowest)
        purge(tmp_path, keep=draw.randint(1, 3), saved=step)
        assert newest_valid(tmp_path)[0] == tmp_path / str(step)
        if noted:
            assert best(tmp_path) == (tmp_path / str(noted), lowest)
        if draw.random() < 0.3 and step != noted:
            (tmp_path / str(step) / "manifest.json").write_text("{")
            newest, refused = newest_valid(tmp_path)
            assert len(refused) >= 1
            behind += step > (step := int(newest.name) if newest is not None else 0)
    assert behind


def test_a_best_that_is_gone_or_damaged_is_none(tmp_path: Path) -> None:
    """A note without its checkpoint must not stop a run."""
    assert best(tmp_path) is None
    save(tmp_path, 1)
    mark_best(tmp_path, 2, "validation/total", 0.5)
    assert best(tmp_path) is None
    for content in ("[", "[]", "{}", "null", '{"step": null, "value": 1}', '{"step": 1, "value": "low"}'):
        (tmp_path / "best.json").write_text(content)
        assert best(tmp_path) is None


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed save names the path and keeps what was there."""
    save(tmp_path, 1)
    real = shutil.disk_usage(tmp_path)

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("omnichat.checkpoint.save_file", refuse)
    with pytest.raises(CheckpointError, match=r"No space left.*bytes are needed") as caught:
        save(tmp_path, 2)
    assert str(tmp_path / "2") in str(caught.value)
    assert real.total > 0
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    load_checkpoint(tmp_path / "1")


def test_restore_lists_every_mismatch(tmp_path: Path) -> None:
    """Another K, rank or expert set must be named in one message, never loaded in part."""
    model = torch.nn.Module()
    model.a = torch.nn.Linear(2, 2)  # a.weight (2, 2) where (2, 3) was saved, and a.bias that was not
    before = tensors_sha256(model.state_dict())
    with pytest.raises(CheckpointError) as caught:
        restore_trained(model, load_checkpoint(save(tmp_path)))
    assert "missing a.bias" in str(caught.value)
    assert "(2, 3) there, (2, 2) in the model" in str(caught.value)
    path = save_checkpoint(tmp_path, 6, {"mixformer": {"b": torch.zeros(2)} | model.state_dict()}, {})
    with pytest.raises(CheckpointError, match=r"config:\n  unexpected b$"):
        restore_trained(model, load_checkpoint(path))
    assert tensors_sha256(model.state_dict()) == before


def test_manifest_lists_every_file(tmp_path: Path) -> None:
    """A file outside the manifest would not be checked."""
    path = save(tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    assert set(manifest["files"]) == {file.name for file in path.iterdir()} - {"manifest.json"}

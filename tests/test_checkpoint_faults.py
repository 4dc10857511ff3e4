"""Checkpoints under kills at every point of a save, full disks and damage of every kind (docs/reliability.md)."""

import json
import os
import random
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from omnichat import checkpoint
from omnichat.checkpoint import CheckpointError, best, load_checkpoint, mark_best, newest_valid, purge, save_checkpoint
from tests.disk import durable_renames, files_up_to

TENSORS = {"mixformer": {"w": torch.arange(600.0)}, "optimizer": {"w.exp_avg": torch.arange(600.0) / 7}}
FILES = ("mixformer.safetensors", "optimizer.safetensors", "state.json", "manifest.json")
# What a save is made of: a kill comes just before one of these calls.
POINTS: tuple[tuple[Any, str], ...] = (
    (checkpoint, "save_file"), (checkpoint, "_fingerprint"), (checkpoint, "_flush"), (checkpoint.shutil, "rmtree"),
    (Path, "mkdir"), (Path, "write_text"), (Path, "rename"),
)  # fmt: skip


def save(folder: Path, step: int) -> Path:
    """A small checkpoint."""
    return save_checkpoint(folder, step, TENSORS, {"config": {"seed": step}})


def killed_before_call(number: int, act: Callable[[], object]) -> bool:
    """Whether a forked child that does `act` was killed, just before the number-th call of `POINTS`."""
    child = os.fork()
    if child == 0:
        calls = iter(range(number))

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                if next(calls, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **options)

            return call

        try:
            for owner, name in POINTS:
                setattr(owner, name, counted(getattr(owner, name)))
            act()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_kill_at_any_point_of_a_save_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files staged in TMPDIR, on another file system, are copied rather than renamed: a kill then tears the target.

    Lightning 2.6 lost its last.ckpt in that way.
    """
    other = Path("/dev/shm")
    elsewhere = tempfile.mkdtemp(dir=other if other.is_dir() and os.access(other, os.W_OK) else None)
    monkeypatch.setenv("TMPDIR", elsewhere)
    monkeypatch.setattr(tempfile, "tempdir", None)
    save(tmp_path, 1)
    seen, kills = set(), 0
    try:
        while killed_before_call(kills, lambda: save(tmp_path, 2)):
            kills += 1
            newest, refused = newest_valid(tmp_path)
            assert refused == [], kills
            assert newest is not None
            seen.add(load_checkpoint(newest).step)
            assert os.listdir(elsewhere) == [], kills
        assert kills >= 12  # every write, flush and rename
        assert seen == {1, 2}  # 2 where only the flush of the parent folder was yet to come
        purge(tmp_path, keep=5, saved=2)
        assert sorted(os.listdir(tmp_path)) == ["1", "2"]
    finally:
        os.rmdir(elsewhere)


def test_what_is_saved_outlives_the_power(tmp_path: Path) -> None:
    """A kill leaves what the kernel holds; a machine that goes down does not: files before names, and these too."""
    with durable_renames() as renamed:
        path = save(tmp_path, 1)
        assert renamed == {path: True}
        mark_best(tmp_path, 1, "validation/total", 0.5)
    assert renamed[tmp_path / "best.json"]


def damages(content: bytes, draw: random.Random) -> Iterator[tuple[str, bytes]]:
    """Cuts, zeros, and flipped bits."""
    for size in (0, 1, len(content) // 2, len(content) - 1):
        yield f"cut to {size}", content[:size]
    yield "zeroed", bytes(len(content))
    for _ in range(40):
        place, bit = draw.randrange(len(content)), draw.randrange(8)
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        yield f"bit {bit} of byte {place} flipped", bytes(flipped)


def test_every_corruption_is_refused_by_name_and_the_one_before_is_taken(tmp_path: Path) -> None:
    """safetensors and torch.load take a flipped bit without a word; in the manifest it would change a step."""
    save(tmp_path, 1)
    path, draw, count = save(tmp_path, 2), random.Random(0), 0
    for name in FILES:
        content = (path / name).read_bytes()
        for damage, damaged in damages(content, draw):
            (path / name).write_bytes(damaged)
            newest, refused = newest_valid(tmp_path)
            assert newest == tmp_path / "1", (name, damage)
            assert len(refused) == 1
            assert name in refused[0], (name, damage)
            with pytest.raises(CheckpointError, match=name):
                load_checkpoint(path)
            count += 1
        (path / name).write_bytes(content)
    assert count == 180
    assert newest_valid(tmp_path) == (path, [])


def test_a_manifest_of_before_it_had_a_hash_is_taken(tmp_path: Path) -> None:
    """Runs that were begun with an earlier version go on."""
    manifest = save(tmp_path, 1) / "manifest.json"
    values = json.loads(manifest.read_text())
    del values["sha256"]
    manifest.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        load_checkpoint(tmp_path / "1")
    manifest.write_text(json.dumps(values | {"format": 1, "sha256": "0"}))
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        load_checkpoint(tmp_path / "1")
    manifest.write_text(json.dumps(values | {"format": 1}))
    assert load_checkpoint(tmp_path / "1").step == 1


@pytest.mark.parametrize("size", [0, 100, 3_000])
def test_a_disk_that_refuses_leaves_what_was_there(size: int, tmp_path: Path) -> None:
    """A save that the kernel refuses, at its first file or a later one, says so and leaves no half checkpoint."""
    save(tmp_path, 1)
    large = TENSORS | {"optimizer": {"w": torch.zeros(5_000)}}
    with files_up_to(size), pytest.raises(CheckpointError, match=r"could not be saved.*bytes are needed.*are free"):
        save_checkpoint(tmp_path, 2, large, {})
    assert os.listdir(tmp_path) == ["1"]
    assert newest_valid(tmp_path) == (tmp_path / "1", [])


def test_a_note_of_the_best_that_the_disk_refuses_is_named(tmp_path: Path) -> None:
    """The note before must stay, and no bare OSError end the run."""
    save(tmp_path, 1)
    save(tmp_path, 2)
    mark_best(tmp_path, 1, "validation/total", 0.5)
    with files_up_to(3), pytest.raises(CheckpointError, match=r"best\.json: that step 2 is the best .*File too large"):
        mark_best(tmp_path, 2, "validation/total", 0.25)
    assert best(tmp_path) == (tmp_path / "1", 0.5)


def test_the_clock_does_not_choose_the_newest(tmp_path: Path) -> None:
    """Clocks jump, and copies have new times: the step says which checkpoint is the newest."""
    for step, seconds in ((2, 2_000_000_000), (10, 0)):
        os.utime(save(tmp_path, step), (seconds, seconds))
    assert newest_valid(tmp_path)[0] == tmp_path / "10"

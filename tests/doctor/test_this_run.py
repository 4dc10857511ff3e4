"""What a run needs: every file by its key, there or not, and whether it fits."""

from pathlib import Path

import pytest

from omnichat.config import load_config
from omnichat.doctor import findings
from omnichat.doctor.this_run import needed
from omnichat.training import preflight


def test_files_are_named_whether_there_or_not(tmp_path: Path) -> None:
    """A page that shows only faults leaves one to guess what was looked at."""
    (tmp_path / "real.jsonl").touch()
    config = load_config(
        "recipe=quickstart", "data.alpha=0", f"data.real={tmp_path}/real.jsonl", f"data.val.val={tmp_path}/no.jsonl"
    )
    found = {one.name: one for one in needed(config)}
    assert {name for name, one in found.items() if one.state == "missing"} == {"data.val.val"}
    assert found["data.val.val"].found == f"no file {tmp_path}/no.jsonl"
    assert found["data.val.val"].remedy == "correct the path"
    assert found["data.real"].found == f"{tmp_path}/real.jsonl"
    assert "model.encoders.whisper.checkpoint" in found
    assert "data.synthetic" not in found
    assert "a checkpoint takes" in found["disk"].found


def test_a_disk_without_room_for_two_checkpoints_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run would refuse to begin, once all weights are loaded."""
    monkeypatch.setattr(preflight, "AT_ONCE", 10**9)
    (found,) = (one for one in needed(load_config("recipe=quickstart")) if one.name == "disk")
    assert found.state == "missing"
    assert "must fit" in found.found
    assert "hydra.run.dir=FOLDER" in found.remedy


def test_workers_need_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without workers nothing is handed over, and a container's default is enough."""
    monkeypatch.setattr(findings, "SHARED_MEMORY", tmp_path / "none")
    states = {
        workers: [one.state for one in needed(load_config("recipe=smoke", f"data.num_workers={workers}"))]
        for workers in (0, 2)
    }
    assert "missing" not in states[0]
    assert "missing" in states[2]


def test_sizes_of_random_nets_are_said_not_to_be_counted() -> None:
    """A page without the line would be read as room enough."""
    (found,) = (one for one in needed(load_config("recipe=smoke")) if one.name == "sizes")
    assert found.state == "absent"
    assert "random nets have no sizes" in found.found

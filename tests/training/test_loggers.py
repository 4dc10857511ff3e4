"""Metrics reach TensorBoard and W&B where a config asks for it, and metrics.jsonl always."""

import json
from pathlib import Path

import pytest

from omnichat.config import load_config
from omnichat.training.fit import fit
from omnichat.training.loggers import JsonLinesLogger

QUICK = ("recipe=smoke", "data.made_up=4", "trainer.max_steps=2", "trainer.warmup_steps=1", "trainer.validate_every=0")


def test_tensorboard(tmp_path: Path) -> None:
    """A run that asks for TensorBoard leaves the loss of every step in an event file."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    fit(load_config(*QUICK, "logger.tensorboard=true"), tmp_path)
    accumulator = events.EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    logged = [(event.step, event.value) for event in accumulator.Scalars("loss/total")]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert logged == [(line["step"], pytest.approx(line["loss/total"], rel=1e-6)) for line in lines]


def test_wandb_without_a_key_stays_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mode=auto on a machine without a key must neither ask for one nor wait for the network."""
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    assert fit(load_config(*QUICK, "logger.wandb.mode=auto"), tmp_path / "run") == 0
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_metrics_after_the_checkpoint_are_written_once(tmp_path: Path) -> None:
    """Steps that a resumed run trains again, and a line that a kill cut short, must not stand in the record twice."""
    path = tmp_path / "metrics.jsonl"
    first = JsonLinesLogger(path)
    for step in (1, 2, 3):
        first.log_metrics({"loss/total": float(step)}, step)
    with path.open("a") as out:
        out.write('{"step": 4, "lo')
    JsonLinesLogger(path, resume_step=2).log_metrics({"loss/total": 3.5}, 3)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss/total": 1.0},
        {"step": 2, "loss/total": 2.0},
        {"step": 3, "loss/total": 3.5},
    ]

"""The kill drill finds what it looks for, and a short one passes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.drill.trials import SAVE_EVERY, Outcome, inspect
from omnichat.checkpoint import save_checkpoint


def run_folder(run_dir: Path, steps: int, *saved: int) -> Path:
    """A run that logged so many steps and saved some."""
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "metrics.jsonl").write_text("".join(f'{{"step": {step}}}\n' for step in range(1, steps + 1)) + '{"st')
    for step in saved:
        save_checkpoint(run_dir / "checkpoints", step, {"mixformer": {"w": torch.ones(2)}}, {})
    return run_dir


def test_a_run_within_an_interval_of_its_checkpoint_is_sound(tmp_path: Path) -> None:
    """The line that a kill cut off is no fault."""
    outcome = Outcome("random instants")
    inspect(run_folder(tmp_path / "run", 2 + SAVE_EVERY, 2), outcome)
    assert (outcome.faults, outcome.most_lost) == ([], SAVE_EVERY)


@pytest.mark.parametrize("damage", ["weights", "no save"])
def test_faults_are_found(damage: str, tmp_path: Path) -> None:
    """A drill that cannot fail proves nothing."""
    outcome, run_dir = Outcome("random instants"), tmp_path / "run"
    if damage == "weights":
        run_folder(run_dir, 2, 2)
        (run_dir / "checkpoints" / "2" / "mixformer.safetensors").write_bytes(b"")
        expected = "unreadable: .*mixformer.safetensors"
    else:
        run_folder(run_dir, 3)
        expected = "3 steps lost"
    inspect(run_dir, outcome)
    assert any(re.search(expected, fault) for fault in outcome.faults)


@pytest.mark.slow
def test_a_short_drill(tmp_path: Path) -> None:
    """Kills at random instants and inside saves; `make drill` does a hundred of each."""
    command = [sys.executable, "-m", "benchmarks.drill", "--kills", "3", "--seed", "1", "--keep", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("faults 0") == 2

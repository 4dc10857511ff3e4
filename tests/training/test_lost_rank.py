"""One of two ranks is killed: the other ends by itself, and says why. One is stopped: it is named, and waited for.

One is asked to end: both do, at the same step, after a save.
"""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from omnichat.checkpoint import load_checkpoint

JOB = Path(__file__).with_name("lost_rank_job.py")


def two_ranks(run_dir: Path, how: str) -> subprocess.CompletedProcess[str]:
    """The job's end, which is the first rank's."""
    command = [sys.executable, str(JOB), str(run_dir), how]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)


def test_a_killed_rank_ends_the_others(tmp_path: Path) -> None:
    """They would wait for it for ever: a run of eight GPUs then hangs until somebody looks."""
    ran = two_ranks(tmp_path / "run", "kill")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "rank 0: the connection to another rank is gone" in ran.stderr
    assert "goes on from the last checkpoint" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_rank_that_is_asked_to_end_ends_all_of_them_after_a_save(tmp_path: Path) -> None:
    """A scheduler that signals one process of a job: the others must not save at another step, nor wait for it."""
    ran = two_ranks(tmp_path / "run", "end")
    assert ran.returncode == 143, ran.stdout + ran.stderr
    assert "stopped by signal 15 at step" in ran.stdout
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert int(saved.name) == last["step"] == load_checkpoint(saved).step


def test_a_stopped_and_a_late_rank_are_named_and_waited_for(tmp_path: Path) -> None:
    """Without number and machine nobody knows where to look; and a rank that comes back must not have cost the run.

    It is stopped in its backward, where it has come as far as those that wait for it; then it lingers in its forward.
    """
    ran = two_ranks(tmp_path / "run", "stop")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rank = f"rank 1 on {re.escape(socket.gethostname())}"
    waiting = r"waiting since \d\d:\d\d:\d\d, \d+ s"
    assert len(re.findall(f"step 2: {waiting}: {rank} gives no sign of life", ran.stderr)) == 1, ran.stderr
    assert re.search(f"step 4: {waiting}: {rank} lives but is behind", ran.stderr), ran.stderr
    assert all(re.search(rf"step {step}: goes on after \d+ s", ran.stderr) for step in (2, 4)), ran.stderr
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]

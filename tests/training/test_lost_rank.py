"""One of two ranks is killed: the other ends by itself, and says why."""

import os
import subprocess
import sys
from pathlib import Path

JOB = Path(__file__).with_name("lost_rank_job.py")


def test_a_killed_rank_ends_the_others(tmp_path: Path) -> None:
    """They would wait for it for ever: a run of eight GPUs then hangs until somebody looks."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, str(JOB), str(tmp_path / "run")], capture_output=True, text=True, timeout=280, env=environment
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "rank 0: the connection to another rank is gone" in ran.stderr
    assert "goes on from the last checkpoint" in ran.stderr
    assert "Traceback" not in ran.stderr

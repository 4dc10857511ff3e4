"""A job of two processes on this machine, as torchrun starts it."""

import os
import subprocess
import sys
from pathlib import Path


def run_job(job: Path, *arguments: str, timeout: float) -> str:
    """What the job printed; it has to end well, within seconds."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "DS_ACCELERATOR": "cpu",
    }
    ran = subprocess.run(
        [*command, str(job), *arguments], capture_output=True, text=True, timeout=timeout, env=environment
    )
    assert ran.returncode == 0, ran.stderr[-8000:]
    return ran.stdout

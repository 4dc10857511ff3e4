"""A driver as a program of its own, to be killed: python driver.py FOLDER CALLS EXECUTOR."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))  # as a program, not through pytest

from data_prep.synthesis.executors import Inline, Job, Local
from data_prep.synthesis.leases import Lease
from data_prep.synthesis.ledger import LEDGER_FILE, Ledger
from data_prep.synthesis.runner import run_stage
from tests.data_prep.synthesis.stages import Sing

if __name__ == "__main__":
    folder, calls, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    job = Job(Sing(calls, pause=0.002), 7, folder / "blobs", 2 if kind == "local" else 1)
    path = folder / LEDGER_FILE
    with Ledger(path) as ledger, Lease(path, seconds=60) as lease:
        print("driving", flush=True)
        run_stage(ledger, lease, job, Local if kind == "local" else Inline)

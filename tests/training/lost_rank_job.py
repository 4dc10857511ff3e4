"""Two ranks of `train.py`, of which one is killed in mid-run: `python lost_rank_job.py RUN_DIR`, by test_lost_rank.py.

Ends as the other rank does. Both are forked from here, where everything is imported once.
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import train  # noqa: E402
from omnichat.training import fit  # noqa: E402

ARGUMENTS = (
    "recipe=smoke", "data.made_up=8", "trainer.validate_every=0", "trainer.save_every=0", "preflight=off",
    "trainer.max_steps=5000", "trainer.micro_batch=4", "trainer.devices=2", "trainer.strategy=ddp",
)  # fmt: skip
PATIENCE = 30  # s, from the kill to the other's end


def start(rank: int, run_dir: Path, port: int) -> int:
    """Fork a rank; its process id."""
    child = os.fork()
    if child:
        return child
    code: object = 1
    try:
        where = {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= where
        sys.argv = [str(ROOT / "train.py"), *ARGUMENTS, f"hydra.run.dir={run_dir}"]
        train.main()
        code = 0
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def main(run_dir: Path) -> int:
    """The other rank's exit code; 99 where it hangs."""
    assert fit  # imported for the ranks
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [start(rank, run_dir, port) for rank in (0, 1)]
    while not (run_dir / "metrics.jsonl").exists():
        if os.waitpid(ranks[0], os.WNOHANG)[0]:
            os.kill(ranks[1], signal.SIGKILL)
            return 98  # it did not even begin
        time.sleep(0.05)
    os.kill(ranks[1], signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        done, status = os.waitpid(ranks[0], os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(ranks[0], signal.SIGKILL)
    return 99


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

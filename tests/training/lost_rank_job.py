"""Two ranks of `train.py`, of which one is killed, stopped or asked to end: `python lost_rank_job.py RUN_DIR HOW`.

Run by test_lost_rank.py. Ends as the other rank does. Both are forked from here, where everything is imported once.
"""

import os
import signal
import socket
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import train  # noqa: E402
from omnichat.training import fit, slow_rank  # noqa: E402
from omnichat.training.module import OmniChatModule  # noqa: E402

ARGUMENTS = (
    "recipe=smoke", "data.made_up=8", "trainer.validate_every=0", "trainer.save_every=0", "preflight=off",
    "trainer.micro_batch=4", "trainer.devices=2", "trainer.strategy=ddp",
)  # fmt: skip
PATIENCE = 30  # s, from the kill to the other's end
HANGS = 200  # s, for all of a run in which a rank is stopped for a while
SILENT, BEHIND = "gives no sign of life", "lives but is behind"  # what the first rank says of the other


def start(rank: int, run_dir: Path, port: int, *arguments: str) -> int:
    """Fork a rank; its process id."""
    child = os.fork()
    if child:
        return child
    code: object = 1
    try:
        where = {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= where
        sys.argv = [str(ROOT / "train.py"), *ARGUMENTS, *arguments, f"hydra.run.dir={run_dir}"]
        train.main()
        code = 0
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def hold_up(told: Path) -> None:
    """This process stops itself in the backward of its second step, and lingers in its fourth until that is told."""
    step, numbers = OmniChatModule.training_step, count(1)

    def training_step(self: OmniChatModule, batch: Any, batch_idx: int) -> Any:
        loss, number = step(self, batch, batch_idx), next(numbers)
        if number == 2:
            loss.register_hook(lambda gradient: os.kill(os.getpid(), signal.SIGSTOP))
        while number == 4 and BEHIND not in told.read_text():
            time.sleep(0.05)
        return loss

    OmniChatModule.training_step = training_step  # type: ignore[method-assign]


def end_of(rank: int, seconds: float) -> int:
    """Its exit code; 99 where it hangs, and is killed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(rank, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(rank, signal.SIGKILL)
    return 99


def kill(run_dir: Path, port: int, number: int = signal.SIGKILL) -> int:
    """The other rank's exit code."""
    ranks = [start(rank, run_dir, port, "trainer.max_steps=5000") for rank in (0, 1)]
    while not (run_dir / "metrics.jsonl").exists():
        if os.waitpid(ranks[0], os.WNOHANG)[0]:
            os.kill(ranks[1], signal.SIGKILL)
            return 98  # it did not even begin
        time.sleep(0.05)
    os.kill(ranks[1], number)
    return end_of(ranks[0], PATIENCE)


def end(run_dir: Path, port: int) -> int:
    """The exit code of the rank that no signal was sent to."""
    return kill(run_dir, port, signal.SIGTERM)


def stop(run_dir: Path, port: int) -> int:
    """Wake the stopped rank once it is named; the first rank's exit code."""
    slow_rank.PATIENCE, slow_rank.BEAT, slow_rank.SILENCE = 1.0, 0.1, 3.0
    told = run_dir.with_suffix(".told")
    screen = os.dup(2)
    os.dup2(os.open(told, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
    first = start(0, run_dir, port, "trainer.max_steps=6")
    os.dup2(screen, 2)
    hold_up(told)
    second = start(1, run_dir, port, "trainer.max_steps=6")
    deadline = time.monotonic() + HANGS
    while SILENT not in told.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(5 * slow_rank.BEAT)  # to be told again, if it were
    os.kill(second, signal.SIGCONT)
    code = end_of(first, deadline - time.monotonic())
    if code != 0:
        os.kill(second, signal.SIGKILL)
    print(told.read_text(), file=sys.stderr)
    return code


def main(run_dir: Path, how: str) -> int:
    """The first rank's exit code; 99 where it hangs."""
    assert fit  # imported for the ranks
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {"kill": kill, "stop": stop, "end": end}[how](run_dir, port)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))

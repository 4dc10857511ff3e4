"""`python -m benchmarks.dead_wandb`: what a W&B that never answers costs a run, against a run without W&B.

The service is a socket that accepts and never answers. Runs of `recipe=smoke`, each in a process of its own:

- share: of the CPU time of the process that trains, from the first step's end to the last one's, what the W&B logger's
  calls and its thread used; judged.
- beside: steps while W&B's own processes run against steps while they are stopped, in turns of some steps within one
  run, by the clock: what those processes take away. Each turn's median over that of the turns before and after it; the
  mean with its 95 % interval (Student's t); judged. Two runs one after another differ by more than W&B could cost,
  because the machine does.
- start: seconds more from the call to the end of the first step than in a short run without W&B, the mean over pairs
  with its interval; judged.
- end: seconds more from the last step to the return, which waits for W&B for 30 s at most.

What W&B's own processes use, once a run, is printed apart.
"""

import argparse
import json
import math
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import lightning.pytorch as pl

LIMIT = 0.01  # of the steps
TURN = 10  # steps
SHORT = 20  # steps without W&B
SETTLED = 120  # steps, some 20 seconds: W&B has been imported and has given up connecting
START = 5.0  # seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 0 where the target is met, 1 where it is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dead_wandb",
        description="CPU time and clock of training beside a W&B that never answers, against none.",
        epilog="example: python -m benchmarks.dead_wandb --pairs 3 --steps 600",
    )
    parser.add_argument("--pairs", type=int, default=3, metavar="N", help="pairs of runs (default: 3)")
    parser.add_argument("--steps", type=int, default=600, metavar="N", help="steps of a run beside W&B (default: 600)")
    parser.add_argument("--worker", choices=["none", "dead"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not options.worker and options.steps < SETTLED + 4 * TURN:
        parser.error(f"--steps: at least {SETTLED + 4 * TURN}; the first {SETTLED} are not compared")
    if options.worker:
        print(json.dumps(_train(options.worker == "dead", options.steps)))
        return 0
    shares, besides, starts = [], list[float](), []
    for pair in range(options.pairs):
        none, dead = _in_process("none", SHORT), _in_process("dead", options.steps)
        shares.append(dead["logger"] / dead["steps"])
        besides += against_neighbours(dead["turns"])
        starts.append(dead["start"] - none["start"])
        print(
            f"pair {pair + 1}: {1e3 * statistics.median(dead['turns']):.1f} ms a step; with a dead W&B share "
            f"{100 * shares[-1]:.3f} %; by the clock start {starts[-1]:+.2f} s, end {dead['end'] - none['end']:+.1f} "
            f"s; W&B's own processes used {dead['children']:.1f} s of CPU",
            flush=True,
        )
    share, beside, start = statistics.median(shares), _interval(besides), _interval(starts)
    verdicts = [_verdict((share, share, share), LIMIT), _verdict(beside, math.log(1 + LIMIT)), _verdict(start, START)]
    ratio, low, high = map(math.exp, beside)
    print(
        f"{options.pairs} pairs, {options.steps} steps beside W&B: "
        f"share {100 * share:.3f} % ({100 * min(shares):.3f} to {100 * max(shares):.3f}; target <= {100 * LIMIT:g} %, "
        f"{verdicts[0]}), beside {ratio:.4f} ({low:.4f} to {high:.4f}, {len(besides)} turns of {TURN} steps; target <= "
        f"{1 + LIMIT:g}, {verdicts[1]}), start {start[0]:+.2f} s ({start[1]:+.2f} to {start[2]:+.2f}; target <= "
        f"{START:g}, {verdicts[2]}); load average {os.getloadavg()[0]:.1f}"
    )
    return 1 if "missed" in verdicts else 0


def against_neighbours(turns: Sequence[float]) -> list[float]:
    """Of every second value, from the second on, the logarithm over the mean of its two neighbours' logarithms.

    What drifts from turn to turn as on a straight line counts for nothing.
    """
    logs = [math.log(one) for one in turns]
    return [logs[k] - (logs[k - 1] + logs[k + 1]) / 2 for k in range(1, len(logs) - 1, 2)]


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of what pairs differ by, and the 95 % interval of it; without bounds where there is one pair."""
    from omnichat.evaluation.experiments.results import over_seeds  # with it comes scipy, which --help does without

    found = over_seeds(values)
    low, high = found.interval or (-math.inf, math.inf)
    return found.mean, low, high


def _verdict(interval: tuple[float, float, float], limit: float) -> str:
    _, low, high = interval
    return "met" if high <= limit else "missed" if low > limit else "open"


def _in_process(arm: str, steps: int) -> dict[str, Any]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hole:  # the kernel accepts; nobody ever answers
        address = f"http://127.0.0.1:{hole.getsockname()[1]}"
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "WANDB_BASE_URL": address,
            "WANDB_API_KEY": "0" * 40,  # no one's
        }
        command = [sys.executable, "-m", "benchmarks.dead_wandb", "--worker", arm, "--steps", str(steps)]
        ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def _train(dead: bool, steps: int) -> dict[str, Any]:
    """CPU seconds of the steps, of the logger in them, of processes beside; by the clock the seconds to the end of the
    first step, from the last one to the end, and of a step in each turn (median).
    """
    import lightning.pytorch as pl

    from omnichat.config import load_config
    from omnichat.training import fit
    from omnichat.training.loggers import WandbProcess

    used = [0.0]
    for name in ("log_metrics", "_feed"):  # what the steps call, and the thread that writes to W&B's process
        setattr(WandbProcess, name, _timed(getattr(WandbProcess, name), used))
    clock: list[tuple[float, float]] = []  # at the end of each step: CPU seconds, seconds
    took: list[list[float]] = []  # seconds of steps by turns, W&B's processes stopped in the first, third, ...

    class Clock(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
            now = time.process_time(), time.perf_counter()
            number = len(clock)  # of the step that ended, from 0 on
            if number >= SETTLED:
                if number % TURN == 0:
                    took.append([])
                took[-1].append(now[1] - clock[-1][1])
            clock.append(now)
            if dead and number + 1 >= SETTLED and (number + 1) % TURN == 0:
                _let_run(trainer, (number + 1 - SETTLED) // TURN % 2 == 1)

        def on_train_end(self, trainer: pl.Trainer, *_: object) -> None:
            if dead:
                _let_run(trainer, True)

    whole = fit._trainer
    fit._trainer = lambda config, run, first, callbacks: whole(config, run, first, [*callbacks, Clock()])
    overrides = (
        *("recipe=smoke", f"trainer.max_steps={steps}", "trainer.warmup_steps=1", "trainer.validate_every=0"),
        *("trainer.micro_batch=8", "trainer.save_every=0", "preflight=off", "trainer.log_every=10"),
        f"logger.wandb.mode={'online' if dead else 'disabled'}",
    )
    with tempfile.TemporaryDirectory() as folder:
        config, begun = load_config(*overrides), time.perf_counter()
        code = fit.fit(config, Path(folder))
        ended = time.perf_counter()
        assert code == 0
        log = Path(folder) / "wandb" / "process.log"
        if dead and "the run is kept offline" not in log.read_text(encoding="utf-8"):
            raise SystemExit(f"W&B did not meet the dead service: {log.read_text(encoding='utf-8')}")
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "steps": clock[-1][0] - clock[0][0],
        "logger": used[0],
        "children": children.ru_utime + children.ru_stime,
        "start": clock[0][1] - begun,
        "turns": [statistics.median(turn) for turn in took if len(turn) == TURN],
        "end": ended - clock[-1][1],
    }


def _let_run(trainer: "pl.Trainer", running: bool) -> None:
    """Go on with W&B's processes, or stop them."""
    from omnichat.training.loggers import WandbProcess

    for logger in trainer.loggers:
        if isinstance(logger, WandbProcess) and logger._process is not None:
            os.killpg(logger._process.pid, signal.SIGCONT if running else signal.SIGSTOP)


def _timed(method: Callable[..., None], used: list[float]) -> Callable[..., None]:
    """The method, its thread's CPU seconds added to `used`."""

    def timed(*given: object, **named: object) -> None:
        started = time.thread_time()
        method(*given, **named)
        used[0] += time.thread_time() - started

    return timed


if __name__ == "__main__":
    sys.exit(main())

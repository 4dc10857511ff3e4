"""`python -m benchmarks.dead_wandb`: what a W&B that never answers costs a run, against a run without W&B.

Pairs of whole runs of `recipe=smoke`, each in a process of its own, in turns; the service is a socket that accepts and
never answers.

- share: of the CPU time of the process that trains, from the first step's end to the last one's, what the W&B logger's
  calls and its thread used. Neighbours on the machine change it little, so it is judged.
- CPU ratio: of the steps with W&B to those without. It holds what the share may miss (caches, the interpreter's lock),
  and the noise of the machine.

And by the clock, which says something on a quiet machine only, means with 95 % intervals over pairs (Student's t):

- start: seconds more from the call to the end of the first step; judged.
- clock ratio of the steps, from the first one's end to the last one's: the throughput; judged.
- clock ratio of the whole run, from the call to its return, which waits for W&B at its end for 30 s at most.

What W&B's own processes use beside, once a run, is printed apart.
"""

import argparse
import json
import math
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

LIMIT = 0.01  # of the steps
START = 5.0  # seconds
# 97.5 % points of Student's t for 1, 2, ... degrees of freedom; beyond them the last, which is wider than need be.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 0 where the target is met, 1 where it is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dead_wandb",
        description="CPU time and clock of training beside a W&B that never answers, against none.",
        epilog="example: python -m benchmarks.dead_wandb --pairs 5 --steps 100",
    )
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="pairs of runs (default: 5)")
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="steps of each run (default: 100)")
    parser.add_argument("--worker", choices=["none", "dead"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        print(json.dumps(_train(options.worker == "dead", options.steps)))
        return 0
    ratios, shares, starts, clocks, wholes = [], [], [], [], []
    for pair in range(options.pairs):
        arms = ("none", "dead") if pair % 2 else ("dead", "none")
        found = {arm: _in_process(arm, options.steps) for arm in arms}
        none, dead = found["none"], found["dead"]
        ratios.append(dead["steps"] / none["steps"])
        shares.append(dead["logger"] / dead["steps"])
        starts.append(dead["start"] - none["start"])
        clocks.append(math.log(dead["clock"] / none["clock"]))
        wholes.append(math.log(dead["whole"] / none["whole"]))
        print(
            f"pair {pair + 1}: {1e3 * none['steps'] / (options.steps - 1):.1f} ms a step without W&B; with a dead one "
            f"share {100 * shares[-1]:.3f} %, CPU ratio {ratios[-1]:.3f}; W&B's own processes {dead['children']:.1f} s;"
            f" by the clock start {starts[-1]:+.2f} s, ratio of the steps {math.exp(clocks[-1]):.3f}, of the whole run "
            f"{math.exp(wholes[-1]):.3f}, end {dead['end'] - none['end']:+.1f} s",
            flush=True,
        )
    share, ratio = statistics.median(shares), statistics.median(ratios)
    verdict = "met" if share <= LIMIT else "missed"
    print(
        f"medians of {options.pairs} pairs of {options.steps} steps: "
        f"share {100 * share:.3f} % ({100 * min(shares):.3f} to {100 * max(shares):.3f}; "
        f"target <= {100 * LIMIT:g} %, {verdict}), "
        f"CPU ratio {ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f}); load average {os.getloadavg()[0]:.1f}"
    )
    start, steps, whole = _interval(starts), _interval(clocks), _interval(wholes)
    print(
        f"by the clock, means{' with 95 % intervals' if options.pairs > 1 else ' (one pair gives no interval)'}: "
        f"start {start[0]:+.2f} s ({start[1]:+.2f} to {start[2]:+.2f}; target <= {START:g}, {_verdict(start, START)}), "
        f"ratio of the steps {_shown(steps)}, target <= {1 + LIMIT:g}, {_verdict(steps, math.log(1 + LIMIT))}; "
        f"of the whole run {_shown(whole)}"
    )
    missed = "missed" in (verdict, _verdict(start, START), _verdict(steps, math.log(1 + LIMIT)))
    return 1 if missed else 0


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of what pairs differ by, and the 95 % interval of it; without bounds where there is one pair."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, -math.inf, math.inf
    half = STUDENT[min(len(values) - 1, len(STUDENT)) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def _verdict(interval: tuple[float, float, float], limit: float) -> str:
    _, low, high = interval
    return "met" if high <= limit else "missed" if low > limit else "open"


def _shown(logarithms: tuple[float, float, float]) -> str:
    mean, low, high = map(math.exp, logarithms)
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def _in_process(arm: str, steps: int) -> dict[str, float]:
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
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def _train(dead: bool, steps: int) -> dict[str, float]:
    """CPU seconds of the steps, of the logger in them, of processes beside; by the clock the seconds to the end of the
    first step, of the steps after it, from the last one to the end, and of all of it.
    """
    import lightning.pytorch as pl

    from omnichat.config import load_config
    from omnichat.training import fit
    from omnichat.training.loggers import WandbProcess

    used = [0.0]
    for name in ("log_metrics", "_feed"):  # what the steps call, and the thread that writes to W&B's process
        setattr(WandbProcess, name, _timed(getattr(WandbProcess, name), used))
    clock: list[tuple[float, float]] = []

    class Clock(pl.Callback):
        def on_train_batch_end(self, *_: object) -> None:
            clock.append((time.process_time(), time.perf_counter()))

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
        "clock": clock[-1][1] - clock[0][1],
        "end": ended - clock[-1][1],
        "whole": ended - begun,
    }


def _timed(method: Callable[..., None], used: list[float]) -> Callable[..., None]:
    """The method, its thread's CPU seconds added to `used`."""

    def timed(*given: object, **named: object) -> None:
        started = time.thread_time()
        method(*given, **named)
        used[0] += time.thread_time() - started

    return timed


if __name__ == "__main__":
    sys.exit(main())

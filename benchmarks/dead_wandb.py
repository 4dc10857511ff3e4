"""`python -m benchmarks.dead_wandb`: what a W&B that never answers costs a run, against a run without W&B.

Pairs of whole runs of `recipe=smoke`, each in a process of its own, in turns; the service is a socket that accepts and
never answers. Two figures of CPU time, both in the process that trains, from the first step's end to the last one's:

- share: what the W&B logger's calls and its thread used, of all that the steps used. Neighbours on the machine change
  it little, so it is judged.
- ratio: of the steps with W&B to those without. It holds what the share may miss (caches, the interpreter's lock), and
  the noise of the machine.

What W&B's own processes use beside, once a run, and how long the run waited at its end, is printed apart.
"""

import argparse
import json
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

LIMIT = 0.01  # of the CPU time of the steps


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 0 where the target is met, 1 where it is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dead_wandb",
        description="CPU time of training beside a W&B that never answers, against none.",
        epilog="example: python -m benchmarks.dead_wandb --pairs 5 --steps 100",
    )
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="pairs of runs (default: 5)")
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="steps of each run (default: 100)")
    parser.add_argument("--worker", choices=["none", "dead"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        print(json.dumps(_train(options.worker == "dead", options.steps)))
        return 0
    ratios, shares = [], []
    for pair in range(options.pairs):
        arms = ("none", "dead") if pair % 2 else ("dead", "none")
        found = {arm: _in_process(arm, options.steps) for arm in arms}
        none, dead = found["none"], found["dead"]
        ratios.append(dead["steps"] / none["steps"])
        shares.append(dead["logger"] / dead["steps"])
        print(
            f"pair {pair + 1}: {1e3 * none['steps'] / (options.steps - 1):.1f} ms a step without W&B; with a dead one "
            f"share {100 * shares[-1]:.3f} %, ratio {ratios[-1]:.3f}; W&B's own processes {dead['children']:.1f} s, "
            f"end {dead['end'] - none['end']:+.1f} s",
            flush=True,
        )
    share, ratio = statistics.median(shares), statistics.median(ratios)
    verdict = "met" if share <= LIMIT else "missed"
    print(
        f"medians of {options.pairs} pairs of {options.steps} steps: "
        f"share {100 * share:.3f} % ({100 * min(shares):.3f} to {100 * max(shares):.3f}; "
        f"target <= {100 * LIMIT:g} %, {verdict}), "
        f"ratio {ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f}); load average {os.getloadavg()[0]:.1f}"
    )
    return 0 if share <= LIMIT else 1


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
    """CPU seconds of the steps, of the logger in them, of processes beside; seconds from the last step to the end."""
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
        code = fit.fit(load_config(*overrides), Path(folder))
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
        "end": ended - clock[-1][1],
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

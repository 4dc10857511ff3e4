"""`python -m benchmarks.dead_wandb`: what a W&B that never answers costs a run, against a run without W&B.

Pairs of whole runs of `recipe=smoke`, each in a process of its own, in turns. The service is a socket that accepts and
never answers. Counted is CPU time from the first step's end to the last one's, in the process that trains, which is
what a step can lose; what W&B's own processes use beside it is printed apart: on a machine with a free core it costs no
step, and it does not grow with the steps' size. The last lines say how long the run waited for W&B at its end.
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
from collections.abc import Sequence
from pathlib import Path

LIMIT = 1.01  # of the CPU time without W&B


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
    ratios, own, outside, ends = [], [], [], []
    for pair in range(options.pairs):
        arms = ("none", "dead") if pair % 2 else ("dead", "none")
        found = {arm: _in_process(arm, options.steps) for arm in arms}
        none, dead = found["none"], found["dead"]
        ratios.append(dead["steps"] / none["steps"])
        own.append(none["steps"] / (options.steps - 1))
        outside.append(dead["children"] - none["children"])
        ends.append(dead["end"] - none["end"])
        print(
            f"pair {pair + 1}: without W&B {1e3 * own[-1]:.1f} ms a step; dead W&B {100 * (ratios[-1] - 1):+.2f} %; "
            f"W&B's own processes {outside[-1]:.1f} s; end {ends[-1]:+.1f} s",
            flush=True,
        )
    ratio = statistics.median(ratios)
    print(
        f"median of {options.pairs} pairs of {options.steps} steps: {100 * (ratio - 1):+.2f} % CPU time a step "
        f"({100 * (min(ratios) - 1):+.2f} to {100 * (max(ratios) - 1):+.2f}); target <= {100 * (LIMIT - 1):.0f} %, "
        f"{'met' if ratio <= LIMIT else 'missed'}; load average {os.getloadavg()[0]:.1f}"
    )
    return 0 if ratio <= LIMIT else 1


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
    """CPU seconds of the steps and of the processes beside, and seconds from the last step to the end of the run."""
    import lightning.pytorch as pl

    from omnichat.config import load_config
    from omnichat.training import fit

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
        if dead:
            print(log.read_text(encoding="utf-8"), file=sys.stderr)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "steps": clock[-1][0] - clock[0][0],
        "children": children.ru_utime + children.ru_stime,
        "end": ended - clock[-1][1],
    }


if __name__ == "__main__":
    sys.exit(main())

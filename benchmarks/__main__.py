"""`python -m benchmarks`: every benchmark on one CPU thread; see --help."""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

# Before torch is imported: one thread, so that arms differ by their work and not by how well it is spread; no network;
# and the profiler, which counts memory, says nothing of its own.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "KINETO_LOG_LEVEL": "99"}

NAMES = {
    "step": "the training step with cached features, and online, against a plain transformers + PEFT loop",
    "windows": "all windows in one Q-Former call against a call for each",
    "loader": "from a store on disk to batches, live and cached, against a datasets table with 30 s mels",
    "packing": "packed against padded dialogues, logits at labels against all logits",
}
DIALOGUES = {"step": 4, "windows": 4, "loader": 48, "packing": 8}
QUICK_DIALOGUES = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 0 where every target is met, 1 where one is missed or arms are not equal."""
    options = _parse(arguments)
    import torch

    from benchmarks import loader, packing, training_step, windows
    from benchmarks.measure import NotEqualError
    from benchmarks.report import environment
    from benchmarks.workload import Sizes

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # PEFT uses names that will go
    runs = {"step": training_step.run, "windows": windows.run, "loader": loader.run, "packing": packing.run}
    about = environment()
    print("# omnichat benchmarks\n")
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(
        f"one thread, float32, CPU time of a warm-up and {options.repetitions} repetitions, arms in turns; "
        "peak memory: tensors beyond weights and optimizer\n",
        flush=True,
    )
    started, loads, records, missed = time.monotonic(), [os.getloadavg()[0]], {}, []
    for name in options.only:
        try:
            report = runs[name](options.repetitions, QUICK_DIALOGUES if options.quick else DIALOGUES[name], Sizes())
        except NotEqualError as error:
            print(f"benchmarks: {name}: {error}", file=sys.stderr)
            return 1
        print(report.text(), end="\n\n", flush=True)
        records[name] = report.record()
        missed += report.missed()
        loads.append(os.getloadavg()[0])
    print(f"{time.monotonic() - started:.0f} s; load average {', '.join(f'{load:.1f}' for load in loads)}")
    if options.json:
        whole = {"environment": about, "repetitions": options.repetitions, "load": loads, "benchmarks": records}
        options.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return 1 if missed and not options.quick else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    listed = "\n".join(f"  {name:<9}{about}" for name, about in NAMES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Speed and memory of the parts, each against a baseline in the same run.",
        epilog=f"benchmarks:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(NAMES), default=list(NAMES), metavar="NAME", help="run these (default: all)"
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_DIALOGUES} dialogues and 2 repetitions; targets are not judged"
    )
    parser.add_argument("--repetitions", type=int, metavar="N", help="timed rounds (default: 5; 2 with --quick)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    if options.repetitions is None:
        options.repetitions = 2 if options.quick else 5
    if options.repetitions < 1:
        parser.error("--repetitions must be at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())

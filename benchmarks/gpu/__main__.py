"""`python -m benchmarks.gpu`; see --help."""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "KINETO_LOG_LEVEL": "99"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 0 where all was measured, 1 where something failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="A training step at full size.")
    parser.add_argument("--toy", action="store_true", help="tiny nets, to try the script on a CPU")
    parser.add_argument("--device", default=None, help="default: cuda, with --toy cpu")
    parser.add_argument("--dialogues", type=int, default=None, help="a step (default: 48; 4 with --toy)")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each arm")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them")
    parser.add_argument(
        "--arms", nargs="*", type=int, metavar="N", help="only the arms of these numbers, from 0; none: no arm"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="write tables of a step's kernels there")
    parser.add_argument(
        "--skip", nargs="+", default=(), metavar="PART", help="leave out equality, experts, loader or features"
    )
    chosen = parser.parse_args(arguments)
    import torch

    from benchmarks.gpu.report import text
    from benchmarks.gpu.run import ARMS, Options, run
    from benchmarks.gpu.scale import TOY, Scale
    from benchmarks.report import environment
    from omnichat.training.flops import peak_flops

    device = torch.device(chosen.device or ("cpu" if chosen.toy else "cuda"))
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device; --toy tries the script on a CPU")
    if device.type == "cpu":
        torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    options = Options(
        scale=TOY if chosen.toy else Scale(),
        device=device,
        dialogues=chosen.dialogues or (4 if chosen.toy else 48),
        plain_micro=2 if chosen.toy else 24,
        salmonn_micro=2 if chosen.toy else 8,
        warmup=chosen.warmup,
        steps=chosen.steps,
        arms=tuple(ARMS[number] for number in (range(len(ARMS)) if chosen.arms is None else chosen.arms)),
        workers=1 if chosen.toy else 8,
        profile=chosen.profile,
        skip=tuple(chosen.skip),
    )
    about = environment() | {"device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu"}
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    found = run(options, lambda line: print(line, flush=True))
    print("\n" + text(found, options, peak_flops(device)), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps({"environment": about, **asdict(found)}, indent=1) + "\n", encoding="utf-8")
    return 1 if found.failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""The command: where to, and which parts."""

import argparse
import sys
import time
from pathlib import Path

from data_prep.synthesis.backends.embedded.engine import EngineError
from omnichat.secrets import mask_output

PARTS = ("whisper", "emotion2vec", "beats", "llama")
EPILOG = """\
example:
  python -m data_prep.tiny_weights checkpoints/tiny --only llama

About 35 minutes of one CPU core for all four. Every part is written as soon as it is trained, so what was interrupted
goes on with --only. scores.json, beside the weights, has the scores that are printed. Another machine or torch gives
other weights with the same scores within a few points.
exit codes: 0 done, 1 failed, 2 wrong usage
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m data_prep.tiny_weights",
        description="Train the quickstart's tiny experts and Llama, and write them in upstream's formats.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("out", type=Path, metavar="OUT", help="folder for the weights; its files are replaced")
    result.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    result.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    result.add_argument(
        "--scale", type=float, default=1.0, help="of all steps and utterances; below 1 to try it (default: %(default)s)"
    )
    return result


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code."""
    mask_output()
    command = parser()
    arguments = command.parse_args(argv)
    if arguments.scale <= 0 or arguments.seed < 0:
        command.error("--scale must be above 0, and --seed at least 0")
    import torch  # help and mistakes need not wait for it

    from data_prep.tiny_weights.make import make

    torch.set_num_threads(1)  # so small nets gain nothing from a second thread
    started = time.process_time()
    try:
        make(arguments.out, arguments.only, arguments.seed, arguments.scale, lambda line: print(line, flush=True))
    except (EngineError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.out}: {time.process_time() - started:.0f} s of CPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())

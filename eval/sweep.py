"""The overview of a sweep: `python eval/sweep.py runs/sweeps/NAME`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from omnichat.recipes import locate
from omnichat.secrets import mask_output

DONE, FAILED = 0, 1


def main(arguments: Sequence[str]) -> int:
    """Write overview.html and overview.md; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="eval/sweep.py",
        description="One page for all runs of a sweep, or for any two and more runs: training curves over each other, "
        "alpha as asked for and as drawn, losses, scores with intervals, plots against alpha, the paper's Table 4 "
        "beside them. Runs that failed or are not done are listed as such.",
        epilog="examples: python eval/sweep.py runs/sweeps/dailytalk\n"
        "          python eval/sweep.py runs/quickstart runs/text_only --out runs/compared\n\n"
        "train.py -m writes it when the sweep ends; run this again once the runs are scored (eval/run_store.py).\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of a sweep, of runs, or of one run")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write there (default: the first FOLDER)")
    parser.add_argument("--title", metavar="TEXT", help="of the page (default: the folder's name)")
    options = parser.parse_args(arguments)
    mask_output()
    from omnichat.evaluation.sweep import read_points
    from omnichat.evaluation.sweep_page import write_overview

    folders = [locate(str(folder)) for folder in options.folders]
    first = folders[0]
    try:
        points = read_points(folders)
        title = options.title or f"Sweep {first.resolve().name}"
        print(f"overview: {write_overview(points, options.out or first, title)}")
    except (ValueError, OSError) as error:  # ours say what, where and how to mend it
        print(f"eval/sweep.py: {error}", file=sys.stderr)
        return FAILED
    return DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

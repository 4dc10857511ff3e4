"""`python -m benchmarks.balance`: how even the ranks of a step are in tokens, and how full its budget; no net runs.

Dialogues have ShareChatX's mean turns and seconds (`workload.py`), drawn through the training stream and rendered by
the recipes' prompt. Beside ours stands the plain way: each rank takes the next dialogues in order.
"""

import argparse
import os

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.balance", description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000, metavar="N", help="steps of each kind (default: 1000)")
    parser.add_argument("--dialogues", type=int, default=3_000, metavar="N", help="in the source (default: 3000)")
    options = parser.parse_args()
    from benchmarks.balance.steps import report

    report(options.steps, options.dialogues)


if __name__ == "__main__":
    main()

"""Speed of the pipeline's own parts on one CPU thread, each against its target.

Figures are CPU time, so that other work on the machine counts little.

example:
  python -m data_prep.synthesis.benchmarks --only mixing
"""

import os
import sys
from collections.abc import Callable
from importlib import import_module

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

from data_prep.arguments import command_line
from data_prep.synthesis.benchmarks.figure import Figure

NAMES = {  # each is a module here with `run(quick)`
    "ledger": "items through ledger, driver and workers, with a stage that does nothing",
    "mixing": "clean turns to mixed ones, loudness included",
    "speaking": "words to checked recordings by espeak-ng",
}


def main() -> int:
    """`python -m data_prep.synthesis.benchmarks`: 0 where every target is met, 1 where one is missed."""
    listed = "\n".join(f"  {name:<9}{about}" for name, about in NAMES.items())
    parser = command_line("data_prep.synthesis.benchmarks", __doc__, f"benchmarks:\n{listed}")
    parser.add_argument("--only", nargs="+", choices=list(NAMES), default=list(NAMES), metavar="NAME", help="run these")
    parser.add_argument("--quick", action="store_true", help="little work; targets are not judged")
    options = parser.parse_args()
    missed = False
    for name in options.only:
        run: Callable[[bool], list[Figure]] = import_module(f"data_prep.synthesis.benchmarks.{name}").run
        for figure in run(options.quick):
            print(figure, flush=True)
            missed |= figure.missed
    return 1 if missed and not options.quick else 0


if __name__ == "__main__":
    sys.exit(main())

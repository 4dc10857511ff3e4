"""The kill drill: training runs are killed again and again, and have to end as if nothing had happened.

`python -m benchmarks.drill` trains a tiny run once in peace. Then it repeats it in trials: a child process trains, is
killed by SIGKILL (at a random instant, or at a chosen point inside a save), and is started again, several times, until
it may finish. After each kill the newest checkpoint has to be valid and at most one save interval behind the steps on
record; at the end weights and moments have to have the hashes of the undisturbed run, and the losses on record have to
be its losses.

The children are forked from this process, which has imported everything and started no thread.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def workplace(keep: Path | None) -> Iterator[Path]:
    """Where the trials run."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def main() -> int:
    """0 where every trial ended as the undisturbed run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drill", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--kills", type=int, default=100, help="at least so many of either kind (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the instants and points (default: 0)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="run there and keep what failed")
    options = parser.parse_args()
    from benchmarks.drill.trials import drill

    begun = time.monotonic()
    with workplace(options.keep) as folder:
        outcomes = drill(folder, options.kills, options.seed, lambda line: print(line, flush=True))
    print(f"{time.monotonic() - begun:.0f} s")
    return 1 if any(outcome.faults for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())

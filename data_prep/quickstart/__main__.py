"""Make the quickstart corpus: python -m data_prep.quickstart OUT."""

import argparse
import sys
import time
from pathlib import Path

from data_prep.quickstart.corpus import ENGINES, Options, description, made_in, make
from data_prep.synthesis.backends.embedded.engine import EngineError
from omnichat.secrets import mask_output

EPILOG = """\
example:
  python -m data_prep.quickstart data/quickstart --seed 0
  makes data/quickstart/{train,val,test_scripts,test_voices}.jsonl, audio/*.flac and store.json

Each script is spoken in seven emotions, so it gives seven dialogues. The same options and the same version of the
engine give the same samples; where they are there already, nothing is done.
exit codes: 0 done, 1 failed, 2 wrong usage
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    defaults = Options()
    result = argparse.ArgumentParser(
        prog="python -m data_prep.quickstart",
        description="Make the quickstart corpus: spoken dialogues whose reply depends on how the last turn was spoken.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("out", type=Path, metavar="OUT", help="folder of the store to make")
    result.add_argument("--seed", type=_natural, default=defaults.seed, help="default: %(default)s")
    result.add_argument(
        "--engine", choices=list(ENGINES), default=defaults.engine,
        help="who speaks: espeak-ng (a wheel brings it), or flite where it is installed; default: %(default)s",
    )  # fmt: skip
    for name, count in (("train", defaults.train_scripts), ("val", defaults.val_scripts)):
        result.add_argument(f"--{name}-scripts", type=_natural, default=count, metavar="N", help="default: %(default)s")
    result.add_argument(
        "--test-scripts", type=_natural, default=defaults.test_scripts, metavar="N",
        help="scripts in each of test_scripts (held-out scripts, voices of training) and test_voices (held-out "
        "scripts, unseen voices); default: %(default)s",
    )  # fmt: skip
    result.add_argument("--workers", type=_natural, default=2, metavar="N", help="processes; default: %(default)s")
    result.add_argument(
        "--engine-file", metavar="FILE",
        help="the engine to use instead of the one that is found: a libespeak-ng, or a program flite",
    )  # fmt: skip
    result.add_argument("--overwrite", action="store_true", help="replace another quickstart corpus in OUT")
    return result


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code."""
    mask_output()
    command = parser()
    arguments = command.parse_args(argv)
    counts = (arguments.train_scripts, arguments.val_scripts, arguments.test_scripts)
    options = Options(arguments.seed, arguments.engine, *counts)
    out: Path = arguments.out
    if arguments.workers < 1:
        command.error("--workers must be at least 1")
    started = time.monotonic()
    try:
        with ENGINES[options.engine](arguments.engine_file) as engine:
            wanted = description(options, engine.version)
        there = made_in(out)
        if there is not None:
            differing = sorted(key for key, value in wanted.items() if there.get(key) != value)
            if not differing:
                print(f"{out} holds this corpus already; nothing to do")
                return 0
            if not arguments.overwrite:
                command.error(f"{out} holds a corpus of other {', '.join(differing)}; --overwrite replaces it")
        elif out.exists() and (not out.is_dir() or any(out.iterdir())):
            command.error(f"{out} exists and is no quickstart corpus; give another folder")
        made = make(out, options, arguments.workers, arguments.engine_file)
    except ValueError as error:
        command.error(str(error))
    except (EngineError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    shown = ", ".join(f"{split} {count}" for split, count in made.items())
    print(f"{out}: {shown} dialogues in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

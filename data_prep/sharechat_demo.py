"""Read the dialogues of ShareChatX's demo pages into a store.

The demo is small (24 dialogues) and unlicensed: for trying the chain on real recordings, not for publishing.
Turns that end a dialogue without a known answer are left out.

example:
  python -m data_prep.sharechat_demo downloads/sharechatx_demo corpora/sharechat_demo
"""

import argparse
import sys

from data_prep.convert import report, run, write_reading
from omnichat.data.corpora.emotions import emotion_map
from omnichat.data.corpora.sharechat_demo import EMOTIONS, NAME, read_sharechat_demo


def convert(arguments: argparse.Namespace) -> str:
    """Write the store and return the table."""
    reading = read_sharechat_demo(arguments.source)
    table = report(reading, emotion_map(EMOTIONS))
    write_reading(
        reading, arguments.source, arguments.out, arguments.split, NAME, "none stated", "sharechatx.github.io"
    )
    return table


def main() -> int:
    """`python -m data_prep.sharechat_demo SRC OUT`."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.sharechat_demo", description=__doc__)
    parser.add_argument("--split", default="test", help="name of the file of dialogues (default: test)")
    return run(parser, convert)


if __name__ == "__main__":
    sys.exit(main())

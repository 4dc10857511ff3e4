"""Read IEMOCAP (IEMOCAP_full_release: the sentences' wavs and their emotions) into a store.

Each session has two actors of its own, so that none is divided: leave one out with --test-session, or one each is drawn
for test and val.

example:
  python -m data_prep.iemocap downloads/IEMOCAP_full_release corpora/iemocap --test-session 5
"""

import argparse
import sys

from data_prep import command
from omnichat.data.corpora.iemocap import CORPUS, SESSIONS, leave_out
from omnichat.data.corpora.reading import Corpus


def options(parser: argparse.ArgumentParser) -> None:
    """What only this reader takes."""
    parser.add_argument("--test-session", type=int, choices=SESSIONS, help="test on this session, train on the others")


def corpus(arguments: argparse.Namespace) -> Corpus:
    """The corpus with the split that the options ask for."""
    return CORPUS if arguments.test_session is None else leave_out(arguments.test_session)


def main() -> int:
    """`python -m data_prep.iemocap SRC OUT`."""
    return command.main(corpus, __doc__, "iemocap", options=options)


if __name__ == "__main__":
    sys.exit(main())

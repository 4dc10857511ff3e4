"""Read StyleTalk into a store: one dialogue for each style of a text, all styles of a text in one split.

Its eval.csv becomes test; --val 0.05 draws a val set from train.csv. Without its audio the dialogues have words only.

example:
  python -m data_prep.styletalk downloads/StyleTalk corpora/styletalk --emotion friendly=neutral
"""

import sys

from data_prep import command
from omnichat.data.corpora.styletalk import CORPUS


def main() -> int:
    """`python -m data_prep.styletalk SRC OUT`."""
    return command.main(CORPUS, __doc__, "styletalk")


if __name__ == "__main__":
    sys.exit(main())

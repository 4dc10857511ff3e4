"""Read EmotionTalk's lists (acted Chinese dialogues with emotions), and its wavs where they are there, into a store.

A conversation is the two folders of its speakers, in the order of their numbers. Labels that come as
pickles are not read.

example:
  python -m data_prep.emotiontalk downloads/EmotionTalk corpora/emotiontalk
"""

import sys

from data_prep import command
from omnichat.data.corpora.emotiontalk import CORPUS


def main() -> int:
    """`python -m data_prep.emotiontalk SRC OUT`."""
    return command.main(CORPUS, __doc__, "emotiontalk")


if __name__ == "__main__":
    sys.exit(main())

"""Read Expresso's improvised dialogues, one speaker a channel, into a store.

The release has no words for them, and an answer without words cannot be learnt, so that every dialogue is rejected
until you put a transcript of its segments beside VAD_segments.txt, in conversational_transcriptions.txt, a line each:
  <file>/channel<1 or 2> TAB (start, stop) TAB words
Read sentences are rejected: nobody answers them.

example:
  python -m data_prep.expresso downloads/expresso corpora/expresso
"""

import sys

from data_prep import command
from omnichat.data.corpora.expresso import CORPUS


def main() -> int:
    """`python -m data_prep.expresso SRC OUT`."""
    return command.main(CORPUS, __doc__, "expresso")


if __name__ == "__main__":
    sys.exit(main())

"""Read DailyTalk (its release with audio, or its lists without) into a store.

Train and val are its own lists; test are 220 dialogues drawn by us (omnichat/data/corpora/dailytalk_test.txt), as the
paper's are not published. In half of the dialogues the last turn belongs to who spoke first: --roles says who answers.

example:
  python -m data_prep.dailytalk downloads/dailytalk.zip corpora/dailytalk
"""

import sys

from data_prep import command
from omnichat.data.corpora.dailytalk import CORPUS


def main() -> int:
    """`python -m data_prep.dailytalk SRC OUT`."""
    return command.main(CORPUS, __doc__, "dailytalk")


if __name__ == "__main__":
    sys.exit(main())

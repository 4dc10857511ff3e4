"""Read CPED's lists (Chinese television dialogues with 13 emotions) into a store of words.

Its recordings are not published with the lists. Dialogues of more than two speakers are rejected.

example:
  python -m data_prep.cped downloads/CPED corpora/cped --emotion negative-other=sad
"""

import sys

from data_prep import command
from omnichat.data.corpora.cped import CORPUS


def main() -> int:
    """`python -m data_prep.cped SRC OUT`."""
    return command.main(CORPUS, __doc__, "cped")


if __name__ == "__main__":
    sys.exit(main())

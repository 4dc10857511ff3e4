"""Read SpokenWOZ (task-oriented telephone dialogues, user and system in a channel each) into a store.

The system is the assistant, whatever --roles says; turns are heard from their first word to their last.

example:
  python -m data_prep.spokenwoz downloads/SpokenWOZ corpora/spokenwoz
"""

import sys

from data_prep import command
from omnichat.data.corpora.spokenwoz import CORPUS


def main() -> int:
    """`python -m data_prep.spokenwoz SRC OUT`."""
    return command.main(CORPUS, __doc__, "spokenwoz")


if __name__ == "__main__":
    sys.exit(main())

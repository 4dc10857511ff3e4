"""Read DeepDialogue (layout of the hub or of its site) into a store, one dialogue for each voice.

Its 20 emotions become the seven of ShareChatX and are kept as metadata, as are its 41 domains; the table says where
something is lost. Take the corpus as non-commercial: its licence is stated in three ways.

example:
  python -m data_prep.deepdialogue downloads/DeepDialogue-xtts corpora/deepdialogue --emotion curious=surprised
"""

import sys

from data_prep import command
from omnichat.data.corpora.deepdialogue import CORPUS


def main() -> int:
    """`python -m data_prep.deepdialogue SRC OUT`."""
    return command.main(CORPUS, __doc__, "deepdialogue")


if __name__ == "__main__":
    sys.exit(main())

"""Read EChat-200K (JSON lines or unpacked shards as OSUM-EChat reads them, with their wavs) into a store.

An answer's tag, "<HAPPY>...", becomes its emotion; without one there is no emotion to learn. Unpack
shards (.tar) first.

example:
  python -m data_prep.echat_200k downloads/EChat-200K corpora/echat_200k --emotion "<SHY>=happy"
"""

import sys

from data_prep import command
from omnichat.data.corpora.echat_200k import CORPUS


def main() -> int:
    """`python -m data_prep.echat_200k SRC OUT`."""
    return command.main(CORPUS, __doc__, "echat_200k")


if __name__ == "__main__":
    sys.exit(main())

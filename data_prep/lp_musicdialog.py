"""Read LP-MusicDialog (Parquet files of dialogues in text) into a store of words.

Its columns are documented nowhere: where no usual name is among them, the error lists those that are there.

example:
  python -m data_prep.lp_musicdialog downloads/lp-music-dialog corpora/lp_musicdialog
"""

import sys

from data_prep import command
from omnichat.data.corpora.lp_musicdialog import CORPUS


def main() -> int:
    """`python -m data_prep.lp_musicdialog SRC OUT`."""
    return command.main(CORPUS, __doc__, "lp_musicdialog")


if __name__ == "__main__":
    sys.exit(main())

"""Read MELD's dyadic lists, and the audio of its clips where it was taken out of them, into a store.

Without clips the dialogues have words only. To hear them, take the audio out first, in each of train_splits,
dev_splits_complete and output_repeated_splits_test of MELD.Raw.tar.gz:
  for clip in train_splits/dia*.mp4; do ffmpeg -i "$clip" -vn -ac 1 -ar 16000 "${clip%.mp4}.wav"; done

example:
  python -m data_prep.meld downloads/MELD corpora/meld
"""

import sys

from data_prep import command
from omnichat.data.corpora.meld import CORPUS


def main() -> int:
    """`python -m data_prep.meld SRC OUT`."""
    return command.main(CORPUS, __doc__, "meld")


if __name__ == "__main__":
    sys.exit(main())

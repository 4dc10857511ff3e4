"""Read InteractSpeech into a store: each speaker's own track, turns cut at the times the corpus gives.

Where a turn is interrupted, by how much turns overlap, and which words were planned and never spoken stays in
their meta.

example:
  python -m data_prep.interactspeech downloads/interactspeech.github.io corpora/interactspeech
"""

import sys

from data_prep import command
from omnichat.data.corpora.interactspeech import CORPUS


def main() -> int:
    """`python -m data_prep.interactspeech SRC OUT`."""
    return command.main(CORPUS, __doc__, "interactspeech")


if __name__ == "__main__":
    sys.exit(main())

"""Read AF-Dialogue, dialogues in text about one sound, into a store.

The sound is the audio of the first user turn where its clip lies beside the list; else all turns have words only. As
nobody speaks, train on it with data.input=speech+text.

example:
  python -m data_prep.af_dialogue downloads/dialog_AudioSetSL corpora/af_dialogue
"""

import sys

from data_prep import command
from omnichat.data.corpora.af_dialogue import CORPUS


def main() -> int:
    """`python -m data_prep.af_dialogue SRC OUT`."""
    return command.main(CORPUS, __doc__, "af_dialogue")


if __name__ == "__main__":
    sys.exit(main())

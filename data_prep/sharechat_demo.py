"""Read the dialogues of ShareChatX's demo pages into a store.

The demo is small (24 dialogues) and unlicensed: for trying the chain on real recordings, not for publishing.
Turns that end a dialogue without a known answer are left out.

example:
  python -m data_prep.sharechat_demo downloads/sharechatx_demo corpora/sharechat_demo
"""

import sys

from data_prep import command
from omnichat.data.corpora.sharechat_demo import CORPUS


def main() -> int:
    """`python -m data_prep.sharechat_demo SRC OUT`."""
    return command.main(CORPUS, __doc__, "sharechat_demo", split="test", roles="second_speaker")


if __name__ == "__main__":
    sys.exit(main())

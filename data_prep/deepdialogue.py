"""Read DeepDialogue's whole-conversation recordings into a store, one dialogue for each voice.

Its 17 emotions met so far become the seven of ShareChatX; the table says where something is lost.
Take the corpus as non-commercial: its licence is stated in three ways.

example:
  python -m data_prep.deepdialogue downloads/DeepDialogue corpora/deepdialogue --roles second_speaker
"""

import argparse
import sys

from data_prep.convert import report, run, write_reading
from omnichat.data.corpora.deepdialogue import NAME, read_deepdialogue
from omnichat.data.corpora.emotions import emotion_map
from omnichat.data.corpora.reading import ROLE_POLICIES

LICENCE = "CC BY-NC-SA 4.0 (stated inconsistently)"


def convert(arguments: argparse.Namespace) -> str:
    """Write the store and return the table."""
    reading = read_deepdialogue(arguments.source, arguments.roles)
    table = report(reading, emotion_map(NAME))
    write_reading(
        reading, arguments.source, arguments.out, arguments.split, NAME, LICENCE, "SALT-Research/DeepDialogue"
    )
    return table


def main() -> int:
    """`python -m data_prep.deepdialogue SRC OUT`."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.deepdialogue", description=__doc__)
    parser.add_argument("--split", default="train", help="name of the file of dialogues (default: train)")
    parser.add_argument("--roles", choices=ROLE_POLICIES, default="last_speaker", help="who is the assistant")
    return run(parser, convert)


if __name__ == "__main__":
    sys.exit(main())

"""Turn ShareChatX as our synthesis writes it (our own store: JSONL and audio) into a store of shards, splits kept.

Licence and source are those of its store.json. The demo pages' dialogues have a reader of their own, sharechat_demo.

example:
  python -m data_prep.sharechat made/sharechat_emotion corpora/sharechat_emotion
"""

import argparse
import sys
from dataclasses import replace

from data_prep import command
from omnichat.data.corpora.reading import Corpus
from omnichat.data.corpora.sharechat import CORPUS
from omnichat.data.info import INFO_FILE, read_info


def corpus(arguments: argparse.Namespace) -> Corpus:
    """The corpus with the name, licence and source that its folder states."""
    if not (arguments.source / INFO_FILE).is_file():
        return CORPUS
    info = read_info(arguments.source)
    return replace(CORPUS, name=info.name, licence=info.licence, source=info.source)


def main() -> int:
    """`python -m data_prep.sharechat SRC OUT`."""
    return command.main(corpus, __doc__, "sharechat")


if __name__ == "__main__":
    sys.exit(main())

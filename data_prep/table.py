"""Read any corpus that is a table of turns (CSV, TSV, JSONL) and a folder of audio into a store.

A row is a turn, or a line of JSONL a dialogue with a list of turns: as README.md shows them ("Data"), where audio may
also be a path alone, or as chat frameworks have them (messages with <audio> tags, and audios). Columns that are not
called like our fields are named with --column FIELD=COLUMN; the fields are
  {fields}

example, for calls.csv with the columns call,who,said,file,from,to and recordings in wavs/:
  python -m data_prep.table downloads/calls corpora/calls --licence "CC BY 4.0" --audio-folder wavs --assistant agent \\
    --column dialogue=call --column speaker=who --column text=said --column audio=file --column start=from \\
    --column end=to
"""

import argparse
import sys

from data_prep import command
from omnichat.data.corpora.emotions import corpora_with_emotions
from omnichat.data.corpora.reading import Corpus
from omnichat.data.corpora.table import FIELDS, Layout
from omnichat.data.corpora.table import corpus as corpus_of_table
from omnichat.dialogue import DataError


def options(parser: argparse.ArgumentParser) -> None:
    """What only this reader takes."""
    add = parser.add_argument
    add("--licence", required=True, help="of the corpus, as its owners state it")
    add("--name", help="of the corpus (the name of SRC)")
    add("--origin", default="", help="where it is had")
    add("--table", default="", metavar="FILE", help="the table below SRC (the only .csv, .tsv or .jsonl there)")
    add("--audio-folder", default=".", metavar="FOLDER", help="below SRC, where paths of audio begin (SRC itself)")
    add("--column", action="append", default=[], metavar="FIELD=COLUMN", help="the column of a field; may be repeated")
    add("--turns", default="turns", metavar="KEY", help="the list of turns in a line of JSONL (turns)")
    add("--assistant", metavar="SPEAKER", help="who is the assistant, by name; instead of --roles")
    labels = corpora_with_emotions()
    add("--labels", default="table", choices=labels, metavar="TABLE", help=f"of emotions: {', '.join(labels)} (table)")


def corpus(arguments: argparse.Namespace) -> Corpus:
    """The corpus that the options describe.

    Raises:
        DataError: `unknown_field`.
    """
    columns = dict(pair.partition("=")[::2] for pair in arguments.column)
    if unknown := [name for name in columns if name not in FIELDS or not columns[name]]:
        raise DataError("unknown_field", f"--column {', '.join(unknown)}: FIELD=COLUMN, of {', '.join(FIELDS)}")
    layout = Layout(columns, arguments.table, arguments.audio_folder, arguments.turns, arguments.assistant)
    name = arguments.name or arguments.source.stem
    return corpus_of_table(name, arguments.licence, arguments.origin, arguments.labels, layout)


def main() -> int:
    """`python -m data_prep.table SRC OUT`."""
    fields = "\n  ".join(f"{name:9} {meaning}" for name, meaning in FIELDS.items())
    return command.main(corpus, __doc__.format(fields=fields), "table", options=options)


if __name__ == "__main__":
    sys.exit(main())

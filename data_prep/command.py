"""The command line of a reader: `python -m data_prep.NAME SRC OUT`, alike for all corpora."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from data_prep.arguments import at_least_one, command_line
from data_prep.convert import Settings, convert
from data_prep.resumable import INTERRUPTED
from omnichat.data.corpora.emotions import EmotionMap, emotion_map
from omnichat.data.corpora.reading import ROLE_POLICIES, Choices, Corpus, RolePolicy
from omnichat.data.corpora.splits import check_split
from omnichat.data.shards import AUDIO_FORMS
from omnichat.dialogue import DataError
from omnichat.secrets import mask_output


def main(
    corpus: Corpus | Callable[[argparse.Namespace], Corpus],
    about: str,
    program: str,
    split: str | None = None,
    roles: RolePolicy = "last_speaker",
    options: Callable[[argparse.ArgumentParser], None] | None = None,
) -> int:
    """Convert a corpus as the command line says: 0 done, 1 failed with a message, 2 wrong usage, 130 stopped by Ctrl-C.

    Args:
        corpus: to be read, or what makes it from the command line.
        about: the module's docstring, shown by --help; holds an example.
        program: the module's name.
        split: where all dialogues go unless the user says otherwise; None splits them.
        roles: who is the assistant unless the user says otherwise.
        options: adds what only this reader takes.
    """
    mask_output()
    parser = reader_command_line(about, program, split, roles)
    if options is not None:
        options(parser)
    arguments = parser.parse_args()
    try:
        chosen = corpus if isinstance(corpus, Corpus) else corpus(arguments)
        settings = settings_of(arguments, chosen)
    except DataError as error:
        parser.error(str(error))
    return run(chosen, arguments, settings)


def reader_command_line(about: str, program: str, split: str | None, roles: RolePolicy) -> argparse.ArgumentParser:
    """What every reader takes."""
    parser = command_line(f"data_prep.{program}", about)
    parser.add_argument(
        "source", type=Path, metavar="SRC", help="the corpus as it was downloaded: a folder, .tar(.gz) or .zip"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the store to write")
    parser.add_argument("--roles", choices=ROLE_POLICIES, default=roles, help=f"who is the assistant ({roles})")
    choice = "what one of the corpus's emotions becomes, e.g. curious=surprised; none: no target; may be repeated"
    parser.add_argument("--emotion", action="append", default=[], metavar="LABEL=EMOTION", help=choice)
    whole = "put all dialogues into this split" + (f" (default: {split})" if split else "")
    parser.add_argument("--split", default=split, metavar="NAME", help=whole)
    parser.add_argument("--split-seed", type=int, default=0, metavar="N", help="of the draw of val and test (0)")
    share = "share of dialogues for %s (0.1; nothing where the corpus ships its own split)"
    parser.add_argument("--val", type=_share, metavar="SHARE", help=share % "val")
    parser.add_argument("--test", type=_share, metavar="SHARE", help=share % "test")
    form = "flac: lossless, small; bytes: files as they are; reference: paths, OUT must be above SRC (flac)"
    parser.add_argument("--audio", choices=AUDIO_FORMS, default="flac", help=form)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "--workers", type=at_least_one, default=cores, metavar="N", help=f"processes ({cores}, the cores)"
    )
    parser.add_argument("--follow-links", action="store_true", help="links in SRC may lead out of it")
    parser.add_argument("--overwrite", action="store_true", help="replace another store in OUT")
    return parser


def settings_of(arguments: argparse.Namespace, corpus: Corpus) -> Settings:
    """The settings of a command line.

    Raises:
        DataError: `unknown_emotion` or `bad_split`.
    """
    labels = emotion_map(corpus.labels) if corpus.labels is not None else None
    return Settings(
        choices=Choices(arguments.roles, _chosen(labels, arguments.emotion)),
        split=check_split(arguments.split) if arguments.split is not None else None,
        seed=arguments.split_seed,
        shares=(arguments.val, arguments.test),
        audio=arguments.audio,
        follow_links=arguments.follow_links,
        workers=arguments.workers,
        overwrite=arguments.overwrite,
    )


def run(corpus: Corpus, arguments: argparse.Namespace, settings: Settings) -> int:
    """Convert, print the table or one message, and return the exit code."""
    try:
        print(convert(corpus, arguments.source, arguments.out, settings))
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what is done is kept, the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    return 0


def _chosen(labels: EmotionMap | None, choices: list[str]) -> EmotionMap | None:
    pairs = dict(choice.rpartition("=")[::2] for choice in choices)
    if labels is None:
        if choices:
            raise DataError("unknown_emotion", "the corpus has no emotions to choose for; leave --emotion out")
        return None
    if "" in pairs:
        raise DataError("unknown_emotion", "--emotion takes LABEL=EMOTION, e.g. curious=surprised")
    return labels.choosing({label: None if emotion == "none" else emotion for label, emotion in pairs.items()})


def _share(text: str) -> float:
    if not 0 <= (share := float(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a share is at least 0 and below 1")
    return share

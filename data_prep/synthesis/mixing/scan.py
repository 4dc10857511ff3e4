"""Look through a folder of clips and write the table of those that may be heard, before anything is made of them.

Refuses clips that are missing, silent, too short, without a caption or, with a tagger, with a human voice in them.
Name the table twice in a run: `writing.captions` (what scripts are about) and `mix.clips.captions` (what is heard).

example:
  python -m data_prep.synthesis.mixing.scan clips/ --captions audiocaps.csv \\
      --beats checkpoints/BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt1.pt --out clips/usable.json
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from data_prep.arguments import command_line
from data_prep.synthesis.mixing.captions import ClipRow, pools, read_captions, write_captions
from data_prep.synthesis.mixing.folder import checked_wave, find_table, recordings, refuse_noncommercial
from data_prep.synthesis.mixing.settings import ClipSettings
from data_prep.synthesis.mixing.voice import BeatsTagger, HttpTagger, VoiceTagger
from data_prep.synthesis.stage import Reject
from omnichat.dialogue import DataError
from omnichat.secrets import mask_output


def scan(settings: ClipSettings, tagger: VoiceTagger | None = None) -> tuple[list[ClipRow], list[Reject]]:
    """The clips that may be heard, each with its file, class and split, and why the others may not.

    Raises:
        DataError: what is wrong with the table or the tagger; `noncommercial`.
    """
    from rich.console import Console
    from rich.progress import track

    folder = Path(settings.folder)
    table = find_table(folder, settings.captions)
    rows = read_captions(table)
    if not settings.allow_noncommercial:
        refuse_noncommercial(rows, table)
    files, kept, refused = recordings(folder), list[ClipRow](), list[Reject]()
    console = Console(stderr=True)
    for row in track(rows, "listening to clips", console=console, disable=not console.is_terminal):
        file = row.file or files.get(row.id, "")
        try:
            if not file:
                raise Reject("clip_missing", f"clip {row.id!r} has no recording in {folder}")
            wave = checked_wave(folder, file, row, settings)
            voice = row.voice if tagger is None else round(tagger.voice(wave), 4)
            heard = row.model_copy(update={"file": file, "event_class": row.classified(), "voice": voice})
            checked_wave(folder, file, heard, settings)
            kept.append(heard)
        except Reject as reject:
            refused.append(reject)
    pool = pools(kept)
    return [row.model_copy(update={"pool": pool[row.id]}) for row in kept], refused


def main() -> int:
    """`python -m data_prep.synthesis.mixing.scan FOLDER`: 0 done, 1 where no clip may be heard, 2 wrong usage."""
    mask_output()
    parser = command_line("data_prep.synthesis.mixing.scan", __doc__)
    defaults = ClipSettings()
    parser.add_argument("folder", metavar="FOLDER", help="of the recordings: .wav, .flac, .ogg, .mp3")
    parser.add_argument("--captions", default="", metavar="FILE", help="table, JSON or CSV (the only one in FOLDER)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="table to write, .json")
    tagger = parser.add_mutually_exclusive_group()
    tagger.add_argument("--beats", type=Path, metavar="FILE", help="BEATs fine-tuned on AudioSet, to find voices")
    tagger.add_argument("--tagger", metavar="URL", help="server for audio classification, to find voices")
    parser.add_argument("--max-voice", type=float, default=defaults.max_voice, metavar="P", help="(%(default)s)")
    parser.add_argument("--min-seconds", type=float, default=defaults.min_seconds, metavar="S", help="(%(default)s)")
    parser.add_argument("--allow-noncommercial", action="store_true", help="take clips under such licences")
    arguments = parser.parse_args()
    if arguments.out.suffix != ".json":
        parser.error(f"--out {arguments.out}: the table is JSON; end its name in .json")
    try:
        settings = ClipSettings(
            folder=arguments.folder,
            captions=arguments.captions,
            max_voice=arguments.max_voice,
            min_seconds=arguments.min_seconds,
            allow_noncommercial=arguments.allow_noncommercial,
        )
        kept, refused = scan(settings, _tagger(arguments))
        if kept:
            write_captions(arguments.out, kept)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        parser.error(str(error))
    print(_summary(kept, refused))
    return 0 if kept else 1


def _tagger(arguments: argparse.Namespace) -> VoiceTagger | None:
    if arguments.beats is not None:
        return BeatsTagger(arguments.beats)
    return None if arguments.tagger is None else HttpTagger(arguments.tagger)


def _summary(kept: list[ClipRow], refused: list[Reject]) -> str:
    lines = [f"{len(kept)} of {len(kept) + len(refused)} clips may be heard"]
    lines += [f"  {count:6} {what}" for what, count in sorted(Counter(row.classified() for row in kept).items())]
    lines += [f"  {count:6} in {pool}" for pool, count in sorted(Counter(str(row.pool) for row in kept).items())]
    lines += [
        f"  {count:6} refused: {reason}" for reason, count in Counter(one.reason for one in refused).most_common()
    ]
    lines += [f"         {one.message}" for one in refused[:10]]
    if kept and all(row.voice is None for row in kept):
        lines.append("no tagger was given: voices in the clips were not looked for")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

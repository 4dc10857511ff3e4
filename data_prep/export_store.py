"""Write a store of Arrow shards as JSONL beside audio files, to look into, edit, or give to other tools.

Audio keeps its bytes. The files are OUT/SPLIT.jsonl and OUT/audio/SPLIT/ROW_TURN.flac (or .wav, .ogg, .mp3).

example:
  python -m data_prep.export_store corpora/dailytalk exported/dailytalk --as jsonl
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import track

from data_prep.arguments import command_line
from omnichat.audio import file_bytes
from omnichat.data.info import INFO_FILE, read_info
from omnichat.data.store import Store, write_store
from omnichat.dialogue import AudioRef, DataError, Dialogue, Turn
from omnichat.secrets import mask_output

# How files of the formats that a store keeps begin.
_SUFFIXES = {b"fLaC": ".flac", b"RIFF": ".wav", b"OggS": ".ogg", b"FORM": ".aiff", b"ID3": ".mp3", b"\xff": ".mp3"}


def export(store: Path, out: Path) -> dict[str, int]:
    """Write every split of a store; returns the dialogues of each.

    Args:
        store: its folder, with `store.json`.
        out: folder to write, which must not hold a store yet.

    Raises:
        DataError: `store_exists`, `no_shards`, or what is wrong with the store, by file and row.
    """
    info = read_info(store)
    if not info.shards:
        raise DataError("no_shards", "holds JSONL already; copy the folder", str(store))
    if (out / INFO_FILE).exists():
        raise DataError("store_exists", "holds a store already; name another folder or delete it", str(out))
    splits = {split: _dialogues(Store(store / split), out, split) for split in info.shards}
    return dict(write_store(out, splits, info.name, info.licence, info.source, info.seed, info.engine).splits)


def _dialogues(store: Store, out: Path, split: str) -> Iterator[Dialogue]:
    folder = out / "audio" / split
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[tuple[str, int], Path] = {}
    rows = range(len(store))
    for row in track(rows, split, console=Console(stderr=True), disable=not sys.stderr.isatty()):
        dialogue = store[row]
        turns = []
        for number, turn in enumerate(dialogue.turns):
            if turn.audio is not None:
                place = turn.audio.path, turn.audio.offset
                if place not in written:  # a recording that holds many turns is referred to by each
                    written[place] = _write(turn.audio, folder / f"{row:06}_{number:02}")
                turns.append(_moved(turn, turn.audio, written[place]))
            else:
                turns.append(turn)
        yield replace(dialogue, turns=tuple(turns))


def _moved(turn: Turn, audio: AudioRef, path: Path) -> Turn:
    return replace(turn, audio=replace(audio, path=str(path), offset=0, size=0))


def _write(audio: AudioRef, stem: Path) -> Path:
    content = file_bytes(audio)
    suffix = next((suffix for start, suffix in _SUFFIXES.items() if content.startswith(start)), Path(audio.path).suffix)
    path = stem.with_suffix(suffix)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
    return path


def main() -> int:
    """`python -m data_prep.export_store STORE OUT`."""
    mask_output()
    parser = command_line("data_prep.export_store", __doc__)
    parser.add_argument("store", type=Path, metavar="STORE", help="folder of the store, with store.json")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument(
        "--as", choices=["jsonl"], default="jsonl", dest="form", help="JSONL beside audio files (jsonl)"
    )
    arguments = parser.parse_args()
    try:
        counts = export(arguments.store, arguments.out)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"{split}: {count:,} dialogues" for split, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

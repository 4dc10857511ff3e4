"""From a reading to a store: audio copied byte for byte, dialogues written, and a table of what was read."""

import argparse
import filecmp
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from omnichat.audio import SAMPLE_RATE
from omnichat.data.corpora.emotions import EmotionMap
from omnichat.data.corpora.reading import Reading
from omnichat.data.store import StoreInfo, write_store
from omnichat.dialogue import AudioRef, DataError, Dialogue

SHOWN = 20


def write_reading(
    reading: Reading, source: Path, out: Path, split: str, name: str, licence: str, origin: str
) -> StoreInfo:
    """Copy the audio of all dialogues below `out/audio`, as it lies below `source`, and write the store.

    Files keep their bytes: no rate, no sample format and no level is changed. A file that is there already is not
    copied again.

    Raises:
        DataError: `empty_file` where no dialogue is usable.
    """
    if not reading.dialogues:
        raise DataError("empty_file", f"no dialogue is usable, {len(reading.rejects)} were rejected", str(source))
    copied: dict[str, str] = {}
    dialogues = [_with_copied_audio(dialogue, source, out, copied) for dialogue in reading.dialogues]
    return write_store(out, {split: dialogues}, name, licence, origin)


def report(reading: Reading, labels: EmotionMap) -> str:
    """What was read, what its emotions became, and why dialogues were rejected."""
    turns = [turn for dialogue in reading.dialogues for turn in dialogue.turns]
    samples = sum(turn.audio.num_samples for turn in turns if turn.audio is not None)
    count = max(1, len(reading.dialogues))
    lines = [
        f"dialogues {len(reading.dialogues)}, turns {len(turns)} ({len(turns) / count:.1f} a dialogue), "
        f"audio {samples / SAMPLE_RATE / 3600:.2f} h",
        "emotions, before and after:",
        *labels.table(reading.labels),
        f"majority-class weighted F1 of the answers: {100 * majority_f1(reading.dialogues):.1f}",
        f"rejected: {len(reading.rejects)}",
    ]
    for reason, number in Counter(error.reason for error in reading.rejects).most_common():
        lines.append(f"{reason:>20} {number:6d}")
    lines += [f"  {error}" for error in reading.rejects[:SHOWN]]
    return "\n".join(lines)


def majority_f1(dialogues: Sequence[Dialogue]) -> float:
    """Weighted F1 of always answering the commonest emotion: with its share p, recall 1 and precision p."""
    emotions = Counter(
        turn.style.emotion
        for dialogue in dialogues
        for turn in dialogue.turns
        if turn.role == "assistant" and turn.style.emotion is not None
    )
    share = max(emotions.values(), default=0) / max(1, emotions.total())
    return 2 * share**2 / (1 + share)


def run(parser: argparse.ArgumentParser, convert: Callable[[argparse.Namespace], str]) -> int:
    """Parse the command line, convert, print the table; 0 done, 1 failed with one message, 2 wrong usage."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", type=Path, metavar="SRC", help="folder of the corpus as it was downloaded")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the store to write")
    arguments = parser.parse_args()
    try:
        print(convert(arguments))
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _with_copied_audio(dialogue: Dialogue, source: Path, out: Path, copied: dict[str, str]) -> Dialogue:
    def moved(ref: AudioRef) -> AudioRef:
        if ref.path not in copied:
            copied[ref.path] = str(_copy(Path(ref.path), out / "audio" / Path(ref.path).relative_to(source)))
        return replace(ref, path=copied[ref.path])

    turns = tuple(replace(turn, audio=moved(turn.audio)) if turn.audio is not None else turn for turn in dialogue.turns)
    return replace(dialogue, turns=turns)


def _copy(source: Path, target: Path) -> Path:
    if not target.exists() or not filecmp.cmp(source, target, shallow=False):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        shutil.copyfile(source, partial)
        os.replace(partial, target)
    return target

"""Dialogues of a store for a baseline: all of them, none shortened."""

from collections.abc import Sequence
from pathlib import Path

from omnichat.data.faults import audio_faults, duplicate_id
from omnichat.data.scan import raise_faults
from omnichat.data.store import Store
from omnichat.dialogue import AudioRef, DataError, Dialogue, shown
from omnichat.evaluation.answering import make_work
from omnichat.evaluation.turns import Turns, Work


def read_dialogues(store: Path, turns: Turns, heard: bool) -> list[Work]:
    """The dialogues of a store, in its order.

    Args:
        store: a JSONL file, or the folder of a split in shards.
        turns: which are answered.
        heard: whether every user turn must have audio that can be read.

    Raises:
        DataError: every fault at once, each with its place.
    """
    rows, found, faults, first = Store(store), [], list[DataError](), dict[str, int]()
    for row in range(len(rows)):
        place = rows.place(row)
        try:
            dialogue = rows[row]
        except DataError as error:
            faults += error.all()
            continue
        if (seen := first.setdefault(dialogue.id, row)) != row:
            faults.append(duplicate_id(dialogue.id, rows.place(seen)).at(place))
        if heard:
            faults += [fault.at(place) for fault in (*_silent(dialogue), *audio_faults(dialogue))]
        found.append(make_work(dialogue, place, turns))
    raise_faults(faults)
    return found


def _silent(dialogue: Dialogue) -> list[DataError]:
    message = "has no audio to hear; give it audio, or measure against a run with data.input=text"
    return [
        DataError("no_audio", message, f"dialogue {shown(dialogue.id)}: turn {number}")
        for number, turn in enumerate(dialogue.turns)
        if turn.role == "user" and turn.audio is None
    ]


def user_audio(dialogue: Dialogue) -> list[AudioRef]:
    """Of the user turns before the one to be answered, in order."""
    return [turn.audio for turn in dialogue.turns[:-1] if turn.role == "user" and turn.audio is not None]


def audio_names(refs: Sequence[AudioRef]) -> list[str]:
    """What tells one stretch of audio from another: its file's hash, or when that was last changed."""
    names = []
    for ref in refs:
        known = ref.sha256 or f"{ref.path}@{Path(ref.path).stat().st_mtime_ns}+{ref.offset}"
        names.append(f"{known}:{ref.start}+{ref.num_samples}" + (f"/{ref.channel}" if ref.channel is not None else ""))
    return names

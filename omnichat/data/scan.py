"""Every fault of a store at once, and the length of every dialogue, before the first step."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnichat.audio import SAMPLE_RATE
from omnichat.data.faults import audio_faults, duplicate_id
from omnichat.data.first_places import FirstPlaces
from omnichat.data.overlong import OVERLONG, Overlong, shorten
from omnichat.data.store import Store
from omnichat.dialogue import STYLE_FIELDS, DataError, Dialogue, raise_together
from omnichat.prompt import Prompt, Tokens

SHOWN = 20


@dataclass(frozen=True, slots=True)
class Scan:
    """What a store holds, R usable dialogues of it.

    Attributes:
        store: the dialogues.
        rows: (R,) int64, rows of the usable dialogues.
        lengths: (R,) int32, tokens of each.
        targets: (R,) int32, tokens of each that count in the loss.
        seconds: (R,) float32, audio of each that is heard.
        first_turns: (R,) int32, turns that each leaves out at its start to be within the limit; mostly 0.
        faults: what is broken, in the order of the file.
        dropped: dialogues over the limit that the policy leaves out, each named.
        style_fields: (4,) bool, which of `STYLE_FIELDS` are a target in some usable dialogue.
        context_only: (R,) int32, assistant turns of each that are not to be learnt (`learn` false); empty: none.
    """

    store: Store
    rows: NDArray[np.int64]
    lengths: NDArray[np.int32]
    targets: NDArray[np.int32]
    seconds: NDArray[np.float32]
    first_turns: NDArray[np.int32]
    faults: tuple[DataError, ...]
    dropped: tuple[DataError, ...]
    style_fields: NDArray[np.bool_] = field(default_factory=lambda: np.ones(len(STYLE_FIELDS), dtype=np.bool_))
    context_only: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, dtype=np.int32))

    def first(self, count: int) -> "Scan":
        """The same with its first usable dialogues only; faults and what was dropped stay those of the whole store.

        Raises:
            DataError: `too_few_dialogues` where it does not hold so many.
        """
        if count > len(self.rows):
            message = f"holds {len(self.rows):,} usable dialogues, {count:,} are asked for (data.first); ask for fewer"
            raise DataError("too_few_dialogues", message, str(self.store.path))
        names = ("rows", "lengths", "targets", "seconds", "first_turns", "context_only")
        return replace(self, **{name: getattr(self, name)[:count] for name in names})


def scan(store: Store, prompt: Prompt, overlong: Overlong = "error", decode: bool = False) -> Scan:
    """Read every line and the header of every user turn's audio, and render every dialogue.

    Args:
        store: the dialogues.
        prompt: renders them; its `max_tokens` is the limit.
        overlong: whether a dialogue over the limit is a fault, loses its oldest turns, or is left out and named.
        decode: decode all audio too, which finds broken and non-finite samples behind a sound header.

    Raises:
        ValueError: `overlong` is none of `OVERLONG`.
    """
    if overlong not in OVERLONG:
        raise ValueError(f"overlong {overlong!r} is not one of {', '.join(OVERLONG)}")
    # Row, length, targets, seconds, first turn, context only: a number is 4 or 8 bytes, and no object.
    columns: list[array[Any]] = [array(kind) for kind in "qiifii"]
    faults: list[DataError] = []
    dropped: list[DataError] = []
    style_fields: set[str] = set()
    first_rows = FirstPlaces(len(store))
    for row in range(len(store)):
        try:
            dialogue = store[row]
            found = []
            if (first := first_rows.first(dialogue.id, row)) != row:
                found.append(duplicate_id(dialogue.id, store.place(first)).at(store.place(row)))
            if prompt.input != "text":
                found += [fault.at(store.place(row)) for fault in audio_faults(dialogue, decode)]
            raise_together(found)
            first_turn, tokens = _render(prompt, dialogue, store.place(row), overlong)
        except DataError as error:
            (dropped if error.reason == "too_long" and overlong == "drop_dialogue" else faults).extend(error.all())
            continue
        seconds = sum(slot.audio.num_samples for slot in tokens.slots) / SAMPLE_RATE
        style_fields |= tokens.style_fields
        context = sum(turn.role == "assistant" and not turn.learn for turn in dialogue.turns[first_turn:])
        values = (row, len(tokens.ids), tokens.num_targets, seconds, first_turn, context)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return Scan(
        store,
        rows=np.frombuffer(columns[0], dtype=np.int64),
        lengths=np.frombuffer(columns[1], dtype=np.int32),
        targets=np.frombuffer(columns[2], dtype=np.int32),
        seconds=np.frombuffer(columns[3], dtype=np.float32),
        first_turns=np.frombuffer(columns[4], dtype=np.int32),
        faults=tuple(faults),
        dropped=tuple(dropped),
        style_fields=np.array([name in style_fields for name in STYLE_FIELDS]),
        context_only=np.array(columns[5], dtype=np.int32),
    )


def raise_faults(faults: Sequence[DataError]) -> None:
    """Raise all faults as one error that names the first 20; nothing where there are none.

    Raises:
        DataError: the fault itself where there is one; `bad_data` where there are several.
    """
    if len(faults) == 1:
        raise faults[0]
    if faults:
        lines = [str(fault) for fault in faults[:SHOWN]]
        lines += [f"... and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise DataError("bad_data", "\n  ".join([f"{len(faults)} faults in the data:", *lines]))


def _render(prompt: Prompt, dialogue: Dialogue, place: str, overlong: Overlong) -> tuple[int, Tokens]:
    try:
        return shorten(dialogue, prompt) if overlong == "drop_oldest_turns" else (0, prompt.render(dialogue))
    except DataError as error:
        raise error.at(place) from None

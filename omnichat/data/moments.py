"""Moments of two-track dialogues at which somebody may begin to speak, and what that is: InteractSpeech's task.

A store whose turns overlap keeps in each turn's `meta` where it starts and stops on the dialogue's timeline, in samples
at 22,050 Hz (`omnichat.data.corpora.interactspeech`). What an onset is follows from the timeline alone:

    turn_taking    the other one held the floor and is silent
    interruption   the other one speaks, and stops before the new turn does
    backchannel    the other one speaks, and goes on beyond it
    continue       nobody else: a speaker in the middle of a turn, or one who resumes
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnichat.audio import SAMPLE_RATE, WINDOW, load_audio
from omnichat.data.corpora.interactspeech import RATE
from omnichat.data.scan import raise_faults
from omnichat.data.store import Store
from omnichat.dialogue import MAX_SAMPLES, DataError, Dialogue, Turn, shown

EVENTS = ("turn_taking", "interruption", "backchannel", "continue")
WINDOWS = 9  # of 0.34 s, the moment in the middle of the fifth; ours: 1.5 s before and after it
CLIP = WINDOWS * WINDOW * (SAMPLE_RATE // 50)  # samples at 16 kHz
APART = SAMPLE_RATE  # of a moment within a turn from any onset or end: 1 s, ours


@dataclass(frozen=True, slots=True)
class Span:
    """A turn on the timeline of its dialogue, [start, stop) in samples at 16 kHz."""

    turn: Turn
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of a dialogue.

    Attributes:
        dialogue: its id.
        row: of the dialogue in its store.
        sample: where it is on the timeline, at 16 kHz.
        event: one of `EVENTS`.
        role: who begins to speak, or goes on.
    """

    dialogue: str
    row: int
    sample: int
    event: str
    role: str


class Moments:
    """The moments of a store, and what is heard around each.

    Args:
        path: the store, or a split of it.
        first: only so many dialogues; None for all.

    Raises:
        DataError: all that is wrong with it; `no_times`, `bad_times` or `no_audio` for a turn without a place on the
            timeline, or without sound. Of a sound dialogue, which has two turns, the second gives a moment.
    """

    def __init__(self, path: Path, first: int | None = None) -> None:
        self.store = Store(path)
        self._last: tuple[int, NDArray[np.float32]] | None = None
        found, faults = list[Moment](), list[DataError]()
        for row in range(min(len(self.store), first or len(self.store))):
            try:
                found += self._moments(row)
            except DataError as error:
                faults += error.all()
        raise_faults(faults)
        self.found = found

    def __len__(self) -> int:
        """How many moments."""
        return len(self.found)

    def _moments(self, row: int) -> list[Moment]:
        dialogue = self.store[row]  # whose faults have their place
        try:
            return moments_of(dialogue, row)
        except DataError as error:
            raise error.at(self.store.place(row)) from None

    def clip(self, number: int) -> NDArray[np.float32]:
        """What is heard around a moment, (CLIP,) at 16 kHz: both speakers together, silence beyond the ends.

        Raises:
            DataError: see `load_audio`; with the place of the dialogue.
        """
        moment = self.found[number]
        if self._last is None or self._last[0] != moment.row:  # moments of a dialogue mostly follow each other
            try:
                self._last = (moment.row, heard_together(timeline(self.store[moment.row])))
            except DataError as error:
                raise error.at(f"{self.store.place(moment.row)}: dialogue {shown(moment.dialogue)}") from None
        whole, begin = self._last[1], moment.sample - CLIP // 2
        wave = np.zeros(CLIP, dtype=np.float32)
        piece = whole[max(0, begin) : max(0, begin + CLIP)]
        wave[max(0, -begin) : max(0, -begin) + len(piece)] = piece
        return wave


def timeline(dialogue: Dialogue) -> list[Span]:
    """The turns in the order in which they begin.

    Raises:
        DataError: `no_times`, `bad_times` or `no_audio`, with the turn.
    """
    spans = []
    for number, turn in enumerate(dialogue.turns):
        where = f"dialogue {shown(dialogue.id)}: turn {number}"
        try:
            times = [int(turn.meta[name]) for name in ("start", "stop")]
        except (KeyError, ValueError):
            message = "has no start and stop; only stores of python -m data_prep.interactspeech have a timeline"
            raise DataError("no_times", message, where) from None
        if not 0 <= times[0] < times[1] < MAX_SAMPLES:
            message = f"starts at {times[0]} and stops at {times[1]}; make the store again from its corpus"
            raise DataError("bad_times", message, where)
        if turn.audio is None:
            raise DataError("no_audio", "is not spoken; both speakers must be heard", where)
        spans.append(Span(turn, *(time * SAMPLE_RATE // RATE for time in times)))
    return sorted(spans, key=lambda span: span.start)


def moments_of(dialogue: Dialogue, row: int = 0) -> list[Moment]:
    """The moments of a dialogue, in order: every onset but the first, and the middles of turns far from any.

    Raises:
        DataError: see `timeline`.
    """
    spans = timeline(dialogue)
    found, floor = [], spans[0].turn.role
    for place, span in enumerate(spans):
        if place:
            event = _event(span, spans, floor)
            found.append(Moment(dialogue.id, row, span.start, event, span.turn.role))
            floor = floor if event == "backchannel" else span.turn.role
        middle = (span.start + span.stop) // 2
        edges = (edge for one in spans for edge in (one.start, one.stop))
        if all(abs(middle - edge) >= APART for edge in edges):
            found.append(Moment(dialogue.id, row, middle, "continue", span.turn.role))
    return sorted(found, key=lambda moment: moment.sample)


def _event(span: Span, spans: Sequence[Span], floor: str) -> str:
    others = [one for one in spans if one.turn.role != span.turn.role and one.start < span.start < one.stop]
    if others:
        return "backchannel" if span.stop <= max(one.stop for one in others) else "interruption"
    return "turn_taking" if span.turn.role != floor else "continue"


def heard_together(spans: Sequence[Span]) -> NDArray[np.float32]:
    """All turns at their places, (S,) at 16 kHz, as one microphone would hear them.

    Raises:
        DataError: see `load_audio`.
    """
    waves = [load_audio(span.turn.audio) for span in spans if span.turn.audio is not None]
    whole = np.zeros(max(span.start + len(wave) for span, wave in zip(spans, waves, strict=True)), dtype=np.float32)
    for span, wave in zip(spans, waves, strict=True):
        whole[span.start : span.start + len(wave)] += wave
    return whole

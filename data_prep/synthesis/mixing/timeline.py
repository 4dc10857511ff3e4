"""Turns that overlap: how far each is said, and where it begins."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_prep.synthesis.contracts import Line, Piece
from omnichat.audio import SAMPLE_RATE

FADE = SAMPLE_RATE // 50  # 20 ms: a voice that breaks off does not click


def overlaps(lines: Sequence[Line]) -> bool:
    """Whether the lines have times of their own."""
    return any(line.kind != "turn" or line.gap != 0 or line.cut < 1 for line in lines)


def break_off(wave: NDArray[np.float32], cut: float) -> NDArray[np.float32]:
    """The first `cut` of (S,) samples, faded out; all of them where it is 1."""
    if cut == 1:
        return wave
    kept = wave[: max(1, round(cut * len(wave)))].copy()
    fade = min(FADE, len(kept))
    kept[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return kept


def spoken_words(line: Line) -> str:
    """The words of a line before it is broken off: whole words of the share of letters; at least one."""
    if line.cut == 1:
        return line.text
    words = line.text.split()
    letters = round(line.cut * len(line.text))
    kept = [word for number, word in enumerate(words) if len(" ".join(words[: number + 1])) <= letters]
    return " ".join(kept or words[:1])


def planned_words(line: Line) -> str:
    """The words that are no longer said."""
    return " ".join(line.text.split()).removeprefix(spoken_words(line)).strip() if line.cut < 1 else ""


def starts(lines: Sequence[Line], lengths: Sequence[int | None]) -> list[int]:
    """The sample at which each line begins, by its gap.

    A gap counts from the end of the last line that is no backchannel. No line begins before the line it meets, and
    nobody begins before he has ended.

    Args:
        lines: of the conversation.
        lengths: samples of each as they are heard; None where a line is not spoken, which takes no time.
    """
    placed: list[int] = []
    ends: dict[str, int] = {}
    end = before = 0
    for line, length in zip(lines, lengths, strict=True):
        start = max(end + round(line.gap * SAMPLE_RATE), before, ends.get(line.speaker, 0))
        placed.append(start)
        stop = start + (length or 0)
        ends[line.speaker] = max(ends.get(line.speaker, 0), stop)
        if line.kind != "backchannel":
            before, end = start, stop
    return placed


def place(lines: Sequence[Line], pieces: Sequence[Piece | None]) -> list[Piece | None]:
    """The pieces with their starts: by the gaps where the lines have times of their own, else end to end."""
    lengths = [None if piece is None else piece.num_samples for piece in pieces]
    begins = starts(lines, lengths)
    return [
        None if piece is None else piece.model_copy(update={"start": begin / SAMPLE_RATE})
        for piece, begin in zip(pieces, begins, strict=True)
    ]

"""A script before it is checked: strings, as a writer gives them."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class DraftLine:
    """A turn as written: speaker, style values by field, words; the rest as in `contracts.Line`."""

    speaker: str
    style: Mapping[str, str]
    text: str
    kind: str = "turn"
    gap: float = 0.0
    cut: float = 1.0


@dataclass(frozen=True, slots=True)
class Draft:
    """A history, and for each branch the current turn and the reply to it.

    `words` of the current turn, where the writer gives them apart: all branches must have them. `measures` are what a
    judge found.
    """

    history: tuple[DraftLine, ...]
    currents: tuple[DraftLine, ...]
    replies: tuple[DraftLine, ...]
    words: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)

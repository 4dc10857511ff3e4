"""What all readers share: their result, and the question who is the assistant."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from omnichat.dialogue import DataError, Dialogue, Turn

RolePolicy = Literal["last_speaker", "second_speaker"]
ROLE_POLICIES: tuple[RolePolicy, ...] = ("last_speaker", "second_speaker")


@dataclass
class Reading:
    """A corpus as it was read.

    Attributes:
        dialogues: the usable ones.
        rejects: why the others are not, each with its file.
        labels: the corpus's own emotion labels over all turns read.
    """

    dialogues: list[Dialogue] = field(default_factory=list)
    rejects: list[DataError] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def rejecting(self, path: Path) -> Iterator[None]:
        """Turn whatever is wrong with one file into a reject that names it: one file must not stop a corpus."""
        try:
            yield
        except DataError as error:
            self.rejects.append(error.at(str(path)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"is not laid out as expected ({type(error).__name__}: {error}); fetch it again"
            self.rejects.append(DataError("bad_layout", message, str(path)))


def assign_roles(turns: Sequence[Turn], speakers: Sequence[str], policy: RolePolicy) -> tuple[Turn, ...]:
    """Turns with the assistant's role given to one speaker, ending in a turn of theirs.

    Args:
        turns: as read; their roles are overwritten.
        speakers: of each turn.
        policy: `last_speaker` keeps every turn; `second_speaker` lets the one who answers first be the assistant and
            drops what the user says after the assistant's last turn.

    Raises:
        DataError: `not_two_speakers`.
    """
    order = list(dict.fromkeys(speakers))
    if len(order) != 2:
        raise DataError("not_two_speakers", f"has {len(order)} speakers ({', '.join(order)}); a dialogue needs two")
    assistant = speakers[-1] if policy == "last_speaker" else order[1]
    last = max(number for number, speaker in enumerate(speakers) if speaker == assistant)
    return tuple(
        replace(turn, role="assistant" if speaker == assistant else "user")
        for turn, speaker in zip(turns[: last + 1], speakers, strict=False)
    )

"""What is wrong with data: a stable code, what, where, and how to mend it."""

from collections.abc import Iterable, Sequence
from typing import Any


class DataError(ValueError):
    """Data that cannot be used. `reason` is a stable code; the message says what, where and how to mend it.

    `others` are the further faults of the same dialogue: whoever lists faults lists them too.
    """

    def __init__(self, reason: str, message: str, where: str = "", others: Iterable["DataError"] = ()) -> None:
        super().__init__(f"{where}: {message} [{reason}]" if where else f"{message} [{reason}]")
        self.reason = reason
        self.message = message
        self.where = where
        self.others = tuple(others)

    def at(self, where: str) -> "DataError":
        """The same fault with an outer place in front: `train.jsonl:3` + `turn 2` -> `train.jsonl:3: turn 2`."""
        place = f"{where}: {self.where}" if self.where else where
        return DataError(self.reason, self.message, place, [other.at(where) for other in self.others])

    def all(self) -> list["DataError"]:
        """This fault and the others of the same dialogue."""
        return [self, *self.others]

    def __reduce__(self) -> tuple[type["DataError"], tuple[str, str, str, tuple["DataError", ...]]]:
        # Data workers send it between processes.
        return DataError, (self.reason, self.message, self.where, self.others)


def raise_together(faults: Sequence[DataError]) -> None:
    """Raise the first of the faults, with the others in tow; nothing where there are none."""
    if faults:
        first = faults[0]
        raise DataError(first.reason, first.message, first.where, faults[1:])


def shown(value: Any, limit: int = 120) -> str:
    """A value from a file as a message shows it: on one line, and a long one without its middle."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 2 :]}"

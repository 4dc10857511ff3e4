"""Train, val and test: a corpus's own split where it ships one, else whole groups drawn by a seeded order."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from omnichat.dialogue import DataError

LISTS = "splits"  # the folder that holds the lists of ids


def check_split(name: str) -> str:
    """The name itself, where it can be that of a folder of a store.

    Raises:
        DataError: `bad_split`.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or name == LISTS:
        message = f"split {name!r} names a folder: small letters, digits, _ and - only, and not {LISTS!r}"
        raise DataError("bad_split", message)
    return name


def assign_splits(
    groups: Sequence[str], own: Sequence[str | None], seed: int, shares: Mapping[str, float]
) -> list[str]:
    """A split for each dialogue.

    A dialogue whose corpus names its split keeps it. The others are drawn by groups (a script, a speaker), so that no
    group is spread over two splits: groups are ordered by the SHA-256 of seed and name, and the first ones fill `test`,
    the next `val`, until each has its share of the dialogues; the rest is `train`. The draw depends on nothing but the
    seed and the groups, so that a corpus read in another order, or on another machine, is split alike.

    Args:
        groups: of each dialogue.
        own: the split its corpus ships, or None. A group of which any dialogue has a split of its own goes there whole.
        seed: of the order.
        shares: of `val` and `test` among the dialogues to be drawn, in [0, 1).
    """
    given: dict[str, str] = {}
    for group, split in zip(groups, own, strict=True):
        if split is not None:
            given.setdefault(group, split)
    sizes = Counter(group for group in groups if group not in given)
    order = sorted(sizes, key=lambda group: hashlib.sha256(f"{seed}\0{group}".encode()).digest())
    drawn: dict[str, str] = {}
    for split in ("test", "val"):
        wanted = round(shares.get(split, 0.0) * sizes.total())
        filled = 0
        for group in order:
            if filled >= wanted:
                break
            if group not in drawn:
                drawn[group] = split
                filled += sizes[group]
    return [
        split if split is not None else given.get(group) or drawn.get(group, "train")
        for group, split in zip(groups, own, strict=True)
    ]

"""How things are dealt out to scripts: evenly, and so that a longer run only adds to a shorter one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def rounds(items: Sequence[Item], rng: np.random.Generator) -> Iterator[Item]:
    """The items in shuffled rounds, without end."""
    while True:
        yield from (items[index] for index in rng.permutation(len(items)))


def split_sequence(splits: Mapping[str, float]) -> Iterator[str]:
    """Splits by number, without end: always the one that lacks most."""
    counts = dict.fromkeys(splits, 0)
    total = 0
    while True:
        total += 1
        split = max(splits, key=lambda name: splits[name] * total - counts[name])
        counts[split] += 1
        yield split

"""Ids and randomness of items: both depend on what an item is, never on when, where or after what it is made."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_prep.synthesis.contracts import Contract
from data_prep.synthesis.stage import Stage

ID_DIGITS = 20  # 80 bits: two of 10^9 items would share an id with a chance of 4e-7
MAX_SEED = 2**64


def canonical(value: Any) -> str:
    """JSON of which equal values have the same text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


class Namer:
    """Names the items of a stage.

    Args:
        stage: whose version and identity are part of the id: another engine makes other items.
        seed: of the run.
    """

    def __init__(self, stage: Stage[Any, Any], seed: int) -> None:
        self._start: Mapping[str, Any] = {
            "stage": stage.name,
            "version": stage.version,
            "identity": dict(stage.identity()),
            "seed": seed,
        }

    def __call__(self, item: Contract, take: int = 0) -> str:
        """Id of an item. A further `take` is a further item with the same input: it is made with other randomness."""
        whole = {**self._start, "input": item.model_dump(mode="json"), "take": take}
        return hashlib.sha256(canonical(whole).encode()).hexdigest()[:ID_DIGITS]


def generator(seed: int, item: str, attempt: int) -> np.random.Generator:
    """Randomness of an attempt: Philox, its key the seed, its counter the item's id and the attempt.

    The lowest word of the counter is left to the stream: 2^64 blocks before it would meet the next attempt's.
    """
    number = int(item, 16)
    # As an array of words: numpy would take a list with large numbers in it for floats.
    counter = np.array([0, ((number & 0xFFFF) << 32) | attempt, number >> 16, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=np.array([seed % MAX_SEED, 0], dtype=np.uint64), counter=counter))

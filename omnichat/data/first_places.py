"""Where each of millions of names came first, without keeping the names."""

from hashlib import blake2b
from struct import unpack

import numpy as np


class FirstPlaces:
    """Of each name the place where it came first, in 36 to 72 bytes; a dict takes some 150 and the name itself.

    A name is known by 128 bits of its BLAKE2b, which no two names of a store can be expected to share. They lie in a
    table of open addressing: in the slot that the digest says, or the next one that is free.

    Args:
        count: names that are to be expected; more may come. Exact, it takes 36 bytes for each.
    """

    def __init__(self, count: int = 1_000) -> None:
        self._length = 0
        self._make(count)

    def __len__(self) -> int:
        """Number of names."""
        return self._length

    def first(self, name: str, place: int) -> int:
        """The place at which a name came first, this one where it is new: a number from 0 below 2^64 - 1."""
        low, high = unpack("<QQ", blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest())
        slot = self._slot(low, high)
        if known := self._places[slot]:
            return known - 1
        if 3 * (self._length + 1) > 2 * self._size:  # fuller, looking for a free slot takes long
            self._grow()
            slot = self._slot(low, high)
        self._lows[slot], self._highs[slot], self._places[slot] = low, high, place + 1
        self._length += 1
        return place

    def _slot(self, low: int, high: int) -> int:
        """Of this digest, or the free one where it belongs."""
        lows, highs, places, size = self._lows, self._highs, self._places, self._size
        slot = low % size
        while places[slot] and (lows[slot] != low or highs[slot] != high):
            slot = (slot + 1) % size
        return slot

    def _make(self, count: int) -> None:
        self._size = count * 3 // 2 + 1
        # A memoryview gives and takes Python's numbers, which numpy does far slower one by one.
        self._lows, self._highs, self._places = (np.zeros(self._size, np.uint64).data for _ in range(3))

    def _grow(self) -> None:
        lows, highs, places = self._lows, self._highs, self._places
        self._make(2 * (self._length + 1))
        for low, high, place in zip(lows, highs, places, strict=True):
            if place:
                slot = self._slot(low, high)
                self._lows[slot], self._highs[slot], self._places[slot] = low, high, place

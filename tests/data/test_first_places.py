"""Where names came first: as a dict of strings says it, in a fraction of its memory."""

import tracemalloc
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest

from omnichat.data import first_places
from omnichat.data.first_places import FirstPlaces


class FewSlots:
    """A digest whose first half, which says the slot, has three values only."""

    def __init__(self, name: bytes, digest_size: int) -> None:
        whole = blake2b(name, digest_size=digest_size).digest()
        self._whole = bytes([whole[0] % 3, *bytes(7)]) + whole[8:]

    def digest(self) -> bytes:
        """128 bits."""
        return self._whole


@pytest.mark.parametrize("digest", [blake2b, FewSlots])
@pytest.mark.parametrize("expected", [0, 600])
def test_names_come_first_where_a_dict_says(
    expected: int, digest: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is lost as the table grows, or taken for its neighbour, hides a duplicate or makes one up."""
    monkeypatch.setattr(first_places, "blake2b", digest)
    names = [f"dialogue {number}" for number in np.random.default_rng(0).integers(300, size=600)]
    names += ["", "\ud800", "é", "e\u0301"]
    places, known = FirstPlaces(expected), dict[str, int]()
    for place, name in enumerate(names):
        assert places.first(name, place) == known.setdefault(name, place)
    assert len(places) == len(known)
    assert places.first("another", 2**63) == 2**63 == places.first("another", 0)


def test_a_long_name_takes_no_more_than_a_short_one() -> None:
    """A table that kept the names would fill the memory of a large corpus, once for each rank."""
    count = 20_000
    tracemalloc.start()
    places = FirstPlaces(count)
    for number in range(count):
        places.first(f"{number:0200d}", number)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(places) == count
    assert peak <= 37 * count

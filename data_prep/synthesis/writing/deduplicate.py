"""Scripts that say nearly what an earlier one says.

Whether two scripts are alike depends on the two alone: they share a band of their MinHash signatures, and by exact
count `THRESHOLD` of their word triples; or they are of different splits and share a whole dialogue, which the other
branches may hide from that count. So it does not matter in which shard or order scripts were written: a script is
dropped if and only if one with a lower number is like it, and merged shards give what one run gives.

MinHash and banding: Broder, "On the resemblance and containment of documents" (1997); Leskovec, Rajaraman, Ullman,
"Mining of Massive Datasets", ch. 3. The numbers are ours: pairs that share 0.8 of their triples meet in some band with
a probability of 0.998, pairs that share 0.2 with one of 0.001. Equal scripts always meet.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from data_prep.synthesis.contracts import Script

SHINGLE = 3  # words
THRESHOLD = 0.8
BANDS, ROWS = 20, 6
PRIME = np.uint64(4_294_967_311)  # the least above 2^32
SEED = 1997  # of the hash functions; another one would change which pairs meet


def duplicates(scripts: Mapping[int, Script]) -> dict[int, int]:
    """Which scripts are dropped: number -> the lowest number that says nearly the same.

    Args:
        scripts: those that passed their checks, by number.
    """
    numbers = sorted(scripts)
    keys = np.array([_band_keys(shingles(scripts[number])) for number in numbers]).reshape(len(numbers), BANDS)
    triples = lru_cache(maxsize=10_000)(lambda row: shingles(scripts[numbers[row]]))
    first: dict[int, int] = {}
    for band in range(BANDS):
        for group in _groups(keys[:, band]):
            for place, row in enumerate(group):
                for other in group[:place]:
                    if other >= first.get(row, row):
                        break  # a lower one is known already
                    if _share(triples(other), triples(row)) >= THRESHOLD:
                        first[row] = other
                        break
    for group in _sharing([scripts[number] for number in numbers]):
        for place, row in enumerate(group):
            split = scripts[numbers[row]].brief.split
            others = (other for other in group[:place] if scripts[numbers[other]].brief.split != split)
            first[row] = min(next(others, row), first.get(row, row))
    first = {row: other for row, other in first.items() if other != row}
    return {numbers[row]: numbers[other] for row, other in sorted(first.items())}


def shingles(script: Script) -> frozenset[int]:
    """Hashes of all runs of three words in a script: history, current turn, replies; never across turns.

    The quickstart says the same few things around every current turn, on purpose: that turn alone counts, as a whole.
    """
    if script.brief.recipe == "quickstart":
        return frozenset([crc32(script.current.encode())])
    texts = (
        [line.text for line in script.history] + [script.current] + [branch.reply.text for branch in script.branches]
    )
    found = set()
    for text in texts:
        words = re.findall(r"[^\W_]+", text.lower())
        for start in range(max(1, len(words) - SHINGLE + 1)):
            found.add(crc32(" ".join(words[start : start + SHINGLE]).encode()))
    return frozenset(found)


def _sharing(scripts: Sequence[Script]) -> Iterator[list[int]]:
    """Rows of scripts, in order, that have a dialogue in common: history, current turn and reply, word for word."""
    rows: dict[bytes, list[int]] = {}
    for row, script in enumerate(scripts):
        before = "\n".join([*(line.text for line in script.history), script.current])
        for text in {branch.reply.text for branch in script.branches}:
            rows.setdefault(blake2b(f"{before}\n{text}".encode(), digest_size=16).digest(), []).append(row)
    return (group for group in rows.values() if len(group) > 1)


def _share(first: frozenset[int], second: frozenset[int]) -> float:
    return len(first & second) / len(first | second)


@lru_cache(maxsize=1)
def _hashes() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """(BANDS * ROWS, 1) factors below 2^31, so that no product leaves 64 bits, and offsets."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    factors, offsets = rng.integers(1, 2**31, size=(2, BANDS * ROWS, 1), dtype=np.uint64)
    return factors, offsets


def _band_keys(triples: frozenset[int]) -> NDArray[np.uint64]:
    """(BANDS,): equal where all minima of a band are equal."""
    factors, offsets = _hashes()
    values = np.fromiter(triples, np.uint64, len(triples))
    minima = ((factors * values + offsets) % PRIME).min(axis=1).reshape(BANDS, ROWS)
    keys = np.zeros(BANDS, np.uint64)
    for column in minima.T:  # wraps around at 2^64, as hashes do
        keys = keys * np.uint64(6_364_136_223_846_793_005) + column + np.uint64(1)
    return keys


def _groups(keys: NDArray[np.uint64]) -> Iterator[list[int]]:
    """Rows with equal keys, in order, where there are two or more."""
    order = np.argsort(keys, kind="stable")
    edges = np.flatnonzero(np.diff(keys[order])) + 1
    for start, end in pairwise((0, *edges.tolist(), len(order))):
        if end - start > 1:
            yield order[start:end].tolist()

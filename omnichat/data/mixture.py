"""An endless stream of dialogues from several sources, as a pure function of (sizes, weights, seed, index).

The paper (App. C.1) mixes by mu ~ U(0, 1): a synthetic sample where mu < alpha, else a real one. Here mu is a
counter-based random number of the index, so any index is reached directly, and the same mu serves every alpha:
what is synthetic at a smaller alpha is so at a larger one. Each source is walked in seeded permutations.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from omnichat.dialogue import DataError

BLOCK = 2**16  # indices whose sources are counted and kept together
_LANES = 4  # 64-bit numbers for each step of Philox4x64's counter
_TOLERANCE = 1e-6


def alpha_weights(alpha: float, synthetic: bool, real: bool) -> dict[str, float]:
    """Weights of the paper's two sources, always both and in this order: the draws of a source depend on its place.

    Args:
        alpha: share of synthetic dialogues, in [0, 1].
        synthetic: whether there is a synthetic source.
        real: whether there is a real source.

    Raises:
        DataError: `bad_weights` for an alpha outside [0, 1]; `no_source` where alpha draws from a source not given.
    """
    if not 0 <= alpha <= 1:
        raise DataError("bad_weights", f"alpha is a share between 0 and 1, got {alpha}", "data.alpha")
    weights = {"synthetic": alpha, "real": 1 - alpha}
    given = {"synthetic": synthetic, "real": real}
    for name, weight in weights.items():
        if weight > 0 and not given[name]:
            other = 0 if name == "synthetic" else 1
            message = (
                f"alpha={alpha} draws from {name} dialogues, but data.{name} is not set; set it or use alpha={other}"
            )
            raise DataError("no_source", message, "data.alpha")
    return weights


class Mixture:
    """`mixture[index]` is (source, row). Fast at any index; counts of earlier blocks are kept.

    Args:
        sizes: dialogues of each source.
        weights: share of each source, summing to 1.
        seed: of the draws and the permutations.

    Raises:
        DataError: `bad_weights` or `empty_source`.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int = 0) -> None:
        if len(sizes) != len(weights) or not sizes:
            raise DataError(
                "bad_weights", f"{len(sizes)} sizes and {len(weights)} weights; each source needs one of both"
            )
        if min(weights) < 0 or not abs(sum(weights) - 1) <= _TOLERANCE:
            raise DataError("bad_weights", f"weights must not be negative and must sum to 1, got {list(weights)}")
        for source, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
            if size < 0 or (size == 0 and weight > 0):
                message = f"has {size} dialogues but a weight of {weight}; give it dialogues or the weight 0"
                raise DataError("empty_source", message, f"source {source}")
        if not 0 <= seed < 2**64:
            raise DataError("bad_weights", f"a seed is a whole number from 0 to 2**64 - 1, got {seed}")
        self.sizes, self.weights, self.seed = tuple(sizes), tuple(weights), seed
        self._edges = np.cumsum(weights)
        # Rounding must not leave a gap below 1 that would fall to a source of weight 0.
        self._edges[np.flatnonzero(weights)[-1] :] = 1.0
        self._counts = np.zeros((1, len(sizes)), dtype=np.int64)  # draws of each source before block b
        self._block = lru_cache(maxsize=4)(self._compute_block)
        self._permutation = lru_cache(maxsize=2 * len(sizes))(self._compute_permutation)

    def __getitem__(self, index: int) -> tuple[int, int]:
        """Source and row of the dialogue at `index`."""
        if index < 0:
            raise IndexError(f"the stream starts at 0, got {index}")
        sources, draws = self._block(index // BLOCK)
        source, draw = int(sources[index % BLOCK]), int(draws[index % BLOCK])
        turn, place = divmod(draw, self.sizes[source])
        return source, int(self._permutation(source, turn)[place])

    def draw(self, start: int, stop: int) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Sources and rows, (stop - start,) each, of the indices [start, stop): `mixture[index]`, many at once."""
        if not 0 <= start <= stop:
            raise IndexError(f"the stream has no indices [{start}, {stop})")
        sources = np.empty(stop - start, dtype=np.intp)
        rows = np.empty(stop - start, dtype=np.int64)
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            first, last = max(start, block * BLOCK), min(stop, (block + 1) * BLOCK)
            inside, here = slice(first - block * BLOCK, last - block * BLOCK), slice(first - start, last - start)
            drawn, draws = (part[inside] for part in self._block(block))
            sources[here] = drawn
            for source, size in enumerate(self.sizes):
                if len(places := np.flatnonzero(drawn == source)):
                    rows[here][places] = self._walk(source, draws[places], size)
        return sources, rows

    def counts(self, stop: int) -> tuple[int, ...]:
        """How many dialogues of each source the indices [0, stop) hold."""
        block, rest = divmod(stop, BLOCK)
        self._count_blocks(block)
        inside = np.bincount(self._sources(block)[:rest], minlength=len(self.sizes))
        return tuple(int(count) for count in self._counts[block] + inside)

    def passes(self, stop: int) -> tuple[float, ...]:
        """How often each source has been walked through by the indices [0, stop)."""
        return tuple(count / size if size else 0.0 for count, size in zip(self.counts(stop), self.sizes, strict=True))

    def fingerprint(self) -> str:
        """A short hash of all that the stream depends on."""
        record = [list(self.sizes), [float(weight).hex() for weight in self.weights], self.seed]
        return hashlib.sha256(json.dumps(record).encode()).hexdigest()[:16]

    def _sources(self, block: int) -> NDArray[np.intp]:
        """(BLOCK,) the source of each index of a block: the first whose cumulative weight exceeds mu."""
        raw = self._philox(block * BLOCK // _LANES).random_raw(BLOCK)
        mu = (raw >> np.uint64(11)) * 2.0**-53  # 53 random bits: a double in [0, 1)
        return np.searchsorted(self._edges, mu, side="right")

    def _count_blocks(self, block: int) -> None:
        known = len(self._counts)
        if block >= known:
            new = [np.bincount(self._sources(b), minlength=len(self.sizes)) for b in range(known - 1, block)]
            self._counts = np.concatenate([self._counts, self._counts[-1] + np.cumsum(new, axis=0)])

    def _compute_block(self, block: int) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """(BLOCK,) sources and, for each index, how many draws its source had before it."""
        self._count_blocks(block)
        sources = self._sources(block)
        draws = np.empty(BLOCK, dtype=np.int64)
        for source, before in enumerate(self._counts[block]):
            places = np.flatnonzero(sources == source)
            draws[places] = before + np.arange(len(places))
        return sources, draws

    def _walk(self, source: int, draws: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        """Rows of these draws of a source, which ascend by one."""
        rows = np.empty(len(draws), dtype=np.int64)
        first, last = int(draws[0]), int(draws[-1])
        for turn in range(first // size, last // size + 1):
            start, stop = max(first, turn * size), min(last + 1, (turn + 1) * size)
            permutation = self._permutation(source, turn)
            rows[start - first : stop - first] = permutation[start - turn * size : stop - turn * size]
        return rows

    def _compute_permutation(self, source: int, turn: int) -> NDArray[np.intp]:
        # Sorting random keys, not Generator.permutation, whose order numpy may change between versions.
        return np.argsort(self._philox(0, turn, source + 1).random_raw(self.sizes[source]), kind="stable")

    def _philox(self, position: int, turn: int = 0, stream: int = 0) -> np.random.Philox:
        counter = np.array([position, 0, turn, stream], dtype=np.uint64)
        return np.random.Philox(key=np.array([self.seed, 0], dtype=np.uint64), counter=counter)

    def __reduce__(self) -> tuple[type["Mixture"], tuple[tuple[int, ...], tuple[float, ...], int]]:
        return Mixture, (self.sizes, self.weights, self.seed)  # for data workers; the caches stay behind

"""Which dialogues a step trains on, and which of them a rank takes in each of its micro-batches.

A step is a range of the stream's indices, whatever the number of ranks, micro-batches and workers. With a fixed number
of dialogues B, step s is [s * B, (s + 1) * B). With a budget of tokens it takes the next dialogues, in order, for as
long as they fit; where it begins follows from the lengths before it, which the scan knows, so any step is reached
without reading a dialogue. Either way the position of a run is one integer: its step.
"""

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from omnichat.batch import PackedBatch, pack
from omnichat.data.dataset import DialogueDataset
from omnichat.dialogue import DataError

EVEN = 1.001  # heaviest over mean; what is left is not worth a search
_WALK = 2**16  # dialogues whose lengths are looked at together


def split_step(lengths: Sequence[int], ranks: int, micro_batches: int = 1) -> list[list[list[int]]]:
    """Share the dialogues of a step out, nearly equal in tokens: no rank waits long for another.

    Longest first, each to the lightest micro-batch; then the heaviest gives to another, or exchanges with it, while
    that helps; then the heaviest micro-batch first, each to the lightest rank with room, since ranks wait for each
    other once a step. Numbers of dialogues may differ, which the loss allows: it is divided by the targets of the
    whole step.

    Args:
        lengths: tokens of each dialogue.
        ranks: processes that train side by side.
        micro_batches: that each of them takes one after the other.

    Returns:
        For each rank, for each of its micro-batches, the positions of its dialogues, ascending.

    Raises:
        ValueError: fewer dialogues than micro-batches on all ranks.
    """
    parts = ranks * micro_batches
    if len(lengths) < parts:
        raise ValueError(
            f"{len(lengths)} dialogues a step cannot fill {parts} micro-batches (ranks x accumulation); raise "
            "trainer.dialogues_per_step or trainer.tokens_per_step, or take larger micro-batches"
        )
    shares: list[list[int]] = [[] for _ in range(parts)]
    loads = [(0, part) for part in range(parts)]  # equal loads: the first part
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        load, part = loads[0]
        shares[part].append(place)
        heapq.heapreplace(loads, (load + int(lengths[place]), part))
    _even_out(shares, lengths)
    taken: list[list[list[int]]] = [[] for _ in range(ranks)]
    totals = [(0, rank) for rank in range(ranks)]
    weighed = [(sum(lengths[place] for place in share), part) for part, share in enumerate(shares)]
    for load, part in sorted(weighed, key=lambda one: (-one[0], one[1])):
        total, rank = heapq.heappop(totals)
        taken[rank].append(sorted(shares[part]))
        if len(taken[rank]) < micro_batches:
            heapq.heappush(totals, (total + load, rank))
    return taken


def _even_out(shares: list[list[int]], lengths: Sequence[int]) -> None:
    """Lower the heaviest share by the best move of a dialogue or exchange of two, until it is even or nothing helps."""
    loads = [sum(lengths[place] for place in share) for share in shares]
    while True:
        heavy = max(range(len(shares)), key=loads.__getitem__)
        if loads[heavy] * len(shares) <= EVEN * sum(loads):
            return
        best, change = loads[heavy], None
        for light, share in enumerate(shares):
            for given in shares[heavy]:
                for taken in (None, *share):
                    moved = lengths[given] - (lengths[taken] if taken is not None else 0)
                    after = max(loads[heavy] - moved, loads[light] + moved)
                    # Never so for the last dialogue of the heaviest, nor within it: neither makes it lighter.
                    if after < best:
                        best, change = after, (light, given, taken, moved)
        if change is None:
            return
        light, given, taken, moved = change
        shares[heavy].remove(given)
        shares[light].append(given)
        if taken is not None:
            shares[light].remove(taken)
            shares[heavy].append(taken)
        loads[heavy] -= moved
        loads[light] += moved


class Steps:
    """`steps[s]` is the range of indices that step s trains on.

    Args:
        dataset: the stream.
        dialogues: of every step, or None.
        tokens: the most that a step may hold, or None.
        share_prefix: what the dialogues of a micro-batch begin with is computed once; see `pack`.

    Raises:
        ValueError: neither or both are given, or one is below 1.
        DataError: `over_budget` where a dialogue alone holds more tokens than a step may.
    """

    def __init__(
        self,
        dataset: DialogueDataset,
        dialogues: int | None = None,
        tokens: int | None = None,
        share_prefix: bool = False,
    ) -> None:
        if (dialogues is None) == (tokens is None) or (dialogues or tokens or 0) < 1:
            raise ValueError(f"a step is so many dialogues or so many tokens, got {dialogues} and {tokens}")
        self.dataset, self.dialogues, self.tokens = dataset, dialogues, tokens
        self.share_prefix = share_prefix
        self._edges = np.zeros(1, dtype=np.int64)  # where steps begin, as far as they are known
        for _, part in dataset.drawn_scans() if tokens is not None else ():
            longest = int(part.lengths.argmax())
            if part.lengths[longest] > (tokens or 0):
                raise DataError(
                    "over_budget",
                    f"has {part.lengths[longest]} tokens, a step may hold {tokens}; raise trainer.tokens_per_step, or "
                    "lower data.max_tokens with data.overlong=drop_oldest_turns or drop_dialogue",
                    part.store.place(int(part.rows[longest])),
                )

    def __getitem__(self, step: int) -> range:
        """The indices of a step."""
        return range(self.start(step), self.start(step + 1))

    def start(self, step: int) -> int:
        """The index at which a step begins, which is the number of dialogues before it."""
        if self.dialogues is not None:
            return step * self.dialogues
        while step >= len(self._edges):
            self._walk()
        return int(self._edges[step])

    def sizes(self, stop: int) -> NDArray[np.int64]:
        """(stop,) dialogues of each of the steps before `stop`."""
        if self.dialogues is not None:
            return np.full(stop, self.dialogues, dtype=np.int64)
        self.start(stop)
        return np.diff(self._edges[: stop + 1])

    def _walk(self) -> None:
        """Find where more steps begin, as far as a span of lengths shows; at least one more."""
        assert self.tokens is not None
        start, span = int(self._edges[-1]), _WALK
        found: list[int] = []
        while not found:
            ends = np.cumsum(self.dataset.lengths(range(start, start + span)), dtype=np.int64)
            before = 0
            while (stop := int(np.searchsorted(ends, before + self.tokens, side="right"))) < span:
                found.append(start + stop)
                before = int(ends[stop - 1])
            span *= 2
        self._edges = np.concatenate([self._edges, np.array(found, dtype=np.int64)])


class StepBatches:
    """The micro-batches of one rank: item n is micro-batch n % accumulation of step n // accumulation.

    Raises:
        ValueError: a rank that is none of `world_size`, or no micro-batches.
    """

    def __init__(self, steps: Steps, accumulation: int = 1, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size or accumulation < 1:
            raise ValueError(f"rank {rank} of {world_size} with accumulation {accumulation} is not possible")
        self.steps, self.dataset = steps, steps.dataset
        self.accumulation, self.rank, self.world_size = accumulation, rank, world_size

    def check(self, stop: int) -> None:
        """Fail now rather than in a worker: every step before `stop` must fill its micro-batches.

        Raises:
            ValueError: see `split_step`; names the first step.
        """
        sizes = self.steps.sizes(stop)
        if len(short := np.flatnonzero(sizes < self.world_size * self.accumulation)):
            try:
                split_step([1] * int(sizes[short[0]]), self.world_size, self.accumulation)
            except ValueError as error:
                raise ValueError(f"step {short[0]}: {error}") from None

    def indices(self, number: int) -> list[int]:
        """The indices of the stream in one micro-batch."""
        step, micro = divmod(number, self.accumulation)
        whole = self.steps[step]
        shares = split_step(self.dataset.lengths(whole).tolist(), self.world_size, self.accumulation)
        return [whole[place] for place in shares[self.rank][micro]]

    def __getitem__(self, number: int) -> PackedBatch:
        """A packed micro-batch that knows the targets of its whole step."""
        examples = [self.dataset[index] for index in self.indices(number)]
        targets = self.dataset.num_targets(self.steps[number // self.accumulation])
        return pack(examples, targets, self.steps.share_prefix)

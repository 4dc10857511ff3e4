"""Steps: the same dialogues whatever the ranks and micro-batches, even in tokens, each reached without a walk."""

import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.workload import MEAN_SECONDS, SIGMA, TURN_SHARES, WORDS_PER_SECOND
from omnichat.audio import FRAME_RATE, WINDOW
from omnichat.batch import PackedBatch
from omnichat.data.dataset import DialogueDataset
from omnichat.data.made_up import made_up_dialogues
from omnichat.data.scan import Scan, scan
from omnichat.data.steps import StepBatches, Steps, split_step
from omnichat.data.store import Store
from omnichat.dialogue import DataError
from omnichat.prompt import Prompt


@pytest.fixture
def stream(tmp_path: Path, prompt: Prompt) -> DialogueDataset:
    """Eleven synthetic and five real dialogues at alpha 0.3."""
    scans = {}
    for name, count in (("synthetic", 11), ("real", 5)):
        made_up_dialogues(tmp_path / name, count)
        scans[name] = scan(Store(tmp_path / name / "train.jsonl"), prompt)
    return DialogueDataset(scans, {"synthetic": 0.3, "real": 0.7}, prompt)


def stream_of(
    store: Path, prompt: Prompt, lengths: Sequence[int] | NDArray[np.int64], seed: int = 0
) -> DialogueDataset:
    """A stream of as many dialogues as there are lengths, for what never reads them."""
    columns = np.array(lengths, dtype=np.int32)
    nothing = np.zeros_like(columns)
    rows = np.arange(len(columns)) % len(Store(store))
    part = Scan(Store(store), rows, columns, columns // 3, nothing.astype(np.float32), nothing, (), ())
    return DialogueDataset({"real": part}, {"real": 1.0}, prompt, seed)


def sharechat_lengths(count: int, seed: int = 0) -> NDArray[np.int64]:
    """Tokens of dialogues with ShareChatX's mean turns and seconds, and the spread that the benchmarks draw."""
    random = np.random.default_rng(seed)
    turns = random.choice(list(TURN_SHARES), count, p=list(TURN_SHARES.values()))
    seconds = random.lognormal(np.log(MEAN_SECONDS) - SIGMA**2 / 2, SIGMA, (count, max(TURN_SHARES)))
    spoken = np.arange(max(TURN_SHARES)) < turns[:, None]
    user = np.where(np.arange(max(TURN_SHARES)) % 2 == 0, np.ceil(seconds * FRAME_RATE / WINDOW) + 6, 0)
    assistant = np.where(np.arange(max(TURN_SHARES)) % 2 == 1, np.ceil(seconds * WORDS_PER_SECOND) + 16, 0)
    return ((user + assistant) * spoken).sum(axis=1).astype(np.int64) + 40


def batches_of_step(stream: DialogueDataset, step: int, world_size: int, accumulation: int) -> list[PackedBatch]:
    """All micro-batches of a step of 8 dialogues, over all ranks."""
    ranks = [StepBatches(Steps(stream, 8), accumulation, rank, world_size) for rank in range(world_size)]
    return [rank[step * accumulation + micro] for rank in ranks for micro in range(accumulation)]


def test_a_step_holds_the_same_dialogues_on_any_number_of_ranks(stream: DialogueDataset) -> None:
    """A run that moves to another machine must go on with the same data; the loss divides by the same targets."""
    for step in (0, 1, 7):
        expected = range(8 * step, 8 * step + 8)
        targets = stream.num_targets(expected)
        for world_size, accumulation in ((1, 1), (2, 1), (4, 1), (8, 1), (1, 4), (2, 2), (3, 1)):
            parts = batches_of_step(stream, step, world_size, accumulation)
            assert sorted(index for part in parts for index in part.indices) == list(expected)
            assert {part.global_targets for part in parts} == {targets}
            assert sum(part.num_targets for part in parts) == targets
            assert [sum(part.dialogue_targets) for part in parts] == [part.num_targets for part in parts]


def test_dialogues_are_shared_out_longest_first() -> None:
    """By hand: micro-batches, and ranks of several micro-batches."""
    assert split_step([9, 1, 1, 1, 8, 7], 3) == [[[0]], [[2, 4]], [[1, 3, 5]]]
    assert split_step([5, 5, 5], 2) == [[[0, 2]], [[1]]]
    # One dialogue each: 9 with 1, 8 with 2; and never three micro-batches on one rank.
    assert split_step([9, 8, 2, 1], 2, 2) == [[[0], [3]], [[1], [2]]]
    assert split_step([100, 1, 1, 1], 2, 2) == [[[0], [3]], [[1], [2]]]
    # 27 and 23 become 24 and 26 by an exchange (11 for 8), then 25 and 25 by a move (1).
    assert split_step([8, 8, 14, 1, 8, 11], 2) == [[[2, 5]], [[0, 1, 3, 4]]]


IMBALANCE = 1.05  # the heaviest rank over the mean of all: what the others wait for


def imbalance(lengths: NDArray[np.int64], ranks: int, micro_batches: int) -> float:
    """The most tokens of a rank, over the mean; every dialogue must be somewhere, once."""
    shares = split_step(lengths.tolist(), ranks, micro_batches)
    assert sorted(place for rank in shares for part in rank for place in part) == list(range(len(lengths)))
    assert all(len(rank) == micro_batches and all(rank) for rank in shares)
    loads = [sum(lengths[place] for part in rank for place in part) for rank in shares]
    return float(max(loads) / np.mean(loads))


@pytest.mark.parametrize(("ranks", "micro_batches"), [(8, 1), (8, 2), (8, 3), (8, 6), (2, 4)])
def test_ranks_are_even_in_tokens(ranks: int, micro_batches: int) -> None:
    """The slowest rank sets the pace: within 5 % of the mean in 19 of 20 steps of 48 dialogues, over 1,000 steps."""
    drawn = sharechat_lengths(48_000).reshape(1_000, 48)
    found = [imbalance(lengths, ranks, micro_batches) for lengths in drawn]
    assert np.quantile(found, 0.95) <= IMBALANCE


def test_one_long_dialogue_is_not_cut_to_balance() -> None:
    """Where a dialogue is longer than a rank's share no order helps; it goes alone, and nothing is lost."""
    shares = split_step([1_000, *[10] * 47], 8)
    assert [0] in [part for rank in shares for part in rank]
    assert max(sum(10 for _ in part) for rank in shares for part in rank if 0 not in part) == 70


def test_a_step_too_small_for_its_ranks_is_refused(stream: DialogueDataset) -> None:
    """A rank without dialogues would wait for ever."""
    with pytest.raises(ValueError, match="step 0: 3 dialogues a step cannot fill 4 micro-batches"):
        StepBatches(Steps(stream, 3), accumulation=2, world_size=2).check(10)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        StepBatches(Steps(stream, 8), rank=2, world_size=2)
    StepBatches(Steps(stream, 4), accumulation=2, world_size=2).check(10)
    budget = int(stream.lengths(range(16)).max())
    small = StepBatches(Steps(stream, tokens=budget), world_size=2)
    first = next(step for step in range(50) if len(small.steps[step]) < 2)
    with pytest.raises(ValueError, match=rf"step {first}: 1 dialogues a step cannot fill 2.*raise .*tokens_per_step"):
        small.check(50)


@pytest.mark.parametrize("size", [{}, {"dialogues": 4, "tokens": 100}, {"dialogues": 0}, {"tokens": 0}])
def test_a_step_has_one_size(stream: DialogueDataset, size: dict[str, int]) -> None:
    """With both, one of them would be passed over in silence."""
    with pytest.raises(ValueError, match="so many dialogues or so many tokens"):
        Steps(stream, **size)


def greedy(lengths: Sequence[int], budget: int) -> list[int]:
    """Where steps begin, one dialogue after the other."""
    starts, held = [0], 0
    for index, length in enumerate(lengths):
        if held + length > budget:
            starts.append(index)
            held = 0
        held += length
    return starts


def test_a_budget_is_filled_in_order_and_never_exceeded(made_up: Path, prompt: Prompt) -> None:
    """Against the walk by hand, at budgets that fit exactly, hardly and loosely, over passes and look-ahead blocks."""
    lengths = [30, 10, 60, 100, 20, 50, 1]
    stream = stream_of(made_up, prompt, lengths)
    walked = stream.lengths(range(70_000)).tolist()
    assert sorted(walked[:7]) == sorted(lengths)
    for budget in (100, 101, 160, 271, 1_000, 40_000, 3_000_000):
        expected = greedy(walked, budget)
        steps = Steps(stream, tokens=budget)
        assert [steps.start(step) for step in range(min(len(expected), 3_000))] == expected[:3_000]
        if len(expected) > 1:
            assert steps[len(expected) - 2] == range(expected[-2], expected[-1])
    assert len(Steps(stream, tokens=3_000_000)[1]) > 70_000  # more than one block is looked at for one step


def test_a_budgets_step_is_reached_from_anywhere(made_up: Path, prompt: Prompt) -> None:
    """A worker or a resumed run asks for a late step first: it must be the one that a walk from the start gives."""
    stream = stream_of(made_up, prompt, sharechat_lengths(3_000))
    walked = Steps(stream, tokens=12_000)
    ranges = [walked[step] for step in range(3_000)]
    assert [one.stop for one in ranges[:-1]] == [one.start for one in ranges[1:]]
    for step in (2_999, 1_500, 0):
        assert Steps(stream, tokens=12_000)[step] == pickle.loads(pickle.dumps(walked))[step] == ranges[step]
    assert walked.sizes(3_000).tolist() == [len(one) for one in ranges]


def test_budgets_are_filled_and_even(made_up: Path, prompt: Prompt) -> None:
    """A budget half empty wastes a GPU: at least 0.90 of it is used, and 8 ranks stay within 5 % of each other."""
    stream = stream_of(made_up, prompt, sharechat_lengths(10_000))
    for budget, ranks in ((4_096, 2), (8_192, 8), (12_288, 8), (32_768, 8)):
        steps = Steps(stream, tokens=budget)
        lengths = [stream.lengths(steps[step]) for step in range(1_000)]
        assert np.mean([one.sum() for one in lengths]) >= 0.90 * budget
        assert max(one.sum() for one in lengths) <= budget
        assert np.quantile([imbalance(one, ranks, 1) for one in lengths], 0.95) <= IMBALANCE


def test_a_dialogue_over_the_budget_is_named(made_up: Path, prompt: Prompt) -> None:
    """It could never be trained on; said before the first step, with file, line and cure."""
    stream = stream_of(made_up, prompt, [30, 10, 60])
    with pytest.raises(DataError, match=rf"{made_up}:3: has 60 tokens, a step may hold 59; raise .*\[over_budget\]"):
        Steps(stream, tokens=59)
    assert Steps(stream, tokens=60)[0].start == 0


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("size", [{"dialogues": 48}, {"tokens": 12_288}])
def test_a_million_dialogues_are_shared_out_whole(made_up: Path, prompt: Prompt, size: dict[str, int]) -> None:
    """On 1, 2, 4 and 8 ranks: over a million draws each is on one rank of its step, once."""
    stream = stream_of(made_up, prompt, sharechat_lengths(80_000), seed=5)
    steps, seen, step = Steps(stream, **size), 0, 0
    while seen < 1_000_000:
        whole = steps[step]
        lengths = stream.lengths(whole).tolist()
        for ranks in (1, 2, 4, 8):
            taken = [whole[place] for rank in split_step(lengths, ranks) for part in rank for place in part]
            assert sorted(taken) == list(range(seen, seen + len(whole)))
        seen, step = seen + len(whole), step + 1


@pytest.mark.parametrize("size", [{"dialogues": 48}, {"tokens": 12_288}])
def test_global_batches_do_not_depend_on_the_ranks(made_up: Path, prompt: Prompt, size: dict[str, int]) -> None:
    """A hash of each step's indices, put together again from the shares of 1, 2, 4 and 8 ranks."""
    stream = stream_of(made_up, prompt, sharechat_lengths(5_000), seed=3)
    hashes = set()
    for world_size, accumulation in ((1, 1), (1, 4), (2, 2), (4, 1), (8, 1)):
        ranks = [StepBatches(Steps(stream, **size), accumulation, rank, world_size) for rank in range(world_size)]
        digest = hashlib.sha256()
        for step in range(40):
            numbers = range(step * accumulation, (step + 1) * accumulation)
            digest.update(str(sorted(index for rank in ranks for n in numbers for index in rank.indices(n))).encode())
        hashes.add(digest.hexdigest())
    assert len(hashes) == 1

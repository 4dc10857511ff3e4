"""The stream: the right share, every dialogue once a pass, the same at any index in any process."""

import pickle
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from omnichat.data.mixture import BLOCK, Mixture, alpha_weights
from omnichat.dialogue import DataError

ALPHAS = (0.0, 0.1, 0.2, 0.5, 0.9, 1.0)


def stream(mixture: Mixture, start: int, stop: int) -> list[tuple[int, int]]:
    """The draws of the indices [start, stop)."""
    return [mixture[index] for index in range(start, stop)]


def test_the_stream_never_changes() -> None:
    """Written down once: a new numpy, or a change here, must not reorder the data of a run that resumes."""
    assert stream(Mixture((5, 3), (0.5, 0.5), seed=1), 0, 12) == EXPECTED_START
    assert [Mixture((80_000, 2_294), (0.2, 0.8), seed=0)[10**k] for k in range(8)] == EXPECTED_POWERS


def mu(seed: int, stop: int) -> np.ndarray:
    """mu of the indices [0, stop) as the design defines it: Philox keyed by the seed, as doubles in [0, 1)."""
    raw = np.random.Philox(key=np.array([seed, 0], dtype=np.uint64)).random_raw(stop)
    return (raw >> np.uint64(11)) / 2**53


def test_an_index_is_synthetic_where_its_mu_is_below_alpha() -> None:
    """The paper's rule to the last bit: at alpha = mu an index is real, one step above it is synthetic."""
    values = mu(3, 1_000)
    drawn = [source for source, _ in stream(Mixture((5, 5), (0.3, 0.7), seed=3), 0, 1_000)]
    assert drawn == [0 if value < 0.3 else 1 for value in values]
    for index in (0, 1, 2, 999):
        at, above = values[index], np.nextafter(values[index], 1)
        assert Mixture((5, 5), (at, 1 - at), seed=3)[index][0] == 1
        assert Mixture((5, 5), (above, 1 - above), seed=3)[index][0] == 0


def test_weights_that_sum_to_almost_one_leave_no_gap() -> None:
    """Shares written with six digits; the rest below one must not fall to a source of weight 0, nor beyond the last."""
    weights = (0.4, 0.6 - 9e-7, 0.0)
    index = int(np.flatnonzero(mu(0, 5_000_000) > sum(weights))[0])
    assert Mixture((5, 5, 5), weights)[index][0] == 1
    assert Mixture((5, 5), weights[:2])[index][0] == 1


def test_any_index_gives_the_same_in_any_order() -> None:
    """Ranks, workers and restarts ask for other indices in another order."""
    sizes, weights = (70, 30, 11), (0.5, 0.3, 0.2)
    whole = stream(Mixture(sizes, weights, 3), 0, 2_000)
    scattered = Mixture(sizes, weights, 3)
    order = np.random.default_rng(0).permutation(2_000).tolist()
    assert {index: scattered[index] for index in order} == dict(enumerate(whole))
    far = BLOCK * 3 + 5
    assert Mixture(sizes, weights, 3)[far] == scattered[far] == pickle.loads(pickle.dumps(scattered))[far]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_each_source_is_walked_in_permutations(alpha: float) -> None:
    """Nothing repeated within a pass, nothing lost, over the edges of passes and of blocks."""
    sizes = (701, 97)
    mixture = Mixture(sizes, (alpha, 1 - alpha), seed=5)
    draws: dict[int, list[int]] = {0: [], 1: []}
    for source, row in stream(mixture, 0, BLOCK + 3_000):
        draws[source].append(row)
    for source, rows in draws.items():
        size = sizes[source]
        passes = [rows[start : start + size] for start in range(0, len(rows), size)]
        assert all(sorted(one) == list(range(size)) for one in passes[:-1])
        assert not passes or max(Counter(passes[-1]).values()) == 1
        assert len({tuple(one) for one in passes[:-1]}) == len(passes[:-1])


def test_a_larger_alpha_only_adds_synthetic_indices() -> None:
    """The points of an alpha sweep then differ by alpha, not by luck; a source's draws are prefixes of one stream."""
    streams = [stream(Mixture((50, 20), (alpha, 1 - alpha), seed=7), 0, 5_000) for alpha in ALPHAS]
    synthetic = [{index for index, (source, _) in enumerate(one) if source == 0} for one in streams]
    for smaller, larger in pairwise(synthetic):
        assert smaller <= larger
    for source in (0, 1):
        walks = sorted(([row for drawn, row in one if drawn == source] for one in streams), key=len)
        for shorter, longer in pairwise(walks):
            assert longer[: len(shorter)] == shorter


def test_alpha_of_zero_and_one_are_pure() -> None:
    """The paper's end points; one stray dialogue would make them others. The other source may be absent."""
    assert {source for source, _ in stream(Mixture((0, 9), (0.0, 1.0)), 0, BLOCK)} == {1}
    assert {source for source, _ in stream(Mixture((9, 0), (1.0, 0.0)), 0, BLOCK)} == {0}


@pytest.mark.parametrize("weights", [(0.2, 0.8), (0.1, 0.2, 0.3, 0.4), (1 / 3, 1 / 3, 1 / 3, 0.0)])
def test_the_shares_are_the_weights(weights: tuple[float, ...]) -> None:
    """A million draws: within four standard deviations of the binomial, so a fault is not luck."""
    total = 1_000_000
    counts = Mixture([1_000] * len(weights), weights, seed=11).counts(total)
    assert sum(counts) == total
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - total * weight) <= 4 * (total * weight * (1 - weight)) ** 0.5


MILLION = 1_000_000
SWEEP = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)  # the paper's Table 4


def assert_walked_in_permutations(sources: np.ndarray, rows: np.ndarray, sizes: tuple[int, ...]) -> None:
    """Within each pass of a source every row once; the last, unfinished pass repeats nothing."""
    for source, size in enumerate(sizes):
        drawn = rows[sources == source]
        whole = len(drawn) - len(drawn) % size if size else 0
        passes = np.sort(drawn[:whole].reshape(-1, size), axis=1) if size else np.empty((0, 0))
        assert (passes == np.arange(size)).all()
        assert len(np.unique(drawn[whole:])) == len(drawn) - whole


def test_many_draws_are_the_single_draws() -> None:
    """What is counted and balanced in bulk must be what is read one by one, over blocks, passes and odd edges."""
    sizes, weights = (701, 97, 5), (0.5, 0.4, 0.1)
    mixture = Mixture(sizes, weights, 3)
    for start, stop in ((0, 1_000), (BLOCK - 100, BLOCK + 100), (3 * BLOCK - 1, 3 * BLOCK), (7, 7)):
        sources, rows = Mixture(sizes, weights, 3).draw(start, stop)
        assert list(zip(sources.tolist(), rows.tolist(), strict=True)) == stream(mixture, start, stop)
    with pytest.raises(IndexError, match=r"\[5, 4\)"):
        mixture.draw(5, 4)
    with pytest.raises(IndexError, match=r"\[-1, 4\)"):
        mixture.draw(-1, 4)


def test_a_sweep_of_a_million_draws_is_nested() -> None:
    """Seven values of alpha on the paper's sizes: the synthetic indices of each hold those of every smaller one, each
    source's draws are prefixes of one walk, and each walk is made of permutations."""
    sizes = (80_000, 2_294)
    streams = [Mixture(sizes, (alpha, 1 - alpha), seed=0).draw(0, MILLION) for alpha in SWEEP]
    values = mu(0, MILLION)
    for alpha, (sources, rows) in zip(SWEEP, streams, strict=True):
        assert np.array_equal(sources == 0, values < alpha)
        assert_walked_in_permutations(sources, rows, sizes)
    for (smaller, few), (larger, many) in pairwise(streams):
        assert not (smaller == 0)[larger == 1].any()
        synthetic, real = few[smaller == 0], many[larger == 1]
        assert np.array_equal(many[larger == 0][: len(synthetic)], synthetic)
        assert np.array_equal(few[smaller == 1][: len(real)], real)


def test_five_sources_over_a_million_draws() -> None:
    """Shares within four standard deviations, every walk made of permutations, sizes from 7 to 100,000."""
    sizes, weights = (100_000, 20_000, 2_294, 130, 7), (0.4, 0.3, 0.2, 0.09, 0.01)
    mixture = Mixture(sizes, weights, seed=21)
    sources, rows = mixture.draw(0, MILLION)
    assert_walked_in_permutations(sources, rows, sizes)
    counts = np.bincount(sources, minlength=5)
    assert tuple(counts) == mixture.counts(MILLION)
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - MILLION * weight) <= 4 * (MILLION * weight * (1 - weight)) ** 0.5
    # More of the first source only adds to its indices, whatever the others share.
    more, _ = Mixture(sizes, (0.5, 0.2, 0.2, 0.05, 0.05), seed=21).draw(0, MILLION)
    assert (more[sources == 0] == 0).all()


def test_a_million_draws_are_the_same_in_any_pieces() -> None:
    """Ranks, workers and restarts look at the stream in pieces of their own: the whole is the same, bit for bit."""
    sizes, weights = (9_000, 2_294, 400), (0.3, 0.6, 0.1)
    sources, rows = Mixture(sizes, weights, 5).draw(0, MILLION)
    for pieces in (2, 4, 8, 31):
        edges = np.linspace(0, MILLION, pieces + 1).astype(int).tolist()
        parts = [Mixture(sizes, weights, 5).draw(start, stop) for start, stop in reversed(list(pairwise(edges)))]
        assert np.array_equal(np.concatenate([part[0] for part in reversed(parts)]), sources)
        assert np.array_equal(np.concatenate([part[1] for part in reversed(parts)]), rows)


def test_one_source_may_be_absent_for_a_million_draws() -> None:
    """The paper's end points: not one stray dialogue, and the same walk as at any other alpha."""
    for alpha, sizes in ((0.0, (0, 2_294)), (1.0, (80_000, 0))):
        sources, rows = Mixture(sizes, (alpha, 1 - alpha), seed=9).draw(0, MILLION)
        drawn = 0 if alpha else 1
        assert (sources == drawn).all()
        assert_walked_in_permutations(sources, rows, sizes)
        mixed_sources, mixed = Mixture((80_000, 2_294), (0.5, 0.5), seed=9).draw(0, 20_000)
        own = mixed[mixed_sources == drawn]
        assert np.array_equal(rows[: len(own)], own)


def test_counts_and_passes_are_those_of_the_stream() -> None:
    """What a report says of the data must be what was drawn."""
    mixture = Mixture((40, 10), (0.25, 0.75), seed=2)
    stop = BLOCK + 321
    drawn = Counter(source for source, _ in stream(mixture, 0, stop))
    assert Mixture((40, 10), (0.25, 0.75), seed=2).counts(stop) == (drawn[0], drawn[1])
    assert mixture.passes(stop) == (drawn[0] / 40, drawn[1] / 10)


def test_seeds_give_other_streams() -> None:
    """Runs over seeds must differ in their data order."""
    starts = {tuple(stream(Mixture((100, 100), (0.5, 0.5), seed), 0, 20)) for seed in range(50)}
    assert len(starts) == 50
    sizes, weights = (9, 9), (0.5, 0.5)
    same = {Mixture(sizes, weights, 1).fingerprint(), Mixture(list(sizes), list(weights), 1).fingerprint()}
    others = [Mixture((9, 8), weights, 1), Mixture(sizes, (0.4, 0.6), 1), Mixture(sizes, weights, 2)]
    assert len(same) == 1
    assert len(same | {mixture.fingerprint() for mixture in others}) == 4


def test_a_far_index_needs_no_walk() -> None:
    """A resume deep in a run: index 10^7 asked for first gives what it gives after the indices before it."""
    far, walked = (Mixture((80_000, 2_294), (0.2, 0.8)) for _ in range(2))
    stream(walked, 10**7 - 1_000, 10**7)
    assert far[10**7] == walked[10**7]
    assert sum(far.counts(10**7)) == 10**7


@pytest.mark.parametrize(
    ("sizes", "weights", "reason"),
    [
        ((5, 5), (0.5, 0.6), "bad_weights"),
        ((5, 5), (1.5, -0.5), "bad_weights"),
        ((5, 5), (float("nan"), 1.0), "bad_weights"),
        ((5, 5), (1.0,), "bad_weights"),
        ((), (), "bad_weights"),
        ((0, 5), (0.1, 0.9), "empty_source"),
    ],
)
def test_impossible_mixtures_are_named(sizes: tuple[int, ...], weights: tuple[float, ...], reason: str) -> None:
    """Weights that do not sum to one have no meaning; a source without dialogues has nothing to draw."""
    with pytest.raises(DataError) as caught:
        Mixture(sizes, weights)
    assert caught.value.reason == reason


def test_alpha_names_the_source_it_lacks() -> None:
    """Training on what is there would be another alpha than was asked for."""
    assert alpha_weights(0.25, synthetic=True, real=True) == {"synthetic": 0.25, "real": 0.75}
    assert alpha_weights(1.0, synthetic=True, real=False) == {"synthetic": 1.0, "real": 0.0}
    assert alpha_weights(0.0, synthetic=False, real=True) == {"synthetic": 0.0, "real": 1.0}
    with pytest.raises(DataError, match=r"data.alpha: alpha=0.3 draws from real .* data.real is not set.*alpha=1 "):
        alpha_weights(0.3, synthetic=True, real=False)
    with pytest.raises(DataError, match=r"draws from synthetic .* data.synthetic is not set.*alpha=0 "):
        alpha_weights(0.3, synthetic=False, real=True)
    with pytest.raises(DataError, match=r"between 0 and 1, got 1\.5"):
        alpha_weights(1.5, synthetic=True, real=True)


# From this module's first version, numpy 2.4.
EXPECTED_START = [(0, 4), (1, 0), (0, 0), (0, 2), (1, 2), (0, 3), (1, 1), (0, 1), (0, 2), (0, 4), (0, 1), (1, 2)]
EXPECTED_POWERS = [(1, 1194), (1, 127), (1, 629), (1, 1586), (1, 1663), (0, 15920), (1, 1413), (1, 687)]

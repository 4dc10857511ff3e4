"""Who goes into train, val and test."""

import random
from collections import defaultdict

from omnichat.data.corpora.splits import assign_splits

SHARES = {"val": 0.1, "test": 0.2}


def test_no_group_is_spread_and_shares_are_kept() -> None:
    """A script in two splits lets a model score on what it has learnt by heart."""
    groups = [f"script {number % 100}" for number in range(1_000)]
    splits = assign_splits(groups, [None] * 1_000, 3, SHARES)
    where = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        where[group].add(split)
    assert all(len(found) == 1 for found in where.values())
    assert {split: splits.count(split) for split in ("train", "val", "test")} == {"train": 700, "val": 100, "test": 200}


def test_the_draw_depends_on_seed_and_groups_alone() -> None:
    """A corpus listed in another order, on another machine, must be split alike."""
    groups = [f"g{number}" for number in range(200)]
    drawn = dict(zip(groups, assign_splits(groups, [None] * 200, 0, SHARES), strict=True))
    shuffled = random.Random(1).sample(groups, 200)
    assert dict(zip(shuffled, assign_splits(shuffled, [None] * 200, 0, SHARES), strict=True)) == drawn
    other = dict(zip(groups, assign_splits(groups, [None] * 200, 1, SHARES), strict=True))
    assert sum(drawn[group] != other[group] for group in groups) > 20


def test_a_corpuss_own_split_is_obeyed() -> None:
    """Numbers on another test set cannot be compared with anybody's. What shares a group with it follows."""
    groups = ["a", "b", "a", "c", "d"]
    splits = assign_splits(groups, ["test", "val", None, "dev_other", None], 0, {})
    assert splits == ["test", "val", "test", "dev_other", "train"]


def test_a_group_larger_than_a_share_is_kept_whole() -> None:
    """Half a speaker in train would be the leak that groups are there to prevent."""
    splits = assign_splits(["big"] * 9 + ["small"], [None] * 10, 0, {"val": 0.1, "test": 0.1})
    assert len(set(splits[:9])) == 1

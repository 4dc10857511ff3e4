"""Two runs on the same sets: the difference of every metric, its interval, and how likely chance alone makes it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from omnichat.dialogue import DataError
from omnichat.evaluation.measure import NOTHING, TITLES, Metric, Resources, measure, shown, units
from omnichat.evaluation.replies import Answer
from omnichat.evaluation.score import read_sets
from omnichat.evaluation.turns import Turns
from omnichat.metrics.paired import compare
from omnichat.metrics.statistic import Missing, Statistic
from omnichat.run_folder import REPLIES


def compare_runs(
    a: Path, b: Path, splits: Sequence[str] = (), resamples: int = 10_000, seed: int = 0, resources: Resources = NOTHING
) -> dict[str, Any]:
    """Compare the replies of two run folders, set by set.

    Args:
        a: folder of the first run.
        b: folder of the second; differences are the first's value minus its.
        splits: names of the sets; all that both folders have by default.
        resamples: of the paired bootstrap and of the permutation test.
        seed: of both.
        resources: for METEOR and BERTScore.

    Raises:
        DataError: what `read_sets` finds; `no_split`, `mismatched_ids`, `mismatched_references`.
    """
    first, second = read_sets(a)[0], read_sets(b)[0]
    names = list(splits) or [name for name in first if name in second]
    absent = [
        f"{name} in {folder}" for name in names for folder, there in ((a, first), (b, second)) if name not in there
    ]
    if absent or not names:
        message = f"there is no set {', '.join(absent)}" if absent else "the two runs have no set in common"
        there = f"{a}: {', '.join(first)}; {b}: {', '.join(second)}"
        raise DataError("no_split", f"{message} ({there}); answer the same sets with both, or name others with split=")
    found = {}
    for name in names:
        left, right = first[name].answers, second[name].answers
        check_pairs(left, right, f"split {name!r} of {a / REPLIES} and {b / REPLIES}")
        data_of_a, data_of_b = (replace(resources, judged=folder) for folder in (a, b))
        found[name] = compare_answers(left, right, resamples, seed, data_of_a, data_of_b, first[name].turns)
        found[name]["partial"] = first[name].partial or second[name].partial
        found[name]["failures"] = [sum(bool(answer.failure) for answer in answers) for answers in (left, right)]
    return {"a": str(a), "b": str(b), "resamples": resamples, "seed": seed, "splits": found}


def check_pairs(a: Sequence[Answer], b: Sequence[Answer], where: str) -> None:
    """Replies can be compared only where both answer the same dialogues, towards the same references.

    Raises:
        DataError: `mismatched_ids` or `mismatched_references`, with some of them.
    """
    ids = [{_name(answer) for answer in answers} for answers in (a, b)]
    if ids[0] != ids[1]:
        lone = [f"{len(own - other)} only in the {place}" for place, own, other in _sides(*ids) if own - other]
        some = ", ".join(sorted(ids[0] ^ ids[1])[:5])
        message = f"do not answer the same dialogues ({'; '.join(lone)}: {some}); generate both from one store"
        raise DataError("mismatched_ids", message, where)
    other = {answer.key: answer.reference for answer in b}
    if differing := [_name(answer) for answer in a if answer.reference != other[answer.key]]:
        some = f"{len(differing)}, such as {', '.join(differing[:5])}"
        message = f"answer dialogues whose references differ ({some}); generate both again from one store"
        raise DataError("mismatched_references", message, where)


def compare_answers(
    a: Sequence[Answer],
    b: Sequence[Answer],
    resamples: int,
    seed: int,
    data_of_a: Resources = NOTHING,
    data_of_b: Resources = NOTHING,
    turns: Turns = "last",
) -> dict[str, Any]:
    """Every metric of two models' replies to the same dialogues.

    A metric that is no mean or sum over replies has values and no test. One that is missing, or that is not the same
    metric over the same replies on both sides, has a reason and no values.
    """
    a, b = sorted(a, key=lambda answer: answer.key), sorted(b, key=lambda answer: answer.key)
    drawn, left, right = units(a), measure(a, data_of_a, turns), measure(b, data_of_b, turns)
    there = [key for key in TITLES if key in left or key in right]
    lone = {key: Missing(f"{'B' if key in left else 'A'} has none") for key in there}
    metrics = {
        key: _entry(left.get(key, lone[key]), right.get(key, lone[key]), drawn, resamples, seed) for key in there
    }
    return {"n": len(a), "units": len(set(drawn)), "metrics": metrics}


def print_comparison(found: Mapping[str, Any]) -> None:
    """The comparison as a table, values times 100."""
    print(f"A {found['a']}\nB {found['b']}")
    print("x 100; A - B with its 95 % interval; p of a paired permutation test, for each metric by itself")
    for name, split in found["splits"].items():
        partial = f", PARTIAL: {split['partial']['replies']} of {split['partial']['of']}" if split["partial"] else ""
        print(f"\n{name}: n={split['n']}, {split['units']} independent units{partial}")
        if any(split["failures"]):
            print("turns not answered, counted as wrong: A {}, B {}".format(*split["failures"]))
        rows = [["", "A", "B", "A - B", "", "p"]]
        for key, entry in split["metrics"].items():
            if entry["reason"]:
                rows.append([TITLES[key], "-", "-", "-", "", ""])
                continue
            signs = ["+" * (end >= 0) + shown(key, end) for end in (*(entry["ci95"] or ()), entry["difference"])]
            interval = f"[{signs[0]}, {signs[1]}]" if entry["ci95"] else ""
            p_value = "" if entry["p_value"] is None else f"{entry['p_value']:.4f}"
            values = [shown(key, entry["a"]), shown(key, entry["b"]), signs[-1]]
            rows.append([TITLES[key], *values, interval, p_value])
        widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
        for row in rows:
            print("".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        for key, entry in split["metrics"].items():
            if entry["reason"]:
                print(f"{TITLES[key]} not computed: {entry['reason']}")


def _entry(a: Metric, b: Metric, drawn: Sequence[str], resamples: int, seed: int) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(("a", "b", "difference", "ci95", "p_value", "signature", "reason"))
    if isinstance(a, Missing):
        return {**empty, "reason": a.reason}
    if isinstance(b, Missing):
        return {**empty, "reason": b.reason}
    if a.signature != b.signature:
        return {**empty, "reason": f"not the same metric: A {a.signature}; B {b.signature}"}
    if isinstance(a, Statistic) and isinstance(b, Statistic) and not np.array_equal(a.counted, b.counted):
        message = "their dialogues' scenes or verdicts differ; make both again from one store"
        return {**empty, "reason": f"counts {a.n} replies of A and {b.n} of B, not the same ones: {message}"}
    values = {**empty, "a": a.value, "b": b.value, "difference": a.value - b.value, "signature": a.signature}
    if not isinstance(a, Statistic) or not isinstance(b, Statistic):
        return values
    test = compare(a, b, drawn, resamples, seed)
    return {**values, "ci95": test.ci95, "p_value": test.p_value}


def _sides(a: set[str], b: set[str]) -> list[tuple[str, set[str], set[str]]]:
    return [("first", a, b), ("second", b, a)]


def _name(answer: Answer) -> str:
    return f"{answer.id} (turn {len(answer.history)})"

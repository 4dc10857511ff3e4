"""Scores on the screen: a table of values times 100 with their intervals and baselines."""

from collections.abc import Mapping
from typing import Any

from omnichat.evaluation.measure import BASELINES, FORM, TITLES, shown


def print_scores(scores: Mapping[str, Any]) -> None:
    """The scores as a table: values times 100, their 95 % intervals, and what a constant guess would get."""
    splits = scores["splits"]
    step = f", step {scores['step']}" if scores["step"] else ""  # a baseline has none
    print(f"{scores['run']}{step}: x 100, [95 % interval], guess: constant or chance")
    for name, split in splits.items():
        if split["partial"]:
            print(f"PARTIAL: {name} has {split['partial']['replies']} of {split['partial']['of']} replies")
        for line in failures(split):
            print(f"{name}: {line}")
    rows = [["", *(cell for name in splits for cell in (name, "guess"))]]
    rows.append(["", *(cell for s in splits.values() for cell in (f"n={s['n']}, {s['input']}", ""))])
    missing: dict[str, str] = {}
    for key, title in TITLES.items():
        if any(key in split["metrics"] for split in splits.values()):
            rows.append([title, *(cell for split in splits.values() for cell in _cells(split, key))])
            reasons = [split["metrics"].get(key, {}).get("reason") for split in splits.values()]
            if any(reasons):
                missing[title] = next(filter(None, reasons))
    for key, title in FORM.items():
        shares = (f"{100 * split[key]:.1f}" for split in splits.values())
        rows.append([title, *(cell for share in shares for cell in (share, ""))])
    widths = [max(map(len, column)) + 3 for column in zip(*rows, strict=True)]
    for row in rows:
        print("".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    for title, reason in missing.items():
        print(f"{title} not computed: {reason}")


def failures(split: Mapping[str, Any]) -> list[str]:
    """A line for each reason why turns of a set were not answered."""
    return [
        f"{count} of {split['n']} turns were not answered ({reason}) and count as wrong"
        for reason, count in split.get("failures", {}).items()
    ]


def _cells(split: Mapping[str, Any], key: str) -> tuple[str, str]:
    metric, baseline = split["metrics"].get(key), split["baselines"].get(BASELINES.get(key, ""))
    if metric is None or metric["value"] is None:
        return ("" if metric is None else "-", "")
    interval = f" [{shown(key, metric['ci95'][0])}, {shown(key, metric['ci95'][1])}]" if metric["ci95"] else ""
    return f"{shown(key, metric['value'])}{interval}", "" if baseline is None else shown(key, baseline)

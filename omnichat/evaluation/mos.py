"""Mean opinion scores from listeners' ratings, each system with its 95 % interval."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omnichat.dialogue import DataError
from omnichat.evaluation.mos_page import SCALE
from omnichat.metrics.statistic import mean, resample

NORMAL_95 = 1.96  # the normal distribution's 97.5 % quantile


@dataclass(frozen=True, slots=True)
class Opinion:
    """The ratings of one system.

    Attributes:
        mean: of all ratings.
        half_width: of the usual 95 % interval, 1.96 x standard deviation / sqrt(n), which takes ratings as independent.
        ci95: of a bootstrap over dialogues, since ratings of one dialogue are not independent; None for one dialogue.
        n: ratings.
    """

    mean: float
    half_width: float
    ci95: tuple[float, float] | None
    n: int


@dataclass(frozen=True, slots=True)
class Opinions:
    """The systems by name; `missing` says how many ratings each listener left out."""

    systems: dict[str, Opinion]
    missing: dict[str, int]


def score_ratings(key_file: Path, files: Sequence[Path], partial: bool = False, seed: int = 0) -> Opinions:
    """Score the ratings of all listeners.

    Args:
        key_file: `mos_key.json` of the page that they rated.
        files: one for each listener.
        partial: take listeners who left replies unrated, instead of refusing.
        seed: of the bootstrap.

    Raises:
        DataError: `bad_json`, `wrong_type`, `empty_file`, `mismatched_ids` (another page's ratings),
            `duplicate_rater`, `incomplete_ratings`; each with the file.
    """
    key = _read(key_file)
    items = key.get("items")
    if not isinstance(items, dict) or not all(isinstance(one, dict) and "system" in one for one in items.values()):
        raise DataError("wrong_type", "is not a key that eval/mos.py page wrote", str(key_file))
    found: dict[str, list[tuple[str, int]]] = {}
    missing: dict[str, int] = {}
    for path in files:
        rater, ratings = _ratings(path, key["page"], items)
        if rater in missing:
            message = f"is of {rater!r}, as is another file; give one file for each listener, or correct the name"
            raise DataError("duplicate_rater", message, str(path))
        missing[rater] = len(items) - len(ratings)
        if missing[rater] and not partial:
            message = f"{missing[rater]} of {len(items)} replies are not rated; partial=true takes the others"
            raise DataError("incomplete_ratings", message, str(path))
        for token, value in ratings.items():
            one = items[token]
            found.setdefault(one["system"], []).append((f"{one['split']}/{one['id']}", value))
    systems = {name: _opinion(rated, seed) for name, rated in sorted(found.items())}
    return Opinions(systems, {rater: count for rater, count in missing.items() if count})


def _opinion(rated: Sequence[tuple[str, int]], seed: int) -> Opinion:
    values = np.array([value for _, value in rated], dtype=np.float64)
    spread = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    interval = mean(values.tolist(), "mean opinion").interval(resample([unit for unit, _ in rated], 2000, seed))
    return Opinion(float(values.mean()), NORMAL_95 * spread / float(np.sqrt(len(values))), interval, len(values))


def _ratings(path: Path, page: str, items: dict[str, Any]) -> tuple[str, dict[str, int]]:
    record = _read(path)
    rater, ratings = record.get("rater"), record.get("ratings")
    if not isinstance(rater, str) or not isinstance(ratings, dict):
        raise DataError("wrong_type", "is not a file of ratings that the page saved", str(path))
    if record.get("page") != page or set(ratings) - set(items):
        raise DataError("mismatched_ids", "rates another page than this key's; give the key of that page", str(path))
    if not ratings:
        raise DataError("empty_file", f"{rater!r} rated nothing; leave the file out", str(path))
    if wrong := {token: value for token, value in ratings.items() if type(value) is not int or value not in SCALE}:
        raise DataError("wrong_type", f"ratings must be whole numbers from 1 to 5, got {wrong}", str(path))
    return rater, ratings


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("no_file", "no such file; correct the path", str(path)) from None
    except (OSError, ValueError) as error:
        raise DataError("bad_json", f"cannot be read ({error}); save it again", str(path)) from None
    if not isinstance(record, dict):
        raise DataError("wrong_type", "is not a JSON object", str(path))
    return record

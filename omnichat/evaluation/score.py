"""Stage 2: `replies.jsonl` -> `scores.json`. Needs no model, and gives the same numbers every time.

All values are fractions (0..1), which tables show times 100, but for ratings.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnichat.dialogue import DataError
from omnichat.evaluation.baselines.settings import ScoredConfig
from omnichat.evaluation.measure import (
    NOTHING,
    SCRIPT,
    Metric,
    Resources,
    baselines,
    emotion_of,
    known_style,
    measure,
    units,
)
from omnichat.evaluation.replies import AGAIN, Answer, asked_ids, read_answers, read_generation, replace_file
from omnichat.evaluation.turns import Turns
from omnichat.metrics.emotion import confusion
from omnichat.metrics.statistic import Missing, Statistic, Whole, resample
from omnichat.run_folder import GENERATION, REPLIES, SCORES


def score_run(
    run_dir: Path | str, config: ScoredConfig, resources: Resources = NOTHING, partial: bool = False
) -> dict[str, Any]:
    """Score all replies of a run folder into its `scores.json`, and return what it holds.

    The keys of the first split stand at the top level too.

    Args:
        run_dir: holds `replies.jsonl` and `generation.json`.
        config: of the run or baseline.
        resources: for METEOR and BERTScore.
        partial: score splits whose replies are not all there, and mark them, instead of refusing.

    Raises:
        DataError: what `read_answers` finds; `no_file` without `generation.json`; `incomplete_replies`;
            `mismatched_ids` where there are as many as there must be, but to other turns; `mixed_models` where it
            speaks of another model or other sets than the replies.
    """
    run_dir = Path(run_dir)
    sets, about = read_sets(run_dir, partial)
    settings = config.evaluation
    resources = replace(resources, judged=run_dir)
    splits: dict[str, Any] = {}
    for name, found in sets.items():
        scores = score_answers(found.answers, settings.bootstrap, settings.seed, resources, found.turns)
        about_set = {"n": len(found.answers), "seed": config.seed, "input": config.data.input, "partial": found.partial}
        splits[name] = {**about_set, "turns": found.turns, **scores}
    first = next(iter(splits.values()))
    run = {"run": config.run_name, "step": about["step"], "model": about["model"], "decoding": about["decoding"]}
    run["one_by_one"] = about.get("one_by_one")
    result = {**first, **run, "splits": splits}
    replace_file(run_dir / SCORES, (json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
    return result


@dataclass(frozen=True, slots=True)
class ReplySet:
    """The replies to one set; `partial` is None, or how many there are of how many; `turns` which were answered."""

    answers: list[Answer]
    partial: dict[str, int] | None
    turns: Turns = "last"


def read_sets(run_dir: Path, partial: bool = False) -> tuple[dict[str, ReplySet], dict[str, Any]]:
    """The replies of a run folder by set, and what `generation.json` says of them.

    Args:
        run_dir: holds `replies.jsonl` and `generation.json`.
        partial: take sets whose replies are not all there, instead of refusing.

    Raises:
        DataError: see `score_run`.
    """
    answers = read_answers(run_dir / REPLIES)
    about = read_generation(run_dir)
    if not about:
        message = f"is missing or broken, so nobody knows how many replies there must be; {AGAIN}"
        raise DataError("no_file", message, str(run_dir / GENERATION))
    if about.get("model") != answers[0].model or {answer.split for answer in answers} - set(about["splits"]):
        message = f"is not of these replies (another model, or other sets); {AGAIN}"
        raise DataError("mixed_models", message, str(run_dir / GENERATION))
    sets = {}
    for name, record in _records(about, run_dir).items():
        chosen = [answer for answer in answers if answer.split == name]
        if not chosen or (len(chosen) != record["replies"] and not partial):
            message = (
                f"split {name!r} has {len(chosen)} of {record['replies']} replies; {AGAIN}: the rest is made; "
                "partial=true takes those that are there and says so"
            )
            raise DataError("incomplete_replies", message, str(run_dir / REPLIES))
        whole = len(chosen) == record["replies"]
        ids = asked_ids(answer.key for answer in chosen)
        if whole and record.get("ids", ids) != ids:  # older descriptions have none
            message = f"split {name!r} has replies to other turns than were asked for; stage=generate makes them again"
            raise DataError("mismatched_ids", message, str(run_dir / REPLIES))
        # Fewer than the set holds: a kill, a limit, or dialogues that the run's config leaves out.
        partial_of = None if len(chosen) == record["of"] else {"replies": len(chosen), "of": record["of"]}
        sets[name] = ReplySet(chosen, partial_of, record.get("turns", "last"))
    return sets, about


def _records(about: Mapping[str, Any], run_dir: Path) -> dict[str, Any]:
    """What the description says of each set, with all that scores need in it."""
    records: dict[str, Any] = about["splits"]
    lacking = [key for key in ("step", "decoding") if key not in about]
    for name, record in records.items():
        known = record if isinstance(record, dict) else {}
        lacking += [f"{key} of {name!r}" for key in ("replies", "of") if type(known.get(key)) is not int]
    if lacking:
        raise DataError("no_file", f"does not say {', '.join(lacking)}; {AGAIN}", str(run_dir / GENERATION))
    return records


def score_answers(
    answers: Sequence[Answer],
    resamples: int = 1000,
    seed: int = 0,
    resources: Resources = NOTHING,
    turns: Turns = "last",
) -> dict[str, Any]:
    """Metrics, baselines, confusion matrix and gates of one split, in all and by scenario.

    Args:
        answers: at least one.
        resamples: of the bootstrap, over groups of dialogues that share a script.
        seed: of the bootstrap.
        resources: for METEOR and BERTScore.
        turns: which turns the replies are to, and after what.
    """
    statistics = measure(answers, resources, turns)
    groups = units(answers)
    references = [known_style(answer.reference.style).emotion for answer in answers]
    replies = [emotion_of(answer) for answer in answers]
    matrix = confusion(references, replies)
    scenarios, rounds = [answer.scene.get("scenario", "") for answer in answers], [answer.round for answer in answers]
    weights = resample(groups, resamples, seed)
    return {
        **_summary(answers, statistics, weights, turns),
        "failures": Counter(answer.failure for answer in answers if answer.failure),
        "bootstrap": {"resamples": resamples, "seed": seed, "unit": SCRIPT, "units": len(set(groups))},
        "confusion": {"labels": matrix.labels, "columns": matrix.columns, "counts": matrix.counts.tolist()},
        "by_scenario": _parts(answers, statistics, scenarios, resamples, seed, turns),
        "by_turn": _parts(answers, statistics, rounds, resamples, seed, turns),
        "gates": gates_by_scenario(answers),
        "seconds_per_reply": float(np.mean([answer.seconds for answer in answers if not answer.failure] or [0.0])),
    }


def gates_by_scenario(answers: Sequence[Answer]) -> dict[str, dict[str, dict[str, float]]]:
    """How far each expert's gate was open in each scenario: over dialogues the mean, and the middle 80 %."""
    scenarios: dict[str, list[Mapping[str, float]]] = {}
    for answer in answers:
        if answer.gates:
            scenarios.setdefault(answer.scene.get("scenario", "all"), []).append(answer.gates)
    return {
        scenario: {expert: _spread([one[expert] for one in gates]) for expert in gates[0]}
        for scenario, gates in sorted(scenarios.items())
    }


def _parts(
    answers: Sequence[Answer],
    statistics: Mapping[str, Metric],
    labels: Sequence[Any],
    resamples: int,
    seed: int,
    turns: Turns,
) -> dict[str, Any]:
    """The same metrics over the replies of each label, where there are several labels."""
    groups, found = units(answers), {}
    for label in sorted(set(labels)) if len(set(labels)) > 1 else []:
        rows = [row for row, own in enumerate(labels) if own == label]
        chosen = np.isin(np.arange(len(answers)), rows)
        taken: dict[str, Metric] = {}
        for key, one in statistics.items():
            if not isinstance(one, Whole):
                taken[key] = one.take(chosen) if isinstance(one, Statistic) else one
        weights = resample([groups[row] for row in rows], resamples, seed)
        found[str(label)] = _summary([answers[row] for row in rows], taken, weights, turns)
    return found


def _summary(
    answers: Sequence[Answer], statistics: Mapping[str, Metric], weights: NDArray[np.float64], turns: Turns
) -> dict[str, Any]:
    counted = {key: one for key, one in statistics.items() if isinstance(one, Missing) or one.n}
    return {
        "n": len(answers),
        "metrics": {key: _entry(one, weights) for key, one in counted.items()},
        "baselines": baselines(answers, turns),
        "unparsable_share": sum(answer.reply.style is None for answer in answers) / len(answers),
        "guided_share": sum(answer.guided for answer in answers) / len(answers),
    }


def _entry(metric: Metric, weights: NDArray[np.float64]) -> dict[str, Any]:
    if isinstance(metric, Missing):
        return {"value": None, "ci95": None, "n": 0, "signature": None, "reason": metric.reason}
    interval = metric.interval(weights) if isinstance(metric, Statistic) else None
    return {
        "value": metric.value,
        "ci95": None if interval is None else list(interval),
        "n": metric.n,
        "signature": metric.signature,
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    low, high = np.percentile(values, [10, 90])
    return {"mean": float(np.mean(values)), "p10": float(low), "p90": float(high), "n": len(values)}

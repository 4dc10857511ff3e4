"""Stage 2: `replies.jsonl` -> `scores.json`. Needs no model, and gives the same numbers every time.

All values are fractions (0..1); tables show them times 100.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnichat.config import RunConfig
from omnichat.dialogue import STYLE_FIELDS, DataError, Style
from omnichat.evaluation.replies import GENERATION, REPLIES, Answer, read_answers, read_generation, replace_file
from omnichat.metrics.emotion import confusion, emotion_f1, majority, style_accuracies
from omnichat.metrics.naming import chance, false_alarms, naming_accuracy
from omnichat.metrics.statistic import Missing, Statistic, mean, resample
from omnichat.metrics.text import bertscore, bleu, meteor, rouge_l

SCORES = "scores.json"
SCRIPT = "script"  # the scene's key that dialogues with the same words share

# What each metric is called in tables, in their order; and the baseline that stands beside it.
TITLES = {
    "emotion_f1_weighted": "emotion, weighted F1",
    "emotion_f1_macro": "emotion, macro F1",
    "style_accuracy": "style, all fields right",
    **{f"style_accuracy_{name}": f"style: {name}" for name in STYLE_FIELDS},
    "sound_accuracy": "right sound named",
    "sound_false_alarm": "sound named where none is",
    "content_word_accuracy": "content word named",
    "exact_reply": "reply exact, style and words",
    "bleu": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "meteor": "METEOR",
    "bertscore": "BERTScore",
}
BASELINES = {
    "emotion_f1_weighted": "majority_emotion_f1_weighted",
    "emotion_f1_macro": "majority_emotion_f1_macro",
    **{f"style_accuracy_{name}": f"majority_style_accuracy_{name}" for name in STYLE_FIELDS},
    "sound_accuracy": "chance_sound_accuracy",
    "content_word_accuracy": "chance_content_word_accuracy",
}


@dataclass(frozen=True, slots=True)
class Resources:
    """Data on this machine that some metrics need; None where it is not there."""

    wordnet: Path | None = None
    bertscore: Path | None = None
    bertscore_layers: int | None = None


def score_run(
    run_dir: Path | str, config: RunConfig, resources: Resources = Resources(), partial: bool = False
) -> dict[str, Any]:
    """Score all replies of a run folder into its `scores.json`, and return what it holds.

    The keys of the first split stand at the top level too.

    Args:
        run_dir: holds `replies.jsonl` and `generation.json`.
        config: of the run.
        resources: for METEOR and BERTScore.
        partial: score splits whose replies are not all there, and mark them, instead of refusing.

    Raises:
        DataError: what `read_answers` finds; `no_file` without `generation.json`; `incomplete_replies`;
            `mixed_models` where it speaks of another model or other sets than the replies.
    """
    run_dir = Path(run_dir)
    answers = read_answers(run_dir / REPLIES)
    about = read_generation(run_dir)
    if not about:
        message = "is missing or broken, so nobody knows how many replies there must be; run stage=generate again"
        raise DataError("no_file", message, str(run_dir / GENERATION))
    if about.get("model") != answers[0].model or {answer.split for answer in answers} - set(about["splits"]):
        message = "is not of these replies (another model, or other sets); run stage=generate again"
        raise DataError("mixed_models", message, str(run_dir / GENERATION))
    splits: dict[str, Any] = {}
    settings = config.evaluation
    for name, record in about["splits"].items():
        chosen = [answer for answer in answers if answer.split == name]
        if len(chosen) != record["replies"] and not (partial and chosen):
            message = (
                f"split {name!r} has {len(chosen)} of {record['replies']} replies; stage=generate makes the rest, "
                "partial=true scores those that are there and says so"
            )
            raise DataError("incomplete_replies", message, str(run_dir / REPLIES))
        whole = len(chosen) == record["replies"] and record["limit"] is None
        scores = score_answers(chosen, settings.bootstrap, settings.seed, resources)
        splits[name] = {
            "n": len(chosen),
            "seed": config.seed,
            "input": config.data.input,
            "partial": None if whole else {"replies": len(chosen), "of": record["of"]},
            **scores,
        }
    first = next(iter(splits.values()))
    run = {"run": config.run_name, "step": about["step"], "model": about["model"], "decoding": about["decoding"]}
    result = {**first, **run, "splits": splits}
    replace_file(run_dir / SCORES, (json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
    return result


def score_answers(
    answers: Sequence[Answer], resamples: int = 1000, seed: int = 0, resources: Resources = Resources()
) -> dict[str, Any]:
    """Metrics, baselines, confusion matrix and gates of one split, in all and by scenario.

    Args:
        answers: at least one.
        resamples: of the bootstrap, over groups of dialogues that share a script.
        seed: of the bootstrap.
        resources: for METEOR and BERTScore.
    """
    statistics = measure(answers, resources)
    groups = [answer.scene.get(SCRIPT) or answer.id for answer in answers]
    references = [_known(answer.reference.style).emotion for answer in answers]
    replies = [_emotion(answer) for answer in answers]
    matrix = confusion(references, replies)
    scenarios = np.array([answer.scene.get("scenario", "") for answer in answers])
    by_scenario = {}
    for name in sorted(set(scenarios.tolist())) if len(set(scenarios.tolist())) > 1 else []:
        chosen = scenarios == name
        part = [answer for answer, is_chosen in zip(answers, chosen, strict=True) if is_chosen]
        taken = {key: one.take(chosen) if isinstance(one, Statistic) else one for key, one in statistics.items()}
        weights = resample([groups[row] for row in chosen.nonzero()[0]], resamples, seed)
        by_scenario[name] = _summary(part, taken, weights)
    weights = resample(groups, resamples, seed)
    return {
        **_summary(answers, statistics, weights),
        "bootstrap": {"resamples": resamples, "seed": seed, "unit": SCRIPT, "units": len(set(groups))},
        "confusion": {"labels": matrix.labels, "columns": matrix.columns, "counts": matrix.counts.tolist()},
        "by_scenario": by_scenario,
        "gates": gates_by_scenario(answers),
        "seconds_per_reply": float(np.mean([answer.seconds for answer in answers])),
    }


def measure(answers: Sequence[Answer], resources: Resources) -> dict[str, Statistic | Missing]:
    """Every metric that the replies' references and scenes allow, by its key in `scores.json`."""
    wanted, written = [a.reference.text for a in answers], [a.reply.text for a in answers]
    gold = [_known(answer.reference.style) for answer in answers]
    emotions, answered = [style.emotion for style in gold], [_emotion(answer) for answer in answers]
    found: dict[str, Statistic | Missing] = {}
    if any(emotions):
        found["emotion_f1_weighted"] = emotion_f1(emotions, answered, "weighted")
        found["emotion_f1_macro"] = emotion_f1(emotions, answered, "macro")
    accuracies = style_accuracies(gold, [answer.reply.style for answer in answers])
    if "all" in accuracies:
        found["style_accuracy"] = accuracies.pop("all")
    found |= {f"style_accuracy_{name}": accuracy for name, accuracy in accuracies.items()}
    if any(sounds := [answer.scene.get("sound") for answer in answers]):
        found["sound_accuracy"] = naming_accuracy(written, [sound or "" for sound in sounds], wanted)
        if "" in sounds:
            found["sound_false_alarm"] = false_alarms(written, sounds)
    if any(words := [answer.scene.get("content", "") for answer in answers]):
        found["content_word_accuracy"] = naming_accuracy(written, words, wanted)
    found["exact_reply"] = mean([float(_exact(answer)) for answer in answers], "exact|known style and words|omnichat:1")
    found["bleu"] = bleu(wanted, written)
    found["rouge_l"] = rouge_l(wanted, written)
    found["meteor"] = meteor(wanted, written, resources.wordnet)
    found["bertscore"] = bertscore(wanted, written, resources.bertscore, resources.bertscore_layers)
    return found


def baselines(answers: Sequence[Answer]) -> dict[str, float]:
    """What a constant guess (the most frequent class of this very set) or guessing among the names would get."""
    gold = [_known(answer.reference.style) for answer in answers]
    emotions = [style.emotion for style in gold]
    found = {}
    if any(emotions):
        constant = [majority(emotions)] * len(emotions)
        found["majority_emotion_f1_weighted"] = emotion_f1(emotions, constant, "weighted").value
        found["majority_emotion_f1_macro"] = emotion_f1(emotions, constant, "macro").value
    for name in STYLE_FIELDS:
        if known := [value for style in gold if (value := getattr(style, name)) is not None]:
            found[f"majority_style_accuracy_{name}"] = known.count(majority(known)) / len(known)
    for key, scene_key in (("sound", "sound"), ("content_word", "content")):
        if any(names := [answer.scene.get(scene_key, "") for answer in answers]):
            found[f"chance_{key}_accuracy"] = chance(names)
    return found


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


def print_scores(scores: Mapping[str, Any]) -> None:
    """The scores as a table: values times 100, their 95 % intervals, and what a constant guess would get."""
    splits = scores["splits"]
    print(f"{scores['run']}, step {scores['step']}: x 100, [95 % interval], guess: constant or chance")
    for name, split in splits.items():
        if split["partial"]:
            print(f"PARTIAL: {name} has {split['partial']['replies']} of {split['partial']['of']} dialogues")
    rows = [["", *(cell for name in splits for cell in (name, "guess"))]]
    rows.append(["", *(cell for s in splits.values() for cell in (f"n={s['n']}, {s['input']}", ""))])
    missing: dict[str, str] = {}
    for key, title in TITLES.items():
        if any(key in split["metrics"] for split in splits.values()):
            rows.append([title, *(cell for split in splits.values() for cell in _cells(split, key))])
            reasons = [split["metrics"].get(key, {}).get("reason") for split in splits.values()]
            if any(reasons):
                missing[title] = next(filter(None, reasons))
    shares = (f"{100 * split['unparsable_share']:.1f}" for split in splits.values())
    rows.append(["style unreadable", *(cell for share in shares for cell in (share, ""))])
    widths = [max(map(len, column)) + 3 for column in zip(*rows, strict=True)]
    for row in rows:
        print("".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    for title, reason in missing.items():
        print(f"{title} not computed: {reason}")


def _cells(split: Mapping[str, Any], key: str) -> tuple[str, str]:
    metric, baseline = split["metrics"].get(key), split["baselines"].get(BASELINES.get(key, ""))
    if metric is None or metric["value"] is None:
        return ("" if metric is None else "-", "")
    interval = f" [{100 * metric['ci95'][0]:.1f}, {100 * metric['ci95'][1]:.1f}]" if metric["ci95"] else ""
    return f"{100 * metric['value']:.1f}{interval}", "" if baseline is None else f"{100 * baseline:.1f}"


def _summary(
    answers: Sequence[Answer], statistics: Mapping[str, Statistic | Missing], weights: NDArray[np.float64]
) -> dict[str, Any]:
    counted = {key: one for key, one in statistics.items() if isinstance(one, Missing) or one.n}
    return {
        "n": len(answers),
        "metrics": {key: _entry(one, weights) for key, one in counted.items()},
        "baselines": baselines(answers),
        "unparsable_share": sum(answer.reply.style is None for answer in answers) / len(answers),
    }


def _entry(metric: Statistic | Missing, weights: NDArray[np.float64]) -> dict[str, Any]:
    if isinstance(metric, Missing):
        return {"value": None, "ci95": None, "n": 0, "signature": None, "reason": metric.reason}
    interval = metric.interval(weights)
    return {
        "value": metric.value,
        "ci95": None if interval is None else list(interval),
        "n": metric.n,
        "signature": metric.signature,
    }


def _emotion(answer: Answer) -> str | None:
    return answer.reply.style.emotion if answer.reply.style is not None else None


def _exact(answer: Answer) -> bool:
    style, wanted = answer.reply.style, _known(answer.reference.style).known()
    return answer.reply.text == answer.reference.text and style is not None and wanted.items() <= style.known().items()


def _known(style: Style | None) -> Style:
    assert style is not None, "read_answers gives every reference a style"
    return style


def _spread(values: Sequence[float]) -> dict[str, float]:
    low, high = np.percentile(values, [10, 90])
    return {"mean": float(np.mean(values)), "p10": float(low), "p90": float(high), "n": len(values)}

"""Stage 3: `report.html`, one self-contained file that says what was trained, how it went, and how well it answers."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from omnichat.config import RunConfig
from omnichat.dialogue import DataError
from omnichat.evaluation.baselines.settings import GIVEN, BaselineConfig, ScoredConfig
from omnichat.evaluation.baselines.settings import TITLES as BASELINE_TITLES
from omnichat.evaluation.charts import gauge
from omnichat.evaluation.facts import baseline_facts, deviations, realised, run_facts, tiny_notice
from omnichat.evaluation.figures import by_turn, confusions, curves, gates
from omnichat.evaluation.measure import BASELINES, FORM, RATINGS, TITLES, shown
from omnichat.evaluation.page import bullets, facts, page, panel, section, table
from omnichat.evaluation.paper import COLUMNS, paper_table
from omnichat.evaluation.replies import Answer, read_answers, read_generation, replace_file
from omnichat.evaluation.samples import choose, dialogues
from omnichat.evaluation.screen import failures
from omnichat.run_folder import REPLIES, REPORT, SCORES, read_metrics
from omnichat.secrets import masked

SHOWN = 10  # dialogues with players
HEADLINES = ("emotion_f1_weighted", "counterfactual_branches", "sound_accuracy", "content_word_accuracy")
IN_PARTS = ("emotion_f1_weighted", "style_accuracy", "sound_accuracy", "content_word_accuracy", "rouge_l")
BESIDE_PAPER = (*COLUMNS, "counterfactual_groups", "counterfactual_branches")  # the last two: not in the paper
HEARING = {
    "speech": "it hears the user",
    "text": "it reads the user's words and hears nothing",
    "speech+text": "it hears the user and reads the words",
}


def write_report(run_dir: Path | str, config: ScoredConfig, title: str = "", beside: Sequence[Path] = ()) -> Path:
    """Write `report.html` from what lies in the run folder; returns its path.

    Args:
        run_dir: holds `replies.jsonl` and `scores.json`; `metrics.jsonl` and `generation.json` if they were made.
        config: of the run or baseline.
        title: of the page; the run's name by default.
        beside: folders of scored runs to stand beside this one (the same model given text, say).

    Raises:
        DataError: `no_file` or `bad_json` where there are no scores, `mixed_models` where they are of other replies;
            what `read_answers` finds.
    """
    run_dir = Path(run_dir)
    scores = read_scores(run_dir)
    names = Counter(Path(folder).name for folder in beside)
    others = {
        Path(folder).name if names[Path(folder).name] == 1 else str(folder): read_scores(folder) for folder in beside
    }
    answers = read_answers(run_dir / REPLIES)
    counts = Counter(answer.split for answer in answers)
    if scores.get("model") != answers[0].model or any(
        counts[name] != one["n"] for name, one in scores["splits"].items()
    ):
        message = "is of other replies than are here now; run stage=score again"
        raise DataError("mixed_models", message, str(run_dir / SCORES))
    steps = read_metrics(run_dir)
    parameters = read_generation(run_dir).get("parameters", {})
    title = title or config.run_name
    examples = choose(answers, SHOWN)
    body = [
        f'<h1>{escape(title)}</h1><p class="lead">{escape(_lead(scores, config))}</p>',
        tiny_notice(config, parameters) if isinstance(config, RunConfig) else "",
        _headlines(scores, others),
        section(
            "Scores",
            _scores(scores, others),
            _in_parts(scores, "by_scenario", "by scenario"),
            _in_parts(scores, "by_turn", "by turn of the user that is answered"),
            by_turn(scores),
        ),
        *(_training(config, scores, answers, steps) if isinstance(config, RunConfig) else []),
        section("Which emotion is answered for which", confusions(scores)),
        section(f"{len(examples)} dialogues", _about_dialogues(), dialogues(examples)),
        *_about_run(config, parameters, steps, scores),
        section("How the numbers are made", *_methods(scores)),
        f"<footer>Made by omnichat from the run folder {escape(run_dir.name)}.</footer>",
    ]
    path = run_dir / REPORT
    replace_file(path, masked(page(title, body)).encode())
    return path


def read_scores(run_dir: Path | str) -> dict[str, Any]:
    """What `scores.json` of a run folder holds.

    Raises:
        DataError: `no_file` or `bad_json`.
    """
    path = Path(run_dir) / SCORES
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("no_file", "no such file; run stage=score first", str(path)) from None
    except (ValueError, OSError) as error:
        raise DataError("bad_json", f"cannot be read ({error}); run stage=score again", str(path)) from None
    if not isinstance(scores, dict) or not isinstance(scores.get("splits"), dict) or not scores["splits"]:
        raise DataError("bad_json", "holds no splits; run stage=score again", str(path))
    if lacking := _lacking(scores):
        raise DataError("bad_json", f"does not say {', '.join(lacking)}; run stage=score again", str(path))
    return scores


def _lacking(scores: Mapping[str, Any]) -> list[str]:
    """What a page needs of scores and they do not have: those of another version, say."""
    found = [key for key in ("step", "decoding") if key not in scores]
    for name, split in scores["splits"].items():
        known = split if isinstance(split, dict) else {}
        found += [f"{key} of {name}" for key in ("n", "partial") if key not in known]
        parts = ("metrics", "baselines", "confusion", "bootstrap")
        found += [f"{key} of {name}" for key in parts if not isinstance(known.get(key), dict)]
        metrics = known.get("metrics")
        for key, metric in metrics.items() if isinstance(metrics, dict) else ():
            if not isinstance(metric, dict) or not {"value", "ci95", "n", "signature"} <= metric.keys():
                found.append(f"all of {key} of {name}")
    return found


def _training(
    config: RunConfig, scores: Mapping[str, Any], answers: Sequence[Answer], steps: Sequence[Mapping[str, float]]
) -> list[str]:
    return [
        _paper(scores, config, steps),
        section("Training", curves(steps)),
        section("Which expert is heard when", gates(answers, steps, config.model.experts)),
    ]


def _about_run(
    config: ScoredConfig,
    parameters: Mapping[str, Mapping[str, int]],
    steps: Sequence[Mapping[str, float]],
    scores: Mapping[str, Any],
) -> list[str]:
    if isinstance(config, BaselineConfig):
        return [section("The baseline", panel(facts(baseline_facts(config, parameters, scores))))]
    return [
        section("The run", panel(facts(run_facts(config, parameters, steps, scores)))),
        section("Where this departs from the paper", bullets(deviations(config, parameters))),
    ]


def _lead(scores: Mapping[str, Any], config: ScoredConfig) -> str:
    sets = ", ".join(f"{name} (n={split['n']})" for name, split in scores["splits"].items())
    if isinstance(config, BaselineConfig):
        return f"Baseline, {BASELINE_TITLES[config.baseline]}: {GIVEN[config.data.input]}. Scored on {sets}."
    hearing = HEARING[config.data.input]
    return f"Run {config.run_name}, step {scores['step']:,}, seed {config.seed}: {hearing}. Scored on {sets}."


def _headlines(scores: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    cards = []
    for key in HEADLINES:
        lines = []
        for name, split in scores["splits"].items():
            metric = split["metrics"].get(key)
            if metric is None or metric["value"] is None:
                continue
            baseline = split["baselines"].get(BASELINES[key])
            beside = [] if baseline is None else [f"guess {_percent(baseline)}"]
            beside += [
                f"{run} {_value(key, found, interval=False)}"
                for run, other in others.items()
                if (found := _metric(other, name, key)) is not None
            ]
            interval = f" <small>{_interval(key, metric)}</small>" if metric["ci95"] else ""
            lines.append(
                f'<div class="where">{escape(name)}{_partial(split)}</div><b>{_percent(metric["value"])}{interval}</b>'
                f"{gauge(metric['value'], metric['ci95'], baseline)}"
                f'<div class="where">{escape(", ".join(beside))}</div>'
            )
        if lines:
            cards.append(f'<div class="card"><div class="what">{escape(TITLES[key])}</div>{"".join(lines)}</div>')
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _scores(scores: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """A table with, for each split, this run's value and interval, a constant guess, and the runs beside it."""
    splits = scores["splits"]
    keys = [key for key in TITLES if any(key in split["metrics"] for split in splits.values())]
    head = ["× 100"]
    rows = [[escape(TITLES[key])] for key in keys]
    form = {key: [title] for key, title in FORM.items()}
    for name, split in splits.items():
        head += [f"{escape(name)}{_partial(split)}", "", "guess", *map(escape, others)]
        for key, row in form.items():
            shares = [scored["splits"].get(name, {}).get(key) for scored in (scores, *others.values())]
            own, *beside = ["" if share is None else _percent(share) for share in shares]  # older scores lack some
            row += [own, "", "", *beside]
        for row, key in zip(rows, keys, strict=True):
            metric, baseline = split["metrics"].get(key), split["baselines"].get(BASELINES.get(key, ""))
            share = key not in RATINGS and metric is not None and metric["value"] is not None
            drawn = gauge(metric["value"], metric["ci95"], baseline) if metric and share else ""
            row += [_value(key, metric), drawn, "" if baseline is None else _percent(baseline)]
            row += [_value(key, _metric(other, name, key), interval=False) for other in others.values()]
    note = (
        '<p class="note">Band: 95 % interval. Red tick and “guess”: the most frequent class of this very set, or '
        "chance among its names; for counterfactual scores, the most that a model which ignores the sound can get. "
        "A reply whose style cannot be read counts as wrong, never as neutral. Kept in form: the likeliest value of "
        "a field was written where the model by itself would have written something else.</p>"
    )
    lines = [f"{name}: {line}" for name, split in splits.items() for line in failures(split)]
    failed = f'<p class="notice">{escape("; ".join(lines))}</p>' if lines else ""
    return panel(table(head, [*rows, *form.values()], "scores") + failed + note)


def _in_parts(scores: Mapping[str, Any], key: str, title: str) -> str:
    """The main metrics by scenario, or by the number of the user's turn that is answered."""
    rows = [
        [f"{escape(name)}: {escape(label)}", str(part["n"]), *(_value(k, part["metrics"].get(k)) for k in IN_PARTS)]
        for name, split in scores["splits"].items()
        for label, part in split.get(key, {}).items()
    ]
    head = [f"{title}, × 100", "n", *(escape(TITLES[key]) for key in IN_PARTS)]
    return panel(table(head, rows, "scores")) if rows else ""


def _paper(scores: Mapping[str, Any], config: RunConfig, steps: Sequence[Mapping[str, float]]) -> str:
    found = paper_table(config)
    if found is None:
        return ""
    splits = scores["splits"]
    columns = [key for key in BESIDE_PAPER if key in COLUMNS or any(key in one["metrics"] for one in splits.values())]
    lacking = [""] * (len(columns) - len(COLUMNS))
    rows = [
        [f"paper: {escape(name)}", *("" if value is None else f"{value:.2f}" for value in row), *lacking]
        for name, row in found.rows.items()
    ]
    for name, split in splits.items():
        values = [_value(key, split["metrics"].get(key)) for key in columns]
        rows.append([f"<b>this run, {escape(name)}</b>{_partial(split)}", *values])
    drawn = [f"This run drew of {name}: {text}." for name, text in realised(steps).items()]
    notes = " ".join([*([found.note] if found.note else []), *drawn])
    note = f'<p class="note">{escape(notes)}</p>' if notes else ""
    compared = table(["× 100", *(escape(TITLES[key]) for key in columns)], rows, "scores")
    return section("Beside the paper", panel(compared + note, found.title))


def _about_dialogues() -> str:
    return (
        '<p class="note">Drawn at random over sets and scenarios, right or wrong alike. What a user turn says is '
        "printed for you; the model got what the run's input says. Marked words are not the reference's.</p>"
    )


def _methods(scores: Mapping[str, Any]) -> list[str]:
    split = next(iter(scores["splits"].values()))
    rows = [
        [escape(TITLES.get(key, key)), f"<code>{escape(metric['signature'])}</code>"]
        if metric["signature"]
        else [escape(TITLES.get(key, key)), f"not computed: {escape(metric['reason'])}"]
        for key, metric in split["metrics"].items()
    ]
    drawn = split["bootstrap"]
    decoding = ", ".join(f"{name} {value}" for name, value in scores["decoding"].items())
    alone = scores.get("one_by_one")
    same = f" Of {alone['replies']} replies made singly too, {alone['same']} were the same." if alone else ""
    text = (
        f"Intervals: percentile bootstrap, {drawn['resamples']} resamples (seed {drawn['seed']}) of whole groups of "
        f"dialogues that share a {drawn['unit']} ({drawn['units']} groups in the first set), since these are not "
        f"independent. Decoding: {decoding}.{same} Every value is in scores.json, every reply in replies.jsonl."
    )
    signatures = table(["metric", "signature"], rows, "signatures")
    return [f"<p>{escape(text)}</p>", f"<details><summary>Signatures</summary>{signatures}</details>"]


def _metric(scores: Mapping[str, Any], split: str, key: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = scores["splits"].get(split, {}).get("metrics", {}).get(key)
    return found


def _value(key: str, metric: Mapping[str, Any] | None, interval: bool = True) -> str:
    if metric is None:
        return ""
    if metric["value"] is None:
        return f'<span class="absent" title="{escape(metric["reason"])}">not computed</span>'
    ends = f' <span class="ci">{_interval(key, metric)}</span>' if interval and metric["ci95"] else ""
    return f"{shown(key, metric['value'])}{ends}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval(key: str, metric: Mapping[str, Any]) -> str:
    return "–".join(shown(key, end) for end in metric["ci95"])


def _partial(split: Mapping[str, Any]) -> str:
    if not split["partial"]:
        return ""
    return f' <span class="partial">partial: {split["partial"]["replies"]} of {split["partial"]["of"]}</span>'

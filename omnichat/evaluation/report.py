"""Stage 3: `report.html`, one self-contained file that says what was trained, how it went, and how well it answers."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from omnichat.config import RunConfig
from omnichat.dialogue import DataError
from omnichat.evaluation.charts import Bar, Line, bar_plot, gauge, line_plot, smooth
from omnichat.evaluation.facts import deviations, run_facts, tiny_notice
from omnichat.evaluation.page import bullets, facts, page, panel, section, table
from omnichat.evaluation.paper import COLUMNS, paper_table
from omnichat.evaluation.replies import REPLIES, read_answers, read_generation, replace_file
from omnichat.evaluation.samples import EXPERT_COLOURS, choose, dialogues
from omnichat.evaluation.score import BASELINES, SCORES, TITLES

REPORT = "report.html"
METRICS = "metrics.jsonl"
SHOWN = 10  # dialogues with players
HEADLINES = ("emotion_f1_weighted", "sound_accuracy", "content_word_accuracy")


def write_report(run_dir: Path | str, config: RunConfig, title: str = "", beside: Sequence[Path] = ()) -> Path:
    """Write `report.html` from what lies in the run folder; returns its path.

    Args:
        run_dir: holds `replies.jsonl` and `scores.json`; `metrics.jsonl` and `generation.json` where they are there.
        config: of the run.
        title: of the page; the run's name by default.
        beside: folders of scored runs to stand beside this one (the same model given text, say).

    Raises:
        DataError: `no_file` or `bad_json` where there are no scores; what `read_answers` finds.
    """
    run_dir = Path(run_dir)
    scores = read_scores(run_dir)
    others = {other["run"]: other for other in map(read_scores, beside)}
    answers = read_answers(run_dir / REPLIES)
    steps = _read_metrics(run_dir / METRICS)
    parameters = read_generation(run_dir).get("parameters", {})
    title = title or config.run_name
    body = [
        f'<h1>{escape(title)}</h1><p class="lead">{escape(_lead(scores, config))}</p>',
        tiny_notice(config, parameters),
        _headlines(scores, others),
        section("Scores", _scores(scores, others), _by_scenario(scores)),
        _paper(scores, config),
        section("Training", _curves(steps)),
        section("Which expert is heard when", *_gates(scores)),
        section("Which emotion is answered for which", *_confusions(scores)),
        section(f"{min(SHOWN, len(answers))} dialogues", _about_dialogues(), dialogues(choose(answers, SHOWN))),
        section("The run", panel(facts(run_facts(config, parameters, steps, scores)))),
        section("Where this departs from the paper", bullets(deviations(config, parameters))),
        section("How the numbers are made", *_methods(scores)),
        f"<footer>Made by omnichat from the run folder {escape(run_dir.name)}; nothing on this page comes from elsewhere."
        "</footer>",
    ]
    path = run_dir / REPORT
    replace_file(path, page(title, body).encode())
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
    if not isinstance(scores, dict) or not scores.get("splits"):
        raise DataError("bad_json", "holds no splits; run stage=score again", str(path))
    return scores


def _read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of `metrics.jsonl`; a line that a kill cut short is passed over."""
    steps = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "step" in record:
            steps.append(record)
    return steps


def _lead(scores: Mapping[str, Any], config: RunConfig) -> str:
    heard = {"speech": "hears speech", "text": "reads the words, hears nothing", "speech+text": "hears and reads"}
    sets = ", ".join(f"{name} (n={split['n']}{_short(split)})" for name, split in scores["splits"].items())
    return f"Run {config.run_name}, step {scores['step']}, seed {config.seed}; {heard[config.data.input]}; scored on {sets}."


def _short(split: Mapping[str, Any]) -> str:
    return f", partial: of {split['partial']['of']}" if split["partial"] else ""


def _headlines(scores: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    cards = []
    for key in HEADLINES:
        for name, split in scores["splits"].items():
            metric = split["metrics"].get(key)
            if metric is None or metric["value"] is None:
                continue
            baseline = split["baselines"].get(BASELINES[key])
            beside = [f"{_percent(baseline)} by a constant guess"] if baseline is not None else []
            beside += [
                f"{_value(found, interval=False)} by {run}"
                for run, other in others.items()
                if (found := _metric(other, name, key)) is not None
            ]
            interval = f" <small>{_interval(metric)}</small>" if metric["ci95"] else ""
            cards.append(
                f'<div class="card"><span class="what">{escape(TITLES[key])}</span><div class="where">{escape(name)}'
                f"{_partial(split)}</div><b>{_percent(metric['value'])}{interval}</b>"
                f"{gauge(metric['value'], metric['ci95'], baseline)}"
                f'<div class="where">{escape(", ".join(beside))}</div></div>'
            )
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _scores(scores: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """A table with, for each split, this run's value and interval, a constant guess, and the runs beside it."""
    splits = scores["splits"]
    keys = [key for key in TITLES if any(key in split["metrics"] for split in splits.values())]
    head = ["×&nbsp;100"]
    rows = [[escape(TITLES[key])] for key in keys]
    unreadable = ["style unreadable"]
    for name, split in splits.items():
        head += [f"{escape(name)}{_partial(split)}", "", "guess", *map(escape, others)]
        unreadable += [_percent(split["unparsable_share"]), "", ""]
        unreadable += [_percent(s["unparsable_share"]) if (s := o["splits"].get(name)) else "" for o in others.values()]
        for row, key in zip(rows, keys, strict=True):
            metric, baseline = split["metrics"].get(key), split["baselines"].get(BASELINES.get(key, ""))
            drawn = gauge(metric["value"], metric["ci95"], baseline) if metric and metric["value"] is not None else ""
            row += [_value(metric), drawn, "" if baseline is None else _percent(baseline)]
            row += [_value(_metric(other, name, key), interval=False) for other in others.values()]
    note = (
        '<p class="note">Band: 95 % interval. Red tick and “guess”: the most frequent class of this very set, or chance '
        "among its names. A reply whose style cannot be read counts as wrong, never as neutral.</p>"
    )
    return panel(table(head, [*rows, unreadable]) + note)


def _by_scenario(scores: Mapping[str, Any]) -> str:
    keys = ("emotion_f1_weighted", "style_accuracy", "sound_accuracy", "content_word_accuracy", "bleu", "rouge_l")
    rows = []
    for name, split in scores["splits"].items():
        for scenario, part in split["by_scenario"].items():
            values = [_value(part["metrics"].get(key)) for key in keys]
            rows.append([f"{escape(name)}: {escape(scenario)}", str(part["n"]), *values])
    if not rows:
        return ""
    head = ["by scenario", "n", *(escape(TITLES[key]) for key in keys)]
    return panel(table(head, rows))


def _paper(scores: Mapping[str, Any], config: RunConfig) -> str:
    found = paper_table(config)
    if found is None:
        return ""
    rows = [
        [f"paper: {escape(name)}", *("–" if value is None else f"{value:.2f}" for value in row)]
        for name, row in found.rows.items()
    ]
    rows += [
        [f"<b>this run, {escape(name)}{_partial(split)}</b>", *(_value(split["metrics"].get(key)) for key in COLUMNS)]
        for name, split in scores["splits"].items()
    ]
    note = f'<p class="note">{escape(found.note)}</p>' if found.note else ""
    shown = table(["×&nbsp;100", *(escape(TITLES[key]) for key in COLUMNS)], rows)
    return section("Beside the paper", panel(shown + note, found.title))


def _curves(steps: Sequence[Mapping[str, float]]) -> str:
    if not steps:
        return '<p class="note">The run folder holds no metrics.jsonl.</p>'
    loss = [
        _line(steps, "loss/total", "loss", "c1", faint=True),
        _line(steps, "loss/total", "loss, smoothed", "c1", smoothed=True),
        _line(steps, "loss/style", "style tokens", "c2", smoothed=True),
        _line(steps, "loss/content", "content tokens", "c3", smoothed=True),
        _line(steps, "validation/total", "held-out loss", "c4", dots=True),
    ]
    answers = [
        _line(steps, "validation/emotion_f1_weighted", "emotion, weighted F1", "c1", dots=True),
        _line(steps, "validation/exact", "exact words", "c3", dots=True),
        _line(steps, "validation/unparsable", "style unreadable", "c6", dots=True),
    ]
    experts = sorted({name.split("/")[1] for record in steps for name in record if name.startswith("gate/")})
    means = [{"step": r["step"], **{e: mean for e in experts if (mean := _mean_gate(r, e)) is not None}} for r in steps]
    gates = [_line(means, e, e, colour, smoothed=True) for e, colour in zip(experts, EXPERT_COLOURS, strict=False)]
    return (
        '<div class="columns">'
        + panel(line_plot(loss, "step", "loss"), "Loss per target token")
        + panel(line_plot(answers, "step", "share", 1.0), "Held-out replies, generated")
        + panel(line_plot(gates, "step", "gate", 1.0), "Mean gate of each expert")
        + "</div>"
    )


def _line(
    steps: Sequence[Mapping[str, float]],
    key: str,
    name: str,
    colour: str,
    faint: bool = False,
    dots: bool = False,
    smoothed: bool = False,
) -> Line:
    points = [(record["step"], record[key]) for record in steps if math.isfinite(record.get(key, math.nan))]
    ys = [y for _, y in points]
    return Line(name, [x for x, _ in points], smooth(ys) if smoothed and ys else ys, colour, faint, dots)


def _mean_gate(record: Mapping[str, float], expert: str) -> float | None:
    gates = [value for name, value in record.items() if name.startswith(f"gate/{expert}/")]
    return sum(gates) / len(gates) if gates else None


def _gates(scores: Mapping[str, Any]) -> list[str]:
    plots = []
    for name, split in scores["splits"].items():
        groups = {
            scenario: [
                Bar(expert, one["mean"], one["p10"], one["p90"], colour)
                for (expert, one), colour in zip(experts.items(), EXPERT_COLOURS, strict=False)
            ]
            for scenario, experts in split["gates"].items()
        }
        plots.append(panel(bar_plot(groups, "gate"), name))
    if not any(plots):
        return ['<p class="note">This run hears nothing, so there are no gates.</p>']
    note = "Gate of each expert over the windows of the turn that is answered: mean over dialogues, whiskers the middle 80 %."
    return [f'<p class="note">{note}</p>', f'<div class="columns">{"".join(plots)}</div>']


def _confusions(scores: Mapping[str, Any]) -> list[str]:
    panels = []
    for name, split in scores["splits"].items():
        matrix = split["confusion"]
        if not matrix["labels"]:
            continue
        # A column of zeros for what never happens would only take room, unless it is the diagonal's.
        used = [
            place
            for place, column in enumerate(matrix["columns"])
            if column in matrix["labels"] or any(row[place] for row in matrix["counts"])
        ]
        head = "".join(f"<th>{escape(matrix['columns'][place])}</th>" for place in used)
        rows = "".join(
            f"<tr><th>{escape(label)}</th>{''.join(_cell(label, matrix['columns'][p], row[p], sum(row)) for p in used)}</tr>"
            for label, row in zip(matrix["labels"], matrix["counts"], strict=True)
        )
        shown = f'<div class="scroll"><table class="matrix"><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        panels.append(panel(shown, name))
    if not panels:
        return []
    note = "Rows: the reference's emotion. Columns: the reply's. Numbers are dialogues; colour is the share of the row."
    return [f'<p class="note">{note}</p>', f'<div class="columns">{"".join(panels)}</div>']


def _cell(label: str, column: str, count: int, total: int) -> str:
    share = count / total if total else 0.0
    kinds = ["off"] * (label != column) + ["deep"] * (share > 0.55) + ["zero"] * (count == 0)
    title = f"{label} answered as {column}: {count} of {total}"
    return f'<td class="{" ".join(kinds)}" style="--share:{share:.2f}" title="{escape(title)}">{count}</td>'


def _about_dialogues() -> str:
    return (
        '<p class="note">Drawn at random over splits and scenarios, whether right or wrong. What a user turn says is '
        "printed for you; the model gets it as the run's input says. Marked words are not the reference's.</p>"
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
    text = (
        f"Intervals: percentile bootstrap, {drawn['resamples']} resamples (seed {drawn['seed']}) of whole groups of "
        f"dialogues that share a {drawn['unit']} ({drawn['units']} groups in the first set), since these are not "
        f"independent. Decoding: {decoding}. Every value is in scores.json, every reply in replies.jsonl."
    )
    signatures = table(["metric", "signature"], rows, "signatures")
    return [f"<p>{escape(text)}</p>", f"<details><summary>Signatures</summary>{signatures}</details>"]


def _metric(scores: Mapping[str, Any], split: str, key: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = scores["splits"].get(split, {}).get("metrics", {}).get(key)
    return found


def _value(metric: Mapping[str, Any] | None, interval: bool = True) -> str:
    if metric is None:
        return ""
    if metric["value"] is None:
        return f'<span class="absent" title="{escape(metric["reason"])}">not computed</span>'
    ends = f' <span class="ci">{_interval(metric)}</span>' if interval and metric["ci95"] else ""
    return f"{_percent(metric['value'])}{ends}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval(metric: Mapping[str, Any]) -> str:
    return f"{100 * metric['ci95'][0]:.1f}–{100 * metric['ci95'][1]:.1f}"


def _partial(split: Mapping[str, Any]) -> str:
    if not split["partial"]:
        return ""
    return f' <span class="partial">partial: {split["partial"]["replies"]} of {split["partial"]["of"]}</span>'

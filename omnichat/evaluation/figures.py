"""The figures of a report: how training went, which expert is heard when, which emotion is answered for which."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from omnichat.evaluation.charts import Bar, Line, bar_plot, line_plot, smooth
from omnichat.evaluation.page import panel
from omnichat.evaluation.replies import Answer
from omnichat.evaluation.score import gates_by_scenario

Steps = Sequence[Mapping[str, float]]  # lines of metrics.jsonl

COLOURS = ("c1", "c2", "c3", "c4", "c5", "c6")
# Of runs in one plot; beyond the colours that can be told apart they are dashed.
LINES = (*COLOURS, *(f"{colour} dashed" for colour in COLOURS))
LOSS_CURVES = {
    "loss/total": "Loss per target token, smoothed",
    "validation/total": "Held-out loss",
    "loss/style": "Style tokens' loss, smoothed",
    "loss/content": "Content tokens' loss, smoothed",
}
REPLY_CURVES = {
    "validation/emotion_f1_weighted": "Held-out replies: emotion F1, weighted",
    "validation/exact": "Held-out replies: words exact",
    "validation/unparsable": "Held-out replies: style unreadable",
}
SHOWN = 97  # per cent of the values of a loss in training; its first steps tower over what tells runs apart
DEEP = 0.55  # share of a row from which a cell is so dark that its number must be light


def curves(steps: Steps) -> str:
    """Losses, and how held-out dialogues were answered, over the steps."""
    loss = [
        _line(steps, "loss/total", "loss", "c1", faint=True),
        _line(steps, "loss/total", "loss, smoothed", "c1", smoothed=True),
        _line(steps, "loss/style", "style tokens", "c2", smoothed=True),
        _line(steps, "loss/content", "content tokens", "c3", smoothed=True),
        _line(steps, "validation/total", "held-out loss", "c4", dots=True),
    ]
    replies = [
        _line(steps, "validation/emotion_f1_weighted", "emotion, weighted F1", "c1", dots=True),
        _line(steps, "validation/exact", "words exact", "c3", dots=True),
        _line(steps, "validation/unparsable", "style unreadable", "c6", dots=True),
        _line(steps, "validation/guided", "style kept in form", "c2", dots=True),
    ]
    panels = [
        panel(line_plot(loss, "step", "loss"), "Loss per target token"),
        panel(line_plot(replies, "step", "share", 1.0), "Replies to held-out dialogues"),
    ]
    if not any(panels):
        return '<p class="note">There is no metrics.jsonl in the run folder.</p>'
    return f'<div class="columns">{"".join(panels)}</div>'


def overlaid(runs: Sequence[tuple[str, Steps]]) -> str:
    """The same curve of several runs in one plot each; nothing where no run has one.

    Args:
        runs: name and lines of `metrics.jsonl` of each; those behind the last of `LINES` are left out, which is said.
    """
    begun = [(name, steps) for name, steps in runs if steps]
    panels = []
    for key, title in {**LOSS_CURVES, **REPLY_CURVES}.items():
        held_out = key.startswith("validation/")
        lines = [
            _line(steps, key, name, kind, dots=held_out, smoothed=not held_out)
            for (name, steps), kind in zip(begun, LINES, strict=False)
        ]
        values = [y for line in lines for y in line.ys]
        if key in REPLY_CURVES:
            plot = line_plot(lines, "step", "share", 1.0)
        else:
            top = None if held_out or not values else float(np.percentile(values, SHOWN))
            plot = line_plot(lines, "step", "loss", top)
        panels.append(panel(plot, title))
    left_out = [name for name, _ in begun[len(LINES) :]]
    note = f'<p class="note">Not drawn, of {len(begun)} runs: {escape(", ".join(left_out))}</p>' if left_out else ""
    return f'<div class="columns">{"".join(panels)}</div>{note}' if any(panels) else ""


def gates(answers: Sequence[Answer], steps: Steps, experts: Sequence[str]) -> str:
    """How far each expert's gate is open, by scenario and over the steps."""
    colours = dict(zip(experts, COLOURS, strict=False))
    groups = {
        scenario: [Bar(name, gate["mean"], gate["p10"], gate["p90"], colours[name]) for name, gate in means.items()]
        for scenario, means in gates_by_scenario(answers).items()
    }
    if not groups:
        return '<p class="note">This run hears nothing, so there are no gates.</p>'
    lines = []
    for name in experts:
        means = [{"step": record["step"], name: _mean_gate(record, name)} for record in steps]
        lines.append(_line(means, name, name, colours[name], smoothed=True))
    note = (
        '<p class="note">The gate of each expert over the windows of the turn that is answered: mean over dialogues, '
        "whiskers the middle 80 %.</p>"
    )
    shown = panel(bar_plot(groups, "gate"), "By scenario") + panel(
        line_plot(lines, "step", "gate", 1.0), "While training, all scenarios"
    )
    return f'{note}<div class="columns">{shown}</div>'


def confusions(scores: Mapping[str, Any]) -> str:
    """A matrix of emotions for each split."""
    panels = [
        panel(_matrix(split["confusion"]), name)
        for name, split in scores["splits"].items()
        if split["confusion"]["labels"]
    ]
    note = "Rows: the reference's emotion; columns: the reply's. Numbers are dialogues, colour is the share of the row."
    return f'<p class="note">{note}</p><div class="columns">{"".join(panels)}</div>' if panels else ""


def by_turn(scores: Mapping[str, Any]) -> str:
    """Emotion and words of the replies by how often the user has spoken; nothing where that is always the same."""
    metrics = {"emotion_f1_weighted": "emotion, weighted F1", "rouge_l": "ROUGE-L"}
    panels = []
    for key, title in metrics.items():
        lines = []
        for (name, split), colour in zip(scores["splits"].items(), COLOURS, strict=False):
            values = [(int(turn), part["metrics"].get(key)) for turn, part in split.get("by_turn", {}).items()]
            points = [(turn, metric["value"]) for turn, metric in values if metric is not None]
            lines.append(Line(name, [turn for turn, _ in points], [value for _, value in points], colour, dots=True))
        panels.append(panel(line_plot(lines, "turn of the user", "share", 1.0), f"{title}, by turn"))
    return f'<div class="columns">{"".join(panels)}</div>' if any(panels) else ""


def _line(
    steps: Steps, key: str, name: str, colour: str, faint: bool = False, dots: bool = False, smoothed: bool = False
) -> Line:
    points = [(record["step"], record[key]) for record in steps if math.isfinite(record.get(key, math.nan))]
    ys = [y for _, y in points]
    return Line(name, [x for x, _ in points], smooth(ys) if smoothed else ys, colour, faint, dots)


def _mean_gate(record: Mapping[str, float], expert: str) -> float:
    # Deeper keys are quantiles.
    found = [value for name, value in record.items() if name.startswith(f"gate/{expert}/") and name.count("/") == 2]
    return sum(found) / len(found) if found else math.nan


def _matrix(matrix: Mapping[str, Any]) -> str:
    labels, columns, counts = matrix["labels"], matrix["columns"], matrix["counts"]
    # Columns outside the references' classes are shown where they occur only.
    used = [place for place, name in enumerate(columns) if name in labels or any(row[place] for row in counts)]
    head = "".join(f"<th><span>{escape(columns[place])}</span></th>" for place in used)
    rows = []
    for label, row in zip(labels, counts, strict=True):
        cells = "".join(_cell(label, columns[place], row[place], sum(row)) for place in used)
        rows.append(f"<tr><th>{escape(label)}</th>{cells}</tr>")
    table = f'<table class="matrix"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _cell(label: str, column: str, count: int, total: int) -> str:
    share = count / total if total else 0.0
    kinds = ["off"] * (label != column) + ["deep"] * (share > DEEP) + ["zero"] * (count == 0)
    title = f"{label} answered as {column}: {count} of {total}"
    return f'<td class="{" ".join(kinds)}" style="--share:{share:.2f}" title="{escape(title)}">{count}</td>'

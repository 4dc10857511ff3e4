"""An experiment's page: our rows with the paper's beside them, curves, claims, and where the two differ."""

from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

from omnichat.data.shares import UNITS
from omnichat.evaluation.charts import Line, line_plot
from omnichat.evaluation.experiments.definition import Experiment
from omnichat.evaluation.experiments.results import VERDICTS, Decision, Value, decide, value_of
from omnichat.evaluation.experiments.runs import Outcome
from omnichat.evaluation.figures import COLOURS
from omnichat.evaluation.measure import RATINGS, TITLES
from omnichat.evaluation.page import page, panel, section
from omnichat.evaluation.replies import replace_file
from omnichat.evaluation.sweep_page import Grid
from omnichat.secrets import masked


def write_results(experiment: Experiment, size: str, outcomes: Sequence[Outcome], out: Path, name: str) -> Path:
    """Write NAME.html and NAME.md into `out`; returns the page's path.

    Raises:
        OSError: they cannot be written.
    """
    grids = result_grids(experiment, size, outcomes)
    plots = [
        panel(plot, f"{TITLES[metric]}, {split}")
        for split in experiment.splits
        for metric in experiment.metrics
        if (plot := _plot(experiment, size, outcomes, split, metric))
    ]
    body = [
        f'<h1>{escape(experiment.title)}</h1><p class="lead">{escape(_lead(experiment, size, outcomes))}</p>',
        *([section("Curves", f'<div class="columns">{"".join(plots)}</div>')] if plots else []),
        *(grid.html() for grid in grids),
    ]
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / f"{name}.html", masked(page(experiment.title, body)).encode())
    replace_file(out / f"{name}.md", masked(_text(experiment, size, outcomes, grids)).encode())
    return out / f"{name}.html"


def results_text(experiment: Experiment, size: str, outcomes: Sequence[Outcome]) -> str:
    """The page without its plots, as Markdown."""
    return _text(experiment, size, outcomes, result_grids(experiment, size, outcomes))


def _text(experiment: Experiment, size: str, outcomes: Sequence[Outcome], grids: Sequence[Grid]) -> str:
    parts = [f"# {experiment.title}", _lead(experiment, size, outcomes), *(grid.markdown() for grid in grids)]
    return "\n\n".join(parts) + "\n"


def all_results(results: Sequence[tuple[Experiment, Sequence[Outcome]]], size: str) -> str:
    """Several experiments in one Markdown text: every claim first, then the experiments."""
    claims = [
        [experiment.title.partition(":")[0], *_row(decision)]
        for experiment, outcomes in results
        for decision in decide(experiment, outcomes)
    ]
    counted = Counter(row[-1].partition(":")[0] for row in claims)
    verdicts = ", ".join(f"{counted[verdict]} {verdict}" for verdict in VERDICTS)
    lead = (
        f"Made by `python eval/experiment.py`, size {size}. Of {len(claims)} claims: {verdicts}. A claim holds where "
        "the whole 95 % interval of its difference over seeds lies above 0, does not hold where it lies below, and is "
        "undecided in between."
    )
    head = ["experiment", "claim", "of", "difference", "seeds", "verdict"]
    parts = ["# The paper's experiments", lead, Grid("What holds", head, claims).markdown()]
    for experiment, outcomes in results:
        lines = results_text(experiment, size, outcomes).splitlines()
        parts.append("\n".join(f"#{line}" if line.startswith("#") else line for line in lines))
    return "\n\n".join(parts) + "\n"


def result_grids(experiment: Experiment, size: str, outcomes: Sequence[Outcome]) -> list[Grid]:
    """The tables of an experiment: scores by set, claims, deviations, and what failed."""
    grids = [_scores(experiment, size, outcomes, split) for split in experiment.splits]
    grids += _shares(experiment, size, outcomes)
    if decisions := decide(experiment, outcomes):
        grids.append(
            Grid("Claims", ["claim", "of", "difference", "seeds", "verdict"], [_row(one) for one in decisions])
        )
    differing = [*experiment.deviations, *experiment.caveats.get(size, ())]
    if differing:
        grids.append(Grid("Where this differs from the paper", ["what"], [[line] for line in differing]))
    if failed := [outcome for outcome in outcomes if outcome.fault]:
        rows = [[outcome.planned.row, str(outcome.planned.seed), outcome.fault] for outcome in failed]
        grids.append(Grid("Runs without scores", ["row", "seed", "why"], rows))
    return grids


def _lead(experiment: Experiment, size: str, outcomes: Sequence[Outcome]) -> str:
    scored = sum(outcome.scores is not None for outcome in outcomes)
    seeds = sorted({outcome.planned.seed for outcome in outcomes})
    return (
        f"{experiment.source}. Size {size}, seeds {', '.join(map(str, seeds))}: {scored} of {len(outcomes)} runs are "
        "scored. × 100, in brackets 95 % intervals: over seeds, or with one seed over dialogues."
    )


def _scores(experiment: Experiment, size: str, outcomes: Sequence[Outcome], split: str) -> Grid:
    rows = experiment.rows_of(size)
    cells = {(row, key): value_of(outcomes, row, split, key) for row in rows for key in experiment.metrics}
    known = [
        key
        for key in experiment.metrics
        if any(cells[row, key] for row in rows) or any(key in row.paper for row in rows.values())
    ]
    head, lines = ["row", "seeds"], []
    for key in known:
        head += [TITLES[key], *(["paper"] if any(key in row.paper for row in rows.values()) else [])]
    for name, row in rows.items():
        line = [name, str(max((value.seeds for key in known if (value := cells[name, key])), default=0))]
        for key in known:
            line.append(_cell(cells[name, key], key))
            if any(key in other.paper for other in rows.values()):
                line.append(f"{row.paper[key]:g}" if key in row.paper else "")
        lines.append(line)
    return Grid(f"Scores on {split}", head, lines)


def _shares(experiment: Experiment, size: str, outcomes: Sequence[Outcome]) -> list[Grid]:
    """How much of what the rows drew was synthetic; no table where nothing was mixed."""
    drawn: dict[str, dict[str, list[float]]] = {}
    for outcome in outcomes:
        for unit, share in outcome.shares.items():
            drawn.setdefault(outcome.planned.row, {}).setdefault(unit, []).append(share)
    if all(share == 1 for units in drawn.values() for shares in units.values() for share in shares):
        return []
    rows = []
    for name in experiment.rows_of(size):
        if units := drawn.get(name):
            means = (100 * sum(shares) / len(shares) if (shares := units.get(unit)) else None for unit in UNITS)
            rows.append([name, *("" if mean is None else f"{mean:.2f}" for mean in means)])
    note = "Means over seeds, in per cent, of all that was drawn up to the last step."
    return [Grid("Realised share of synthetic data", ["row", *UNITS.values()], rows, note)]


def _cell(value: Value | None, key: str) -> str:
    if value is None:
        return "-"
    scale = 1 if key in RATINGS else 100
    text = f"{scale * value.mean:.1f}"
    return (
        text if value.interval is None else f"{text} [{scale * value.interval[0]:.1f}, {scale * value.interval[1]:.1f}]"
    )


def _row(decision: Decision) -> list[str]:
    claim, value = decision.claim, decision.value
    verdict = decision.verdict + (f": {decision.why}" if decision.why else "")
    seeds = "0" if value is None else str(value.seeds)
    return [claim.text, f"{TITLES[claim.metric]}, {claim.split}", _cell(value, claim.metric), seeds, verdict]


def _plot(experiment: Experiment, size: str, outcomes: Sequence[Outcome], split: str, metric: str) -> str:
    """A metric over the experiment's axis; empty where rows have no place on it."""
    rows = experiment.rows_of(size)
    lines = []
    scale = 1 if metric in RATINGS else 100
    for name, colour in zip(dict.fromkeys(row.line for row in rows.values()), COLOURS, strict=False):
        points = [
            (row.x, value)
            for key, row in rows.items()
            if row.line == name and row.x is not None and (value := value_of(outcomes, key, split, metric))
        ]
        if points:
            ends = [None if v.interval is None else (scale * v.interval[0], scale * v.interval[1]) for _, v in points]
            ys = [scale * value.mean for _, value in points]
            lines.append(Line(name or "ours", [x for x, _ in points], ys, colour, dots=True, spreads=ends))
    paper = sorted((row.x, row.paper[metric]) for row in rows.values() if row.x is not None and metric in row.paper)
    if lines and paper:
        lines.append(Line("paper", [x for x, _ in paper], [y for _, y in paper], "c6", dots=True))
    return line_plot(lines, experiment.axis, "× 100" if scale == 100 else "")

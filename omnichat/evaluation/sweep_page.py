"""The overview of a sweep: `overview.html` and `overview.md`, a row and curves for each run, scores against alpha."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from omnichat.data.shares import UNITS
from omnichat.evaluation.charts import Line, line_plot
from omnichat.evaluation.facts import tiny_notice
from omnichat.evaluation.figures import COLOURS, SHOWN, overlaid
from omnichat.evaluation.measure import TITLES
from omnichat.evaluation.page import page, panel, section, table
from omnichat.evaluation.paper import ALPHA, COLUMNS, END_ROWS, repeats_table_4
from omnichat.evaluation.replies import read_generation, replace_file
from omnichat.evaluation.sweep import LAST, Point
from omnichat.secrets import masked

OVERVIEW = "overview.html"
OVERVIEW_TEXT = "overview.md"
KEYS = (*COLUMNS, "style_accuracy", "sound_accuracy")
LOSSES = {
    "loss/total": "loss",
    "loss/style": "style tokens",
    "loss/content": "content tokens",
    "validation/total": "held-out loss",
}
PAPER_COLOUR = "c6"


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of plain texts, to be written as HTML and as Markdown."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def html(self) -> str:
        """As a section of a page."""
        rows = [[escape(cell) for cell in row] for row in self.rows]
        note = f'<p class="note">{escape(self.note)}</p>' if self.note else ""
        return section(self.title, panel(table([escape(name) for name in self.head], rows, "scores") + note))

    def markdown(self) -> str:
        """As a section of a Markdown file."""
        lines = [_markdown_row(self.head), _markdown_row(["---"] * len(self.head)), *map(_markdown_row, self.rows)]
        return "\n".join([f"## {self.title}", "", *lines, *(["", self.note] if self.note else [])])


def write_overview(points: Sequence[Point], out: Path, title: str) -> Path:
    """Write both files into `out`; returns the path of the page.

    Raises:
        OSError: they cannot be written.
    """
    grids = [_runs(points), _losses(points), *_scores(points)]
    lead = _lead(points)
    end_rows = _end_rows(points)
    plots = [panel(plot, TITLES[key]) for key in KEYS if (plot := _plot(points, key))]
    figures = f'<div class="columns">{"".join(plots)}</div>' if plots else ""
    note = f'<p class="note">{escape(end_rows)}</p>' if end_rows and figures else ""
    body = [
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>',
        _notice(points),
        *(grid.html() for grid in grids[:2]),
        _curves(points),
        section("Scores against alpha", figures, note),
        *(grid.html() for grid in grids[2:]),
        "<footer>Made by omnichat from the run folders that are named above.</footer>",
    ]
    text = [f"# {title}", lead, *(grid.markdown() for grid in grids), *([end_rows] if end_rows else [])]
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / OVERVIEW, masked(page(title, body)).encode())
    replace_file(out / OVERVIEW_TEXT, (masked("\n\n".join(text)) + "\n").encode())
    return out / OVERVIEW


def _lead(points: Sequence[Point]) -> str:
    done = sum(point.status == "done" for point in points)
    scored = sum(point.scores is not None for point in points)
    return f"{len(points)} runs, of which {done} are done and {scored} scored. Runs that are not are listed too."


def _notice(points: Sequence[Point]) -> str:
    """The statement that the weights are tiny, where they are in any run."""
    for point in points:
        if point.config is not None:
            found = tiny_notice(point.config, read_generation(point.folder).get("parameters", {}))
            if found:
                return found
    return ""


def _end_rows(points: Sequence[Point]) -> str:
    return (
        "Here alpha is the share of synthetic dialogues, as in the paper's Appendix C.1: 0 is real speech alone, 1 "
        f"synthetic speech alone. {END_ROWS} Its row 0.0 repeats the synthetic-only model of Table 2 and so stands at "
        "alpha 1 here, its row 1.0 at alpha 0."
        if any(point.config is not None and repeats_table_4(point.config) for point in points)
        else ""
    )


def _runs(points: Sequence[Point]) -> Grid:
    head = ["run", "alpha", *(f"realised: {title}" for title in UNITS.values()), "seed", "state", "scores"]
    rows = [
        [
            point.name,
            _alpha(point),
            *(_percent(point.realised(unit), 2) for unit in UNITS),
            "" if point.config is None else str(point.config.seed),
            point.status,
            "" if point.scores is not None and not point.fault else point.fault,
        ]
        for point in points
    ]
    return Grid("Runs", head, rows, "Realised: the synthetic share of what was drawn up to the last step, in per cent.")


def _losses(points: Sequence[Point]) -> Grid:
    rows = [[point.name, _alpha(point), *(_number(point.final(key)) for key in LOSSES)] for point in points]
    note = (
        f"Per target token, on what each run was trained on: means over the last tenth of its steps, at most {LAST}. "
        "Losses at different alpha are losses on different data; only the held-out loss compares runs."
    )
    return Grid("Final losses", ["run", "alpha", *LOSSES.values()], rows, note)


def _curves(points: Sequence[Point]) -> str:
    edge = f"A loss in training lies along the upper edge where it is above {SHOWN} % of the values."
    note = f'<p class="note">By the steps of each run. {edge}</p>'
    drawn = overlaid([(point.name, point.steps) for point in points])
    return section("Training curves", drawn, note if drawn else "")


def _scores(points: Sequence[Point]) -> list[Grid]:
    """A table for each set that any run was scored on, the paper's rows beside it where they are of that set."""
    splits = dict.fromkeys(name for point in points if point.scores for name in point.scores["splits"])
    grids = []
    for split in splits:
        keys = [key for key in KEYS if any(_metric(point, split, key) for point in points)]
        rows = []
        for point in points:
            found = point.scores["splits"].get(split) if point.scores else None
            cells = [_interval(_metric(point, split, key)) for key in keys]
            n = "" if found is None else str(found["n"])
            rows.append(
                [point.name + _partial(found), _alpha(point), n, *(cells if found else ["not scored", *cells[1:]])]
            )
        note = "× 100, in brackets the 95 % interval."
        if any(point.config is not None and repeats_table_4(point.config) for point in points):
            paper = [dict(zip(COLUMNS, row, strict=True)) for row in ALPHA.values()]
            rows += [
                [f"paper, Table 4, alpha {alpha:g}", f"{alpha:g}", "", *(_given(row.get(key)) for key in keys)]
                for alpha, row in sorted(zip(ALPHA, paper, strict=True), key=lambda pair: pair[0])
            ]
            note += " The paper's rows: OmniChat (ICLR 2025), Table 4, DailyTalk's test set; it gives no intervals."
        grids.append(Grid(f"Scores on {split}", ["run", "alpha", "n", *(TITLES[key] for key in keys)], rows, note))
    return grids


def _plot(points: Sequence[Point], key: str) -> str:
    """A metric over alpha: a line for each set, and the paper's; empty where no run was scored on it."""
    lines = []
    splits = dict.fromkeys(name for point in points if point.scores for name in point.scores["splits"])
    for split, colour in zip(splits, COLOURS, strict=False):
        found = [
            (point.alpha, metric)
            for point in points
            if point.alpha is not None and (metric := _metric(point, split, key)) and metric["value"] is not None
        ]
        ends = [None if m["ci95"] is None else (100 * m["ci95"][0], 100 * m["ci95"][1]) for _, m in found]
        values = [100 * metric["value"] for _, metric in found]
        if found:
            lines.append(Line(split, [alpha for alpha, _ in found], values, colour, dots=True, spreads=ends))
    if lines and key in COLUMNS and any(p.config is not None and repeats_table_4(p.config) for p in points):
        place = COLUMNS.index(key)
        paper = [(alpha, row[place]) for alpha, row in sorted(ALPHA.items())]
        known = [(alpha, value) for alpha, value in paper if value is not None]
        lines.append(Line("paper, Table 4", [a for a, _ in known], [v for _, v in known], PAPER_COLOUR, dots=True))
    return line_plot(lines, "alpha", "× 100")


def _metric(point: Point, split: str, key: str) -> dict[str, Any] | None:
    found = point.scores["splits"].get(split) if point.scores else None
    return None if found is None else found["metrics"].get(key)


def _partial(split: dict[str, Any] | None) -> str:
    if split is None or not split["partial"]:
        return ""
    return f" (partial: {split['partial']['replies']} of {split['partial']['of']})"


def _interval(metric: dict[str, Any] | None) -> str:
    if metric is None or metric["value"] is None:
        return "" if metric is None else "not computed"
    ends: Any = metric["ci95"]
    return _percent(metric["value"], 1) + (f" [{_percent(ends[0], 1)}, {_percent(ends[1], 1)}]" if ends else "")


def _alpha(point: Point) -> str:
    return "" if point.alpha is None else f"{point.alpha:g}"


def _percent(share: float | None, digits: int) -> str:
    return "" if share is None else f"{100 * share:.{digits}f}"


def _given(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

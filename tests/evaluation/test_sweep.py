"""The overview of a sweep: every run is in it with its state; what it says of alpha is what was drawn and scored."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from omnichat.config import load_config
from omnichat.dialogue import DataError
from omnichat.evaluation.figures import overlaid
from omnichat.evaluation.score import score_run
from omnichat.evaluation.sweep import read_points
from omnichat.evaluation.sweep_page import OVERVIEW, OVERVIEW_TEXT, write_overview
from omnichat.run_folder import SCORES
from tests.evaluation.conftest import write_run
from tests.evaluation.test_report import RESOURCES, read

ROOT = Path(__file__).parents[2]


def test_every_run_has_its_row(sweep: Path) -> None:
    """A run that is dropped because it failed makes the rest look like the whole sweep."""
    points = read_points([sweep])
    assert [(point.alpha, point.status, point.fault) for point in points] == [
        (0.0, "done", ""),
        (0.2, "done", ""),
        (0.4, "failed (exit code 1), step 0", "left no config.yaml; not scored"),
        (0.5, "unfinished, step 123 of 400", "not scored"),
        (1.0, "done", "not scored"),
    ]
    assert points[1].realised("seconds") == pytest.approx(0.21)
    # The conftest's losses are 3 / step; the last tenth of 400 steps are 40.
    assert points[0].final("loss/total") == pytest.approx(sum(3 / step for step in range(361, 401)) / 40)
    assert points[0].final("validation/total") == pytest.approx(0.01)
    assert points[2].final("loss/total") is None


def test_page(sweep: Path) -> None:
    """Scores with intervals, the paper's values at this repository's alpha, and why its end rows are swapped."""
    points = read_points([sweep])
    assert write_overview(points, sweep, "Sweep dailytalk") == sweep / OVERVIEW
    page, text = read(sweep / OVERVIEW), (sweep / OVERVIEW_TEXT).read_text()
    assert not [value for _, name, value in page.attributes if name in RESOURCES and not value.startswith("data:")]
    scores = json.loads((points[1].folder / SCORES).read_text())["splits"]["scripts"]
    f1 = scores["metrics"]["emotion_f1_weighted"]
    shown = f"{100 * f1['value']:.1f} [{100 * f1['ci95'][0]:.1f}, {100 * f1['ci95'][1]:.1f}]"
    for written in (page.text, text):
        assert shown in written
        assert "failed (exit code 1), step 0" in written
        assert "unfinished, step 123 of 400" in written
        assert "contradict Appendix C.1" in written
        assert "5 runs, of which 3 are done and 2 scored" in written
    rows = {row.split(" | ")[0].strip("| "): row.split(" | ") for row in text.splitlines() if row.startswith("| paper")}
    # Table 4's row 0.0 is Table 2's synthetic-only OmniChat: 3.54 BLEU, F1 71.87; here that is alpha 1.
    assert rows["paper, Table 4, alpha 1"][3:8] == ["3.54", "12.63", "12.57", "86.24", "71.87"]
    assert len(rows) == 7
    assert "| dailytalk_alpha_0.2 | 0.2 | 21.00 | 21.00 | 21.00 | 0 | done |" in text
    head = next(line for line in text.splitlines() if line.startswith("| run | alpha | n |"))
    assert head.count("|") == next(row for row in text.splitlines() if row.startswith("| paper")).count("|")


def test_plot_has_a_point_for_each_scored_alpha(sweep: Path) -> None:
    """A point at another alpha, or without its interval, would be read as a result."""
    write_overview(read_points([sweep]), sweep, "x")
    html = (sweep / OVERVIEW).read_text()
    plot = html[html.index("emotion, weighted F1</h3>") :]
    root = ElementTree.fromstring(plot[plot.index("<svg") : plot.index("</svg>") + 6])
    titles = [title.text for title in root.findall(".//circle/title")]
    expected = []
    for alpha in ("0.0", "0.2"):
        scores = json.loads((sweep.parents[1] / f"dailytalk_alpha_{alpha}" / SCORES).read_text())
        value = scores["splits"]["scripts"]["metrics"]["emotion_f1_weighted"]["value"]
        expected.append(f"scripts, alpha {float(alpha):g}: {100 * value:.3g}")
    assert [title for title in titles if title and title.startswith("scripts")] == expected
    assert "paper, Table 4, alpha 0.2: 75.5" in titles
    assert len([title for title in titles if title and title.startswith("paper")]) == 5  # 0.4 and 0.5 give no F1
    whiskers = root.findall(".//path[@class='whisker']")
    assert len(whiskers) == 2  # at two alphas; of the set with replies to one script alone, and the paper, none


def curves_of(html: str) -> dict[str, ElementTree.Element]:
    """The plots of the section on training, by title."""
    part = html[html.index("<h2>Training curves</h2>") :].partition("</section>")[0].partition("\n")[2]
    root = ElementTree.fromstring(f"<div>{part.replace('<br>', '')}</div>")
    return {str(one.findtext("h3")): one for one in root.iter("div") if one.get("class") == "panel"}


def test_curves_of_all_runs_lie_over_each_other(sweep: Path) -> None:
    """Which run learns faster is seen in one plot; a run without a line there would be taken for another's."""
    write_overview(read_points([sweep]), sweep, "x")
    plots = curves_of((sweep / OVERVIEW).read_text())
    begun = [f"dailytalk_alpha_{alpha}" for alpha in ("0.0", "0.2", "0.5", "1.0")]  # 0.4 failed before its first step
    assert list(plots) == [
        "Loss per target token, smoothed", "Held-out loss", "Style tokens' loss, smoothed",
        "Held-out replies: words exact",
    ]  # fmt: skip
    for title, plot in plots.items():
        lines = plot.findall(".//polyline")
        assert [str(line.findtext("title")).partition(":")[0] for line in lines] == begun, title
        assert len({line.get("class") for line in lines}) == 4
    held_out = [title.text for title in plots["Held-out loss"].findall(".//circle/title")]
    # The conftest's held-out loss is 4 / step each 100 steps; one run stopped at step 123.
    assert [text for text in held_out if text and text.startswith(begun[2])] == [f"{begun[2]}, step 100: 0.04"]
    assert f"{begun[0]}, step 400: 0.01" in held_out
    ends = [line.attrib["points"].split()[-1].split(",")[0] for line in plots["Held-out loss"].iter("polyline")]
    assert ends[0] == ends[1] == ends[3] != ends[2]


def test_the_loss_of_the_first_steps_does_not_flatten_the_rest(sweep: Path) -> None:
    """On axes up to the first step's loss all runs look alike: here 3 at first, 0.1 after 30 steps of 400."""
    write_overview(read_points([sweep]), sweep, "x")
    plot = curves_of((sweep / OVERVIEW).read_text())["Loss per target token, smoothed"]
    assert max(float(tick.text or 0) for tick in plot.findall(".//text[@class='tick end']")) <= 0.5


def test_more_runs_than_kinds_of_line_are_named(tmp_path: Path) -> None:
    """Two runs in one colour are one run to the reader; one that is left out in silence was never trained."""
    steps = [{"step": float(step), "loss/total": 1.0} for step in (1, 2)]
    runs = [(f"run{number:02}", steps) for number in range(14)]
    html = overlaid([("not begun", []), *runs])
    drawn = ElementTree.fromstring(f"<div>{html}</div>").findall(".//polyline")
    assert len({line.get("class") for line in drawn}) == len(drawn) == 12
    assert "Not drawn, of 14 runs: run12, run13<" in html
    assert overlaid([("not begun", [])]) == overlaid([]) == ""


def test_command(sweep: Path, tmp_path: Path) -> None:
    """Run folders do as well as a sweep's; a folder of something else, and a broken list, are named."""
    command = [sys.executable, str(ROOT / "eval" / "sweep.py")]
    runs = sorted(str(path) for path in tmp_path.glob("dailytalk_alpha_*"))
    ran = subprocess.run([*command, *runs, "--out", str(tmp_path / "out")], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "4 runs, of which 3 are done" in (tmp_path / "out" / OVERVIEW_TEXT).read_text()
    assert len(read_points([tmp_path])) == 4
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds neither sweep\.json nor runs"):
        read_points([tmp_path / "empty"])
    (sweep / "sweep.json").write_text('{"runs": [')
    ran = subprocess.run([*command, str(sweep)], capture_output=True, text=True)
    assert ran.returncode == 1
    assert "sweep.json: is not the list of a sweep's runs" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert subprocess.run(command, capture_output=True, text=True).returncode == 2


def test_a_sweep_of_something_else_is_listed_too(tmp_path: Path, answers: list[Any]) -> None:
    """Without alpha there is no plot and no row of the paper, but a table all the same; damage in one run is told."""
    for seed in (0, 1):
        config = load_config("recipe=sharechat_emotion", f"seed={seed}", "evaluation.bootstrap=50")
        values = config.model_dump(mode="json")
        values["data"] |= {"alpha": None, "sources": {"a": {"path": "a.jsonl", "weight": 1.0}}, "synthetic": None}
        (tmp_path / f"run_{seed}").mkdir()
        write_run(tmp_path / f"run_{seed}", answers, config)
        (tmp_path / f"run_{seed}" / "config.yaml").write_text(yaml.safe_dump(values))
    score_run(tmp_path / "run_0", config)
    (tmp_path / "run_1" / SCORES).write_text("{")
    points = read_points([tmp_path])
    write_overview(points, tmp_path, "Seeds")
    text = (tmp_path / OVERVIEW_TEXT).read_text()
    assert "paper" not in text
    assert "scores.json: cannot be read" in text
    assert "Scores against alpha" not in (tmp_path / OVERVIEW).read_text()

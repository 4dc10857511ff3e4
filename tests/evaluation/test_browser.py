"""The pages in a real browser: what is drawn, what plays, and that nothing is fetched from anywhere."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omnichat.config import RunConfig
from omnichat.evaluation import mos_command
from omnichat.evaluation.experiments.definition import Experiment
from omnichat.evaluation.experiments.results_page import write_results
from omnichat.evaluation.experiments.runs import Outcome, Planned
from omnichat.evaluation.mos import score_ratings
from omnichat.evaluation.replies import Answer
from omnichat.evaluation.report import write_report
from omnichat.evaluation.score import score_run
from omnichat.evaluation.sweep import read_points
from omnichat.evaluation.sweep_page import write_overview
from tests.browser import NO_PLAYWRIGHT, chromium
from tests.evaluation.conftest import write_run

pytest.importorskip("playwright.sync_api", reason=NO_PLAYWRIGHT)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    with chromium() as started:
        yield started


class Opened:
    """A page with all that it asked for and complained of."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page = browser.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())
        self.own = path.as_uri()

    def check(self) -> None:
        """Nothing but the file itself and what it holds was asked for; no script or style is broken."""
        outside = [url for url in self.requests if url != self.own and not url.startswith(("data:", "blob:"))]
        assert outside == []
        assert self.complaints == []


def check_plots(page: Any, at_least: int) -> None:
    """Every plot has a size, and lines or bars within it that have a colour."""
    drawn = page.eval_on_selector_all(
        "svg.plot",
        """plots => plots.map(plot => {
            const shapes = [...plot.querySelectorAll("polyline, rect")];
            const boxes = shapes.map(shape => shape.getBoundingClientRect());
            const seen = shapes.filter(shape => {
                const style = getComputedStyle(shape);
                return style.stroke !== "none" || (style.fill !== "none" && style.fill !== "rgba(0, 0, 0, 0)");
            });
            const area = plot.getBoundingClientRect();
            return {width: area.width, height: area.height, seen: seen.length,
                    inside: boxes.filter(b => b.left >= area.left - 2 && b.right <= area.right + 2
                                              && b.width + b.height > 2).length, shapes: shapes.length};
        })""",
    )
    assert len(drawn) >= at_least
    for plot in drawn:
        assert plot["width"] > 200
        assert plot["height"] > 100
        assert plot["shapes"] == plot["seen"] == plot["inside"] > 0


def test_report_is_drawn_and_can_be_heard(browser: Any, run_dir: Path, config: RunConfig) -> None:
    """Plots have lines and bars of a size and colour, every player loads its half second, and one plays."""
    score_run(run_dir, config)
    opened = Opened(browser, write_report(run_dir, config))
    check_plots(opened.page, 4)
    opened.page.wait_for_function(
        "[...document.querySelectorAll('audio')].every(audio => audio.readyState >= 1 || audio.error)"
    )
    players = opened.page.eval_on_selector_all(
        "audio", "all => all.map(audio => [audio.duration, audio.error && audio.error.message])"
    )
    assert len(players) == 12
    assert all(error is None and abs(seconds - 0.5) < 0.01 for seconds, error in players)
    opened.page.evaluate("document.querySelector('audio').play()")
    opened.page.wait_for_function("document.querySelector('audio').currentTime > 0.05")
    opened.check()


def test_overview_of_a_sweep_is_drawn(browser: Any, sweep: Path) -> None:
    """A plot over alpha for each metric that was scored, the paper's line in it; all runs in the table."""
    opened = Opened(browser, write_overview(read_points([sweep]), sweep, "Sweep"))
    check_plots(opened.page, 3)
    assert "dailytalk_alpha_0.4" in opened.page.inner_text("body")
    opened.check()


def test_results_of_an_experiment_are_drawn(browser: Any, tmp_path: Path) -> None:
    """Our curve and the paper's, and the tables under them."""
    experiment = Experiment.model_validate(
        {
            "title": "More data",
            "source": "Figure 3",
            "axis": "dialogues",
            "metrics": ["bleu"],
            "splits": ["test"],
            "sizes": {"tiny": {"recipe": "smoke"}},
            "rows": {f"{x}": {"x": x, "paper": {"bleu": x / 10}} for x in (5, 10, 20)},
        }
    )
    outcomes = [
        Outcome(
            Planned(row, seed, tmp_path, "train.py", ()),
            {"splits": {"test": {"partial": None, "metrics": {"bleu": {"value": int(row) / 100, "ci95": None}}}}},
            "",
        )
        for row in experiment.rows
        for seed in (0, 1)
    ]
    opened = Opened(browser, write_results(experiment, "tiny", outcomes, tmp_path, "figure"))
    check_plots(opened.page, 1)
    assert "Scores on test" in opened.page.inner_text("body")
    opened.check()


def test_a_listener_rates_and_saves(
    browser: Any, run_dir: Path, answers: list[Answer], config: RunConfig, tmp_path: Path
) -> None:
    """Clicks become a file that the scoring reads; a page that is opened again still knows them."""
    other = tmp_path / "secret_system"
    other.mkdir()
    write_run(other, [replace(answer, reply=answer.reference) for answer in answers], config)
    assert mos_command.main(["page", str(run_dir), str(other), f"out={tmp_path}", "samples=3"], "usage") == 0
    key = json.loads((tmp_path / "mos_key.json").read_text())
    opened = Opened(browser, tmp_path / "mos.html")
    page = opened.page
    page.wait_for_function("[...document.querySelectorAll('audio')].every(audio => audio.duration > 0.4)")
    assert page.locator("audio").count() == 12
    assert page.locator("#left").inner_text() == "6 of 6 not rated yet"
    page.click("#save")
    assert "enter your name" in page.locator("#left").inner_text()
    page.fill("#rater", "Listener 1")
    for token, item in key["items"].items():
        page.check(f'input[name="{token}"][value="{5 if item["system"] == "secret_system" else 2}"]')
    assert page.locator("#left").inner_text() == "all rated"
    page.reload()
    assert page.locator("#left").inner_text() == "all rated"
    with page.expect_download() as download:
        page.click("#save")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.name == "ratings_Listener_1.json"
    found = score_ratings(tmp_path / "mos_key.json", [path])
    assert {name: one.mean for name, one in found.systems.items()} == {"run": 2, "secret_system": 5}
    opened.check()

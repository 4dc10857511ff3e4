"""Means over seeds, intervals, and what a claim needs to hold."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from omnichat.data.shares import UNITS
from omnichat.evaluation.experiments.definition import Experiment
from omnichat.evaluation.experiments.results import STUDENT, decide, over_seeds, value_of
from omnichat.evaluation.experiments.results_page import all_results, results_text
from omnichat.evaluation.experiments.runs import Outcome, Planned, read_outcome

EXPERIMENT = Experiment.model_validate(
    {
        "title": "T",
        "source": "S",
        "metrics": ["bleu", "gpt_eval"],
        "splits": ["test"],
        "sizes": {"tiny": {"recipe": "smoke"}},
        "rows": {"a": {"paper": {"bleu": 3.5}}, "b": {}},
        "claims": [{"text": "b beats a", "metric": "bleu", "split": "test", "weights": {"b": 1.0, "a": -1.0}}],
        "caveats": {"tiny": ["weights are tiny"]},
    }
)


def outcome(row: str, seed: int, bleu: float | None, fault: str = "") -> Outcome:
    cell = {"value": bleu, "ci95": None if bleu is None else [bleu - 0.1, bleu + 0.1]}
    scores = None if fault else {"splits": {"test": {"partial": None, "metrics": {"bleu": cell}}}}
    return Outcome(Planned(row, seed, Path(f"{row}-{seed}"), "train.py", ()), scores, fault)


def outcomes(a: list[float], b: list[float]) -> list[Outcome]:
    values = {"a": a, "b": b}
    return [outcome(row, seed, value) for row in values for seed, value in enumerate(values[row])]


def test_the_quantiles_are_students() -> None:
    """The table stands in for a library that the core install lacks."""
    np.testing.assert_allclose(STUDENT, student.ppf(0.975, np.arange(1, 1 + len(STUDENT))), atol=5e-4)


def test_interval_over_seeds() -> None:
    """Against the library's own interval of the mean."""
    values = [0.3, 0.5, 0.1, 0.4]
    low, high = student.interval(0.95, 3, np.mean(values), np.std(values, ddof=1) / 2)
    found = over_seeds(values)
    assert found.interval == pytest.approx((low, high), abs=1e-4)
    assert found.mean == pytest.approx(0.325)


def test_one_seed_has_the_interval_over_dialogues() -> None:
    """It says nothing of seeds, and the page says which it is."""
    found = value_of([outcome("a", 0, 0.5)], "a", "test", "bleu")
    assert found is not None
    assert (found.mean, found.interval, found.seeds) == (0.5, (0.4, 0.6), 1)


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([0.1, 0.2, 0.15], [0.5, 0.61, 0.56], "holds"),
        ([0.5, 0.61, 0.56], [0.1, 0.2, 0.15], "does not hold"),
        ([0.1, 0.5, 0.3], [0.3, 0.2, 0.4], "undecided"),
        ([0.1], [0.9], "undecided"),
    ],
)
def test_a_claim_is_decided_by_the_whole_interval(a: list[float], b: list[float], verdict: str) -> None:
    """A mean above 0 alone, or one seed, must not pass for a result."""
    assert decide(EXPERIMENT, outcomes(a, b))[0].verdict == verdict


def test_differences_are_paired_by_seed() -> None:
    """Seeds move both rows alike; unpaired, that would hide the difference."""
    decision = decide(EXPERIMENT, outcomes([0.1, 0.5, 0.9], [0.2, 0.61, 1.0]))[0]
    assert decision.verdict == "holds"
    assert decision.value is not None
    assert decision.value.mean == pytest.approx(0.31 / 3)


def test_a_seed_without_all_rows_does_not_count() -> None:
    """Half a pair says nothing."""
    some = [*outcomes([0.1, 0.2], [0.5, 0.6]), outcome("a", 2, 0.3), outcome("b", 2, None, "train.py ended with 1")]
    value = decide(EXPERIMENT, some)[0].value
    assert value is not None
    assert value.seeds == 2


def test_the_page_says_all(capsys: pytest.CaptureFixture[str]) -> None:
    """The paper's values, what failed and where this is not the paper belong beside the numbers."""
    text = results_text(EXPERIMENT, "tiny", [*outcomes([0.1], [0.5]), outcome("b", 1, None, "see run.log")])
    for part in ("| a | 1 | 10.0 [0.0, 20.0] | 3.5 |", "| b | 1 | 50.0 [40.0, 60.0] |  |", "b beats a", "see run.log"):
        assert part in text, text
    assert "weights are tiny" in text
    assert "judge" not in text.partition("## Claims")[0], "no run has a judge's verdict, and the paper's row neither"


def mixed_run(folder: Path, synthetic: float) -> Outcome:
    """A run that drew from two sources, by what training writes down."""
    folder.mkdir()
    made = outcome("a", int(folder.name), 0.5)
    (folder / "scores.json").write_text(json.dumps(made.scores))
    shares = {f"data/share/{unit}/synthetic": synthetic for unit in UNITS}
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, **shares}) + "\n")
    return read_outcome(replace(made.planned, folder=folder), ["test"])


def test_the_realised_share_stands_beside_the_scores(tmp_path: Path) -> None:
    """Alpha is what was asked for; what was drawn is what the row shows."""
    runs = [mixed_run(tmp_path / str(seed), share) for seed, share in enumerate((0.25, 0.35))]
    assert "| a | 30.00 | 30.00 | 30.00 |" in results_text(EXPERIMENT, "tiny", runs)
    whole = [mixed_run(tmp_path / "2", 1.0)]
    assert "Realised" not in results_text(EXPERIMENT, "tiny", whole), "nothing was mixed"


def test_all_results_begin_with_the_claims() -> None:
    """Who asks what holds should not have to read every table."""
    text = all_results([(EXPERIMENT, outcomes([0.1, 0.2, 0.15], [0.5, 0.61, 0.56]))], "tiny")
    assert "Of 1 claims: 1 holds, 0 does not hold, 0 undecided." in text
    assert text.index("| T | b beats a |") < text.index("## T\n") < text.index("### Scores on test")

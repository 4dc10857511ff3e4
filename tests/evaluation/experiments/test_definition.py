"""What an experiment's file may say."""

from pathlib import Path

import pytest

from omnichat.evaluation.experiments.definition import DefinitionError, load, names
from omnichat.evaluation.experiments.runs import plan

GOOD = """
title: T
source: S
metrics: [bleu]
splits: [val]
sizes: {tiny: {recipe: smoke}}
rows:
  a: {set: [data.alpha=0.5]}
  b: {init_from: a}
claims:
  - {text: more, metric: bleu, split: val, weights: {b: 1, a: -1}}
"""


def written(folder: Path, text: str) -> Path:
    (folder / "x.yaml").write_text(text)
    return folder


def test_a_good_file_is_read(tmp_path: Path) -> None:
    """The tests below change one thing each."""
    experiment = load("x", written(tmp_path, GOOD))
    assert list(experiment.rows_of("tiny")) == ["a", "b"]
    assert experiment.claims[0].weights == {"b": 1.0, "a": -1.0}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("init_from: a", "init_from: c", "rows.b.init_from: 'c' is no earlier row"),
        (
            "a: {set: [data.alpha=0.5]}",
            "a: {baseline: majority}",
            "init_from: a baseline has no trained weights",
        ),
        ("a: {set: [data.alpha=0.5]}", "a: {options: [x=y]}", "rows.a.options: belong to a baseline"),
        ("a: {set: [data.alpha=0.5]}", "a: {baseline: best}", "rows.a.baseline: Input should be 'majority'"),
        ("metrics: [bleu]", "metrics: [blue]", "metrics: 'blue' is none"),
        ("weights: {b: 1, a: -1}", "weights: {b: 1, c: -1}", "no row 'c'"),
        ("weights: {b: 1, a: -1}", "weights: {b: 1}", "do not sum to 0"),
        ("a: {set: [data.alpha=0.5]}", "a: {at: {large: []}}", "'large' is no size"),
        ("title: T", "title: T\ncolour: red", "colour: Extra inputs are not permitted"),
        ("title: T", "title: [", "x.yaml"),
        ("a: {set: [data.alpha=0.5]}", "a: {paper: {blue: 3}}", "rows.a.paper: 'blue' is no metric"),
    ],
)
def test_every_fault_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    """A wrong name would else show as a missing cell, hours later."""
    with pytest.raises(DefinitionError, match=r"x\.yaml") as caught:
        load("x", written(tmp_path, GOOD.replace(old, new)))
    assert message in str(caught.value)


def test_an_unknown_name_gets_the_nearest(tmp_path: Path) -> None:
    """Names are typed by hand."""
    with pytest.raises(DefinitionError, match="there are: x"):
        load("y", written(tmp_path, GOOD))


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("size", ["tiny", "full"])
def test_every_row_composes(name: str, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong key would stop a table after hours; that the data are not there does not matter here."""
    monkeypatch.setattr("omnichat.evaluation.experiments.runs.Store.state", lambda self: [])
    monkeypatch.setattr("omnichat.evaluation.experiments.runs.Store.__init__", lambda self, path: None)
    monkeypatch.setattr("omnichat.evaluation.experiments.runs.missing_stores", lambda config: [])
    experiment = load(name)
    runs = plan(experiment, size, [0], tmp_path)
    assert [run.row for run in runs] == list(experiment.rows_of(size))
    assert len({run.folder for run in runs}) == len(runs), "two rows are one and the same run"

"""Runs of `task: events` are scored class by class; what cannot be scored is named."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from omnichat.config import load_config
from omnichat.data.made_up import made_up_dialogues
from omnichat.data.moments import EVENTS, Moments
from omnichat.evaluation import command
from omnichat.evaluation.events import EVENTS_FILE, SCORES, by_event
from omnichat.evaluation.events_command import main
from omnichat.training.events import fit_events
from tests.two_tracks import events_config


@pytest.fixture(scope="module")
def run(tracks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It has learnt to tell them apart."""
    folder = tmp_path_factory.mktemp("run")
    more = ("trainer.max_steps=40", "trainer.learning_rate=5e-3", "trainer.validate_every=40")
    assert fit_events(events_config(tracks, *more), folder) == 0
    return folder


def changed(store: Path, folder: Path, line: int, turn: int, **change: object) -> Path:
    """The store with a turn changed, line and turn counted from 0."""
    rows = [json.loads(row) for row in store.read_text().splitlines()]
    rows[line]["turns"][turn] |= change
    path = folder / "changed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copy(store.with_name("store.json"), folder / "store.json")
    return path


def test_scores(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a run to F1 by class, beside a guess; as validation had it."""
    assert main([f"run={run}", "checkpoint=best"], "") == 0
    assert "always continue" in capsys.readouterr().out
    result = json.loads((run / SCORES).read_text())
    scores = result["sets"]["test"]
    held_out = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert scores["f1_macro"]["value"] == pytest.approx(held_out["validation/val/f1_macro"])
    assert scores["f1_macro"]["value"] > 2 * scores["majority"]["f1_macro"]
    assert set(scores["by_event"]) == set(EVENTS)
    lines = [json.loads(line) for line in (run / EVENTS_FILE).read_text().splitlines()]
    assert len(lines) == len(Moments(Path(scores["store"]))) == scores["n"]


def test_runs_that_cannot_be_scored(
    run: Path, tracks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No run, none of this task, no checkpoint or none that is whole, weights that are gone: each says what to do."""

    def said(code: int, *arguments: str) -> str:
        assert main(arguments, "") == code, arguments
        return capsys.readouterr().err

    assert "run: is missing" in said(2)
    assert "config.yaml is not there; train the run first" in said(2, f"run={tmp_path / 'nowhere'}")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text(yaml.safe_dump(load_config("recipe=smoke").model_dump(mode="json")))
    assert "a run of task=dialogue; score it with eval/run_store.py" in said(2, f"run={other}")
    (other / "config.yaml").write_text("task: [")
    assert "is not the config of a run" in said(2, f"run={other}")
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("random_weights"))
    assert "has no checkpoint of step 7; there are: 40" in said(1, f"run={copy}", "checkpoint=7")
    weights = copy / "checkpoints" / "40" / "head.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "head.safetensors: does not match its sha256" in said(1, f"run={copy}")
    shutil.rmtree(copy / "checkpoints")
    assert "holds no valid checkpoint; train first" in said(1, f"run={copy}")
    experts = run / "random_weights"
    experts.rename(run / "gone")
    try:
        assert str(experts) in said(1, f"run={run}")
    finally:
        (run / "gone").rename(experts)
    arguments = [f"run={run}", f"store={tracks}", "stage=generate"]
    assert command.main(arguments, "") == 1
    assert "of a run of task=events; score it with eval/run_events.py" in capsys.readouterr().err


def test_stores_that_cannot_be_scored(
    run: Path, tracks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No store, no events in it, or some without a reference: named with their place; no score of a part is written."""
    for name in (EVENTS_FILE, SCORES):
        (run / name).unlink(missing_ok=True)

    def said(code: int, *stores: Path) -> str:
        assert main([f"run={run}", f"store={','.join(map(str, stores))}"], "") == code
        return capsys.readouterr().err

    assert "no such file: /nowhere" in said(2, Path("/nowhere"))
    assert "two have the same name" in said(2, tracks, tmp_path / "all.jsonl")
    made_up_dialogues(tmp_path, 2, split="plain")
    assert "only stores of python -m data_prep.interactspeech have a timeline" in said(1, tmp_path / "plain.jsonl")
    without = changed(tracks, tmp_path, 3, 2, meta={})
    error = said(1, tracks, without)
    assert f"{without}:4: dialogue 'd3': turn 2: has no start and stop" in error
    together = said(1, tmp_path / "plain.jsonl", without)
    assert f"{without}:4" in together
    assert f"{tmp_path / 'plain.jsonl'}:1" in together
    backwards = changed(tracks, tmp_path, 0, 1, meta={"start": "9", "stop": "5"})
    assert "dialogue 'd0': turn 1: starts at 9 and stops at 5" in said(1, backwards)
    silent = changed(tracks, tmp_path, 0, 0)  # its audio did not come along
    error = said(1, silent)
    assert f"{silent}:1: dialogue 'd0': {tmp_path / '0-0.wav'}: no such audio file" in error
    assert not [name for name in (EVENTS_FILE, SCORES) if (run / name).exists()]


def test_figures_of_each_event_are_scikit_learn_s() -> None:
    """Precision, recall and F1, class by class; an event that was never found has 0."""
    from sklearn.metrics import precision_recall_fscore_support

    gold = ["turn_taking"] * 5 + ["interruption"] * 3 + ["continue"] * 2
    found = ["turn_taking"] * 4 + ["interruption"] * 3 + ["backchannel", "turn_taking", "turn_taking"]
    labels = ["turn_taking", "interruption", "continue"]
    wanted = precision_recall_fscore_support(gold, found, labels=labels, zero_division=0)
    figures = by_event(gold, found)
    assert list(figures) == labels
    for place, label in enumerate(labels):
        one = figures[label]
        assert [one["precision"], one["recall"], one["f1"], one["n"]] == pytest.approx(
            [float(w[place]) for w in wanted]
        )

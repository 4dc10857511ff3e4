"""Rows are trained and scored once, shared between experiments, and fail alone."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from omnichat.config import ConfigError
from omnichat.evaluation.experiments.definition import Experiment
from omnichat.evaluation.experiments.results import value_of
from omnichat.evaluation.experiments.runs import only, plan, run_all

SMALL = (
    "trainer.max_steps=2", "trainer.save_every=0", "trainer.validate_every=0", "preflight=off",
    "evaluation.bootstrap=0", "evaluation.max_new_tokens=4",
)  # fmt: skip


def experiment(**rows: dict[str, object]) -> Experiment:
    return Experiment.model_validate(
        {
            "title": "T",
            "source": "S",
            "metrics": ["bleu"],
            "splits": ["val"],
            "sizes": {"tiny": {"recipe": "smoke", "set": SMALL}},
            "rows": rows,
        }
    )


def test_a_row_is_made_once_and_the_next_begins_with_it(tmp_path: Path) -> None:
    """Experiments share rows; a second start must neither train nor score again; a failure must cost only itself."""
    table = experiment(
        first={}, broken={"set": ["model.llm.checkpoint=nowhere", "model.random=false"]}, second={"init_from": "first"}
    )
    with pytest.raises(ValueError, match="row 'broken'"):
        plan(table, "tiny", [0], tmp_path)
    with pytest.raises(ValueError, match=r"row 'typo': trainer\.steps: unknown key; did you mean 'trainer\.max_steps'"):
        plan(experiment(typo={"set": ["trainer.steps=3"]}), "tiny", [0], tmp_path)
    table = experiment(first={}, broken={"set": ["init_from=nowhere"]}, second={"init_from": "first"})
    runs = plan(table, "tiny", [0], tmp_path)
    outcomes = run_all(runs, table.splits, jobs=2)
    assert [bool(outcome.scores) for outcome in outcomes] == [True, False, True], [one.fault for one in outcomes]
    assert "train.py ended with exit code 1" in outcomes[1].fault
    assert "nowhere" in outcomes[1].planned.log.read_text()
    assert "beginning with the weights of" in outcomes[2].planned.log.read_text()

    made = {run.folder: (run.folder / "scores.json").stat().st_mtime_ns for run in (runs[0], runs[2])}
    again = plan(experiment(other_name={}, more={"init_from": "other_name"}), "tiny", [0], tmp_path)
    assert [run.folder for run in again] == list(made)
    assert all(outcome.scores for outcome in run_all(again, ["val"]))
    assert {run.folder: (run.folder / "scores.json").stat().st_mtime_ns for run in again} == made


def test_all_missing_stores_are_named_at_once_with_where_to_get_them(tmp_path: Path) -> None:
    """The first of them alone, with 'make the store first', left a newcomer to find the command five times."""
    rows = {
        "first": {"set": [f"data.val.val={tmp_path}/corpora/sharechat_mini/emotion/store/val"]},
        "next": {"init_from": "first", "set": [f"data.test.test={tmp_path}/corpora/dailytalk_tiny/store/test"]},
    }
    with pytest.raises(ConfigError) as caught:
        plan(experiment(**rows), "tiny", [0, 1], tmp_path)
    assert [fault.partition(": no file ")[0] for fault in caught.value.faults] == ["data.val.val", "data.test.test"]
    assert caught.value.faults[0].endswith("make sharechat-mini makes it")
    assert "make experiments" in caught.value.faults[1]


def test_a_sigterm_reaches_the_runs(tmp_path: Path) -> None:
    """Else they train on for hours with nobody waiting, and keep the same command out of their folders.

    They save first; nothing is begun after, and the same command goes on.
    """
    more = ["trainer.max_steps=100000", "trainer.warmup_steps=1", "trainer.generate_dialogues=0"]
    table = experiment(first={}, second={"set": ["trainer.learning_rate=0.1"]})
    runs = plan(table, "tiny", [0], tmp_path, more)

    def stop() -> None:
        while not (runs[0].log.is_file() and "step 2/" in runs[0].log.read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    with pytest.raises(SystemExit) as error:
        run_all(runs, table.splits)
    assert error.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    thread.join()
    saved = [int(path.name) for path in (runs[0].folder / "checkpoints").glob("[0-9]*")]
    assert len(saved) == 1
    assert 2 <= saved[0] < 100_000
    assert not runs[1].log.exists()


def test_the_hash_knows_the_dialogues(tmp_path: Path) -> None:
    """A corpus that is made again under its old name would else be answered with old scores."""
    store = tmp_path / "val.jsonl"
    line = '{"id": "%s", "turns": [{"role": "user", "text": "a"}, {"role": "assistant", "text": "b"}]}\n'
    folders = []
    for name in ("one", "two", "one"):
        store.write_text(line % name)
        table = experiment(a={"set": [f"++data.val.val={store}"]})
        folders.append(plan(table, "tiny", [0], tmp_path)[0].folder)
    assert folders[0] == folders[2] != folders[1]


def test_the_hash_knows_what_is_computed_and_not_how(tmp_path: Path) -> None:
    """Weeks of runs would be made again on a node with other GPUs, or after an update that brought a key for speed."""

    def folder(*keys: str) -> Path:
        return plan(experiment(a={"set": [*keys]}), "tiny", [0], tmp_path)[0].folder

    faster = [
        f"trainer.{key}" for key in ("compile=true", "compile_experts=true", "shared_prefix=true", "micro_batch=2")
    ]
    where = ["trainer.accelerator=gpu", "trainer.devices=2", "trainer.strategy=ddp", "data.num_workers=3"]
    assert folder() == folder(*faster) == folder(*where) == folder("data.features_dir=elsewhere", "trainer.log_every=9")
    others = ("trainer.learning_rate=0.5", "trainer.precision=bf16-mixed", "data.made_up=4", "model.queries=2")
    assert len({folder(), *(folder(key) for key in others)}) == 1 + len(others)


def test_a_baseline_is_answered_once_for_all_seeds(tmp_path: Path) -> None:
    """Three equal answers would look like three seeds that agree, with an interval of no width."""
    store = tmp_path / "val.jsonl"
    turns = '[{"role": "user", "text": "a"}, {"role": "assistant", "text": "b", "style": {"emotion": "sad"}}]'
    store.write_text("".join(f'{{"id": "{name}", "turns": {turns}}}\n' for name in "xyz"))
    constant = {"baseline": "majority", "set": [f"++data.val.val={store}"]}
    table = experiment(constant=constant)
    runs = plan(table, "tiny", [0, 1], tmp_path)
    assert [run.folder for run in runs] == [runs[0].folder] * 2
    outcomes = run_all(runs, table.splits, jobs=2)
    assert all(outcome.scores for outcome in outcomes), [one.fault for one in outcomes]
    assert runs[0].log.read_text().count("eval/baseline.py majority") == 1
    found = value_of(outcomes, "constant", "val", "bleu")
    assert found is not None
    assert found.seeds == 1

    other = experiment(constant={**constant, "set": [*constant["set"], "evaluation.max_new_tokens=5"]})
    assert plan(other, "tiny", [0], tmp_path)[0].folder != runs[0].folder
    wrong = table.model_copy(update={"splits": ("held_out",)})
    with pytest.raises(ValueError, match=r"row 'constant'.*no held_out"):
        plan(wrong, "tiny", [0], tmp_path)


def test_some_rows_alone(tmp_path: Path) -> None:
    """A row without the one that it begins with could not be trained; a wrong name must not choose nothing."""
    table = experiment(
        a={}, b={"init_from": "a", "set": ["trainer.max_steps=3"]}, c={"init_from": "b"}, d={"set": ["data.alpha=1"]}
    )
    runs = plan(table, "tiny", [0, 1], tmp_path)
    assert [(run.row, run.seed) for run in only(runs, ["c"])] == [(row, seed) for seed in (0, 1) for row in "abc"]
    assert [run.row for run in only(runs, ["d"])] == ["d", "d"]
    with pytest.raises(ValueError, match=r"no row 'e'.*there are: a; b; c; d"):
        only(runs, ["a", "e"])

"""`task: events`: it learns, goes on where it was stopped, and is scored class by class; on random tiny experts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from omnichat.checkpoint import list_checkpoints, load_checkpoint
from omnichat.config import ConfigError, RunConfig, load_config
from omnichat.data.corpora.interactspeech import RATE
from omnichat.data.moments import EVENTS, Moments
from omnichat.data.store import write_store
from omnichat.dialogue import AudioRef, Dialogue, Turn
from omnichat.evaluation.events import EVENTS_FILE, by_event
from omnichat.evaluation.events_command import main
from omnichat.training.events import fit_events


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight dialogues in two voices (tones): an answer, an interruption, a backchannel, a turn resumed, in each."""
    folder = tmp_path_factory.mktemp("tracks")
    random = np.random.default_rng(0)
    dialogues = []
    for number in range(8):
        times = [("user", 0, 2.5), ("assistant", 3, 5), ("user", 4.6, 7.5), ("assistant", 6, 6.4)]
        times += [("assistant", 8, 9), ("assistant", 9.4, 11)]
        turns = []
        for place, (role, start, stop) in enumerate(times):
            shift = 0.1 * float(random.random())
            path, length = folder / f"{number}-{place}.wav", round((stop - start) * 16_000)
            tone = np.sin(np.arange(length) * (0.08 if role == "user" else 0.3))
            soundfile.write(path, 0.3 * tone + 0.01 * random.normal(size=length), 16_000)
            meta = {"start": str(round((start + shift) * RATE)), "stop": str(round((stop + shift) * RATE))}
            turns.append(Turn(role, "words", audio=AudioRef(str(path), length), meta=meta))  # type: ignore[arg-type]
        dialogues.append(Dialogue(f"d{number}", tuple(turns)))
    write_store(folder, {"all": dialogues}, "x", "", "")
    return folder / "all.jsonl"


def config_of(store: Path, *more: str) -> RunConfig:
    """The recipe on random experts, on this store."""
    data = [f"data.synthetic={store}", f"data.val.val={store}", f"data.test.test={store}"]
    model = ["model=random", "trainer.dialogues_per_step=8", "trainer.micro_batch=4", "trainer.warmup_steps=2"]
    return load_config("recipe=interact_events", *model, *data, "evaluation.bootstrap=20", *more)


def test_it_learns_and_is_scored(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a store to F1 by class; a model that learnt nothing cannot tell eight dialogues' events apart."""
    config = config_of(store, "trainer.max_steps=40", "trainer.validate_every=40", "trainer.learning_rate=5e-3")
    assert fit_events(config, tmp_path) == 0
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, 41))
    assert records[-1]["loss/total"] < 0.5 * records[0]["loss/total"]
    assert main([f"run={tmp_path}"], "") == 0
    assert "always continue" in capsys.readouterr().out
    scores = json.loads((tmp_path / "event_scores.json").read_text())["sets"]["test"]
    assert scores["f1_macro"]["value"] == pytest.approx(records[-1]["validation/val/f1_macro"])
    assert scores["f1_macro"]["value"] > 2 * scores["majority"]["f1_macro"]
    assert set(scores["by_event"]) == set(EVENTS)
    lines = [json.loads(line) for line in (tmp_path / EVENTS_FILE).read_text().splitlines()]
    assert len(lines) == len(Moments(store)) == scores["n"]


def test_it_goes_on_where_it_was_stopped(store: Path, tmp_path: Path) -> None:
    """The same weights, bit for bit, with and without a stop; whether frames are kept or not."""
    config = config_of(
        store, "trainer.max_steps=4", "trainer.save_every=2", "trainer.keep_last=0", "trainer.validate_every=0"
    )
    live = config.model_copy(update={"data": config.data.model_copy(update={"features": "live"})})
    run, folder = tmp_path / "run", tmp_path / "run" / "checkpoints"
    fit_events(config, run)
    weights = [load_checkpoint(folder / "4").weights()]
    shutil.rmtree(folder / "4")
    fit_events(config, run)
    weights.append(load_checkpoint(folder / "4").weights())
    fit_events(live, tmp_path / "live")
    weights.append(load_checkpoint(tmp_path / "live" / "checkpoints" / "4").weights())
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
        torch.testing.assert_close(tensor, weights[2][name], rtol=1e-3, atol=1e-5)
    assert not [name for name in weights[0] if name.startswith("encoders")]
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


def test_another_config_does_not_go_on(store: Path, tmp_path: Path) -> None:
    """A folder of one run is not continued by another."""
    fit_events(config_of(store, "trainer.max_steps=2", "trainer.validate_every=0"), tmp_path)
    with pytest.raises(ConfigError, match="seed"):
        fit_events(config_of(store, "trainer.max_steps=3", "trainer.validate_every=0", "seed=1"), tmp_path)
    with pytest.raises(ConfigError, match=r"trainer.devices: 2; task=events trains in one process"):
        fit_events(config_of(store, "trainer.devices=2"), tmp_path / "other")


def test_runs_of_other_tasks_are_not_scored(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named, with the command that does."""
    import yaml

    config = load_config("recipe=smoke")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert main([f"run={tmp_path}", f"store={store}"], "") == 1
    assert "eval/run_store.py" in capsys.readouterr().err
    assert main([f"run={tmp_path}"], "") == 2
    assert "store: missing" in capsys.readouterr().err
    assert main([f"run={tmp_path}", "store=/nowhere"], "") == 2
    assert main([], "") == 2


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


def test_no_experts_are_trained(store: Path, tmp_path: Path) -> None:
    """Frozen is frozen, in this task too: the LLM need not even be there."""
    config = config_of(store, "trainer.max_steps=2", "trainer.validate_every=0")
    fit_events(config, tmp_path)
    state = load_checkpoint(list_checkpoints(tmp_path / "checkpoints")[-1]).state
    assert set(state["frozen"]) == {"whisper", "emotion2vec", "beats"}
    assert load_config("recipe=interact_events", "model.llm.checkpoint=null").model.llm.checkpoint is None

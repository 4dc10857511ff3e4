"""What preflight finds, and that it leaves no trace."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from omnichat.batch import pack
from omnichat.checkpoint import load_checkpoint, tensors_sha256
from omnichat.config import ConfigError, load_config
from omnichat.data.dataset import DialogueDataset
from omnichat.models.omnichat import OmniChat
from omnichat.training.fit import fit
from omnichat.training.guard import TrainingError
from omnichat.training.preflight import to_come

QUICK = ("recipe=smoke", "data.made_up=16", "trainer.validate_every=0", "trainer.max_steps=2", "trainer.micro_batch=4")


def trained(run_dir: Path) -> dict[str, str]:
    """Hashes of weights and moments after the last step."""
    tensors = load_checkpoint(run_dir / "checkpoints" / "2").tensors
    return {stem: tensors_sha256(group) for stem, group in tensors.items()}


def test_the_weights_do_not_depend_on_it(tmp_path: Path) -> None:
    """Gradients, moments or random numbers left over from a trial would make every run another one."""
    for preflight in ("auto", "off"):
        fit(load_config(*QUICK, "model.lora.dropout=0.1", f"preflight={preflight}"), tmp_path / preflight)
    assert trained(tmp_path / "auto") == trained(tmp_path / "off")


def test_only_stops_before_the_first_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is for looking: nothing is trained or saved, and the facts that decide are printed."""
    assert fit(load_config(*QUICK, "preflight=only"), tmp_path) == 0
    printed = capsys.readouterr().out
    for fact in (
        "1 x CPU",
        f"torch {torch.__version__}",
        "disk: a checkpoint takes",
        "steps 1 to 2, 16 dialogues",
        "about",
    ):
        assert fact in printed
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_only_shows_what_is_read_and_what_is_learnt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Data with a wrong role or without its styles trains without a word; here one sees it before the hours."""
    assert fit(load_config(*QUICK, "preflight=only"), tmp_path) == 0
    printed = capsys.readouterr().out
    assert "styles that are learnt: gender, emotion, speed, pitch\n" in printed
    for source in ("synthetic", "real"):
        assert re.search(rf"  {source}, \S+: «style» and ⟦words⟧ are learnt\n    <\|begin_of_text\|>", printed)
    assert printed.count("audio slots, ") >= 2
    assert re.search(r"«\(\w+, \w+, \w+, \w+»⟦\): .+<\|eot_id\|>⟧", printed)
    assert fit(load_config(*QUICK, "run_name=other"), tmp_path / "trained") == 0
    assert "are learnt" not in capsys.readouterr().out


def test_what_is_learnt_of_the_last_turn_alone_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The key must arrive where the labels are made: a run of hours on other targets looks the same."""
    marked = {}
    for which in ("all", "last"):
        assert fit(load_config(*QUICK, "preflight=only", f"data.loss_on={which}"), tmp_path / which) == 0
        shown = capsys.readouterr().out.split("«style» and ⟦words⟧ are learnt")[1:]
        marked[which] = [dialogue.count("⟦") for dialogue in shown]
    assert len(marked["all"]) == 2
    assert max(marked["all"]) > 1
    assert marked["last"] == [1, 1]


def test_the_largest_micro_batch_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typical one would fit where the worst, hours later, does not."""
    forward, seen = OmniChat.forward, []

    def noted(self: OmniChat, batch: Any) -> Any:
        seen.append(len(batch.ids))
        return forward(self, batch)

    monkeypatch.setattr(OmniChat, "forward", noted)
    fit(load_config(*QUICK, "trainer.max_steps=4"), tmp_path)
    assert seen[0] == seen[1] >= max(seen[2:])


def test_a_full_disk_is_named_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours of training must not end in a save that fails."""
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("omnichat.training.preflight.shutil.disk_usage", lambda path: usage)
    with pytest.raises(TrainingError, match=r"a checkpoint takes .*10 B are free.*hydra.run.dir"):
        fit(load_config(*QUICK), tmp_path)
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_steps_by_tokens_have_a_largest_micro_batch_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There the number of dialogues is not given."""
    overrides = ("trainer.dialogues_per_step=null", "trainer.tokens_per_step=2000", "preflight=only")
    assert fit(load_config(*QUICK, *overrides), tmp_path) == 0
    assert "largest micro-batch: " in capsys.readouterr().out


def test_pack_of_the_longest(tmp_path: Path) -> None:
    """Longest first, over all sources."""
    from omnichat import build

    config = build.materialise(load_config(*QUICK), tmp_path)
    data = build.build_data(config, build.build_prompt(config), None)
    lengths = [len(example.tokens.ids) for example in data.dataset.longest(6)]
    everything = sorted((int(n) for _, part in data.dataset.drawn_scans() for n in part.lengths), reverse=True)
    assert lengths == everything[:6]
    assert len(pack(data.dataset.longest(2)).ids) == sum(everything[:2])


def test_only_leaves_a_run_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To look must not change what is looked at: the config that evaluation reads, or the record of later steps.

    Nor may it leave a folder behind that looks like a run.
    """
    run, logged = tmp_path / "run", ("logger.wandb.mode=offline", "logger.tensorboard=true")
    assert fit(load_config(*QUICK, "preflight=only", *logged), run) == 0
    assert not run.exists()
    assert fit(load_config(*QUICK), run) == 0
    with (run / "metrics.jsonl").open("a") as out:
        out.write('{"step": 3, "loss/total": 1.0}\n')  # as of a run that was killed between two checkpoints
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    capsys.readouterr()
    other = ("trainer.max_steps=9", "trainer.learning_rate=1e-5", "trainer.validate_every=2")  # overdue after step 2
    assert fit(load_config(*QUICK, "preflight=only", *other), run) == 0
    assert "steps 3 to 9, 56 dialogues" in capsys.readouterr().out
    assert fit(load_config(*QUICK, "preflight=only"), run) == 0
    assert "nothing is left to train, 2 of 2 steps are done" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_only_makes_no_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To look must not run the experts over a whole corpus first; features that are there are used."""
    cached = ("data.features=cached", f"data.features_dir={tmp_path / 'features'}")
    assert fit(load_config(*QUICK, *cached, "preflight=only"), tmp_path / "run") == 0
    assert not (tmp_path / "features").exists()
    printed = capsys.readouterr().out
    assert "lacks features, which a run makes first; tried with data.features=live" in printed
    assert "largest micro-batch: 4 dialogues" in printed
    assert fit(load_config(*QUICK, *cached), tmp_path / "run") == 0
    assert fit(load_config(*QUICK, *cached, "preflight=only", "trainer.max_steps=3"), tmp_path / "run") == 0
    assert "lacks features" not in capsys.readouterr().out


def test_only_keeps_the_list_of_what_is_too_long(tmp_path: Path) -> None:
    """It is named on the screen: whoever looks for it must find it."""
    run = tmp_path / "run"
    assert fit(load_config(*QUICK, "preflight=only", "data.max_tokens=250", "data.overlong=drop_dialogue"), run) == 0
    assert [path.name for path in run.iterdir()] == ["overlong.txt"]


def test_too_little_memory_names_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what preflight is for; a message without the batch helps nobody to choose another size."""

    def full(self: OmniChat, batch: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB")

    monkeypatch.setattr(OmniChat, "forward", full)
    with pytest.raises(TrainingError, match=r"out of memory .* the micro-batch held 4 dialogues \(.* tokens"):
        fit(load_config(*QUICK), tmp_path)


def test_no_more_is_read_than_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With steps by tokens the audio of 10,000 dialogues was read, of which a few were tried."""
    read: list[str] = []
    example = DialogueDataset._example

    def noted(self: DialogueDataset, *given: Any) -> Any:
        read.append(given[0])
        return example(self, *given)

    monkeypatch.setattr(DialogueDataset, "_example", noted)
    overrides = ("trainer.dialogues_per_step=null", "trainer.tokens_per_step=700", "preflight=only")
    assert fit(load_config(*QUICK, *overrides), tmp_path) == 0
    assert 1 <= len(read) <= 3 + 2  # and a dialogue of each source to be shown


def test_few_dialogues_come_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A step of a small corpus holds its dialogues more than once, and so must what is tried."""
    few = ("data.made_up=2", "data.alpha=1", "trainer.micro_batch=8", "preflight=only")
    assert fit(load_config(*QUICK, *few), tmp_path) == 0
    assert "largest micro-batch: 8 dialogues" in capsys.readouterr().out
    by_tokens = ("trainer.dialogues_per_step=null", "trainer.tokens_per_step=2000")
    assert fit(load_config(*QUICK, *few[:2], *few[3:], *by_tokens), tmp_path) == 0
    tried = re.search(r"largest micro-batch: (\d+) dialogues, ([\d,]+) tokens", capsys.readouterr().out)
    assert tried is not None
    assert int(tried[1]) > 2
    assert 1200 < int(tried[2].replace(",", "")) <= 2000


def test_what_is_to_come_begins_where_the_run_does(tmp_path: Path) -> None:
    """The hours heard of a run that goes on were those of the whole run."""
    from omnichat import build

    config = build.materialise(load_config(*QUICK, "trainer.max_steps=5"), tmp_path)
    data = build.build_data(config, build.build_prompt(config), None, 2)
    examples = [data.dataset[index] for index in range(2 * 8, 5 * 8)]
    ahead = to_come(data, 5)
    assert (ahead.first_step, ahead.last_step, ahead.dialogues) == (3, 5, len(examples))
    assert ahead.tokens == pytest.approx(sum(len(example.tokens.ids) for example in examples))
    samples = sum(len(wave) for example in examples for wave in example.waves)
    assert ahead.seconds == pytest.approx(samples / 16_000, rel=1e-6)


def test_deepspeed_is_told_of_what_is_to_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing can be tried, tokens and hours of audio are known all the same; any strategy is taken for it."""
    monkeypatch.setattr("omnichat.training.preflight.DeepSpeedStrategy", object)
    assert fit(load_config(*QUICK, "preflight=only"), tmp_path) == 0
    printed = capsys.readouterr().out
    assert "not tried" in printed
    assert re.search(r"steps 1 to 2, 16 dialogues, [\d,]+ tokens, 0\.0\d h heard", printed)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    """Lightning's traceback came after data and weights were loaded; what else is missing is named with it."""
    with pytest.raises(ConfigError, match=r"trainer.accelerator: gpu, but there is none; use trainer.accelerator=auto"):
        fit(load_config(*QUICK, "trainer.accelerator=gpu"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_fewer_gpus_than_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One GPU under a recipe for eight; what torch says of the machine is the test's."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"trainer.devices: 8, but there are 1 GPUs here; use trainer.devices=1"):
        fit(load_config(*QUICK, "trainer.accelerator=gpu", "trainer.devices=8", "trainer.micro_batch=1"), tmp_path)

"""Faults of the machine and mix-ups of its user, in whole runs (docs/reliability.md)."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from omnichat import build
from omnichat.batch import PackedBatch
from omnichat.chat import load_run
from omnichat.checkpoint import Checkpoint, CheckpointError, load_checkpoint, newest_valid, save_checkpoint
from omnichat.config import ConfigError, RunConfig, load_config
from omnichat.data.dataset import DialogueDataset
from omnichat.training import resume
from omnichat.training.fit import fit
from omnichat.training.guard import TrainingError
from omnichat.training.loggers import JsonLinesLogger
from omnichat.training.module import OmniChatModule
from omnichat.training.resume import check_stream, frozen_identities, starting_point
from tests.disk import files_up_to

QUICK = (
    "recipe=smoke", "data.made_up=8", "trainer.validate_every=0", "trainer.warmup_steps=1", "preflight=off",
    "trainer.save_every=2",
)  # fmt: skip


def config(*overrides: str) -> RunConfig:
    """The smoke config, smaller still."""
    return load_config(*QUICK, *overrides)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "two_steps"
    assert fit(config("trainer.max_steps=2"), folder) == 0
    return folder


def values_of(run_dir: Path) -> dict[str, Any]:
    """The config in its checkpoint."""
    values: dict[str, Any] = load_checkpoint(run_dir / "checkpoints" / "2").state["config"]
    return values


def test_a_full_disk_in_a_save_ends_the_run_with_what_it_had(tmp_path: Path) -> None:
    """The checkpoint before must be whole, and the run go on from it when there is room again."""
    fit(config("trainer.max_steps=2"), tmp_path)
    with files_up_to(100_000), pytest.raises(CheckpointError, match=r"checkpoints/4: could not be saved.*free"):
        fit(config("trainer.max_steps=4"), tmp_path)
    assert newest_valid(tmp_path / "checkpoints") == (tmp_path / "checkpoints" / "2", [])
    assert fit(config("trainer.max_steps=4"), tmp_path) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_the_metrics_is_named(tmp_path: Path) -> None:
    """A bare OSError says neither which file nor what to do."""
    logger = JsonLinesLogger(tmp_path / "metrics.jsonl")
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"metrics\.jsonl: step 3 cannot be written \(No space left on device\)"):
        logger.log_metrics({"loss/total": 1.0}, 3)


def test_a_micro_batch_without_targets_counts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean over nothing is NaN, and a 0 in its place would halve the loss of the step."""
    step, seen = OmniChatModule.training_step, []

    def without(batch: PackedBatch, remaining: int) -> PackedBatch:
        labels = torch.full_like(batch.labels, -100)
        return batch._replace(labels=labels, targets=batch.targets[:0], num_targets=0, global_targets=remaining)

    def training_step(self: OmniChatModule, batch: PackedBatch, batch_idx: int) -> torch.Tensor:
        first = batch_idx % 2 == 0
        others = batch.global_targets - batch.num_targets if first else batch.num_targets
        batch = without(batch, others) if first else batch._replace(global_targets=others)
        loss = step(self, batch, batch_idx)
        seen.append((float(self.step_sums.losses[-1].total), batch.num_targets))
        assert loss.isfinite()
        return loss

    monkeypatch.setattr(OmniChatModule, "training_step", training_step)
    assert fit(config("trainer.max_steps=2", "trainer.micro_batch=4"), tmp_path) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(total, count) for total, count in seen[::2]] == [(0.0, 0), (0.0, 0)]
    for line, (total, count) in zip(lines, seen[1::2], strict=True):
        assert line["loss/total"] == pytest.approx(total / count, rel=1e-6)
        assert line["optim/skipped"] == 0


def test_a_data_worker_that_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel kills workers that take too much memory; the main process must not wait for them."""
    read = DialogueDataset.__getitem__

    def dying(self: DialogueDataset, index: int) -> Any:
        if index == 9:  # in the second step
            os._exit(3)
        return read(self, index)

    monkeypatch.setattr(DialogueDataset, "__getitem__", dying)
    with pytest.raises(TrainingError, match=r"step \d: a data worker died.*exit.*data\.num_workers"):
        fit(config("trainer.max_steps=3", "data.num_workers=1"), tmp_path)
    monkeypatch.undo()  # the cure that the message names must be allowed
    assert fit(config("trainer.max_steps=3", "data.num_workers=0"), tmp_path) == 0


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all that is no section; what users name themselves counts as one."""
    for key, value in values.items():
        if isinstance(value, dict) and f"{prefix}{key}" not in ("data.sources", "data.val", "data.test"):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def changed(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The same with something else under each key."""
    copy: dict[str, Any] = json.loads(json.dumps(values))
    for key in keys:
        *path, last = key.split(".")
        section = copy
        for part in path:
            section = section[part]
        section[last] = "something else"
    return copy


def test_a_run_from_before_a_key_was_added_goes_on(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A filled-in default is what the run was trained with; another value of that key is still refused."""
    values = values_of(run_dir)
    now = RunConfig.model_validate_json(json.dumps(values))
    assert now.data.overlong == "error"
    del values["preflight"], values["data"]["overlong"]
    save_checkpoint(tmp_path, 2, {}, {"config": values})
    start = starting_point(now, tmp_path)
    assert start is not None
    assert start.step == 2
    assert 'get their defaults: preflight="auto", data.overlong="error"' in capsys.readouterr().out
    other = now.model_copy(update={"data": now.data.model_copy(update={"overlong": "drop_dialogue"})})
    with pytest.raises(ConfigError, match=r'data\.overlong: "error" there, "drop_dialogue" here'):
        starting_point(other, tmp_path)


def test_every_change_of_data_model_or_seed_is_refused_with_the_difference(run_dir: Path, tmp_path: Path) -> None:
    """A field that slips through makes two runs out of one, under one name."""
    values = values_of(run_dir)
    now = RunConfig.model_validate_json(json.dumps(values))
    free = ("data.num_workers", "data.features_dir", "data.test")
    fixed = [key for key in leaves(values) if key.startswith(("data.", "model.")) and key not in free]
    fixed += ["seed", "task", "init_from", "trainer.dialogues_per_step", "trainer.tokens_per_step"]
    assert len(fixed) >= 36
    for number, key in enumerate(fixed):
        save_checkpoint(tmp_path / str(number), 2, {}, {"config": changed(values, key)})
        with pytest.raises(ConfigError) as caught:
            starting_point(now, tmp_path / str(number))
        assert [fault.partition(":")[0] for fault in caught.value.faults] == [key, "run_name"]
        assert '"something else" there' in caught.value.faults[0]
    others = [key for key in leaves(values) if key not in fixed]
    assert {"run_name", "trainer.learning_rate", "logger.tensorboard", *free} <= set(others)
    save_checkpoint(tmp_path / "free", 2, {}, {"config": changed(values, *others)})
    assert starting_point(now, tmp_path / "free") is not None


MISMATCHES = (
    "model.experts=[whisper,beats]", "model.window=9", "model.queries=2", "model.gate=channel",
    "model.qformer.hidden=64", "model.qformer.layers=2", "model.qformer.heads=2", "model.qformer.ffn=32",
    "model.lora.rank=4", "model.lora.alpha=16", "model.lora.targets=[q_proj]", "model.encoders.whisper.context=pad30",
    "model.encoders.beats.layout=time",
)  # fmt: skip


def test_a_checkpoint_of_another_model_is_refused_in_one_message(run_dir: Path, tmp_path: Path) -> None:
    """Window, alpha, context and layout fit no less by their shapes: without a word, another function would go on."""
    path = f"resume={run_dir / 'checkpoints' / '2'}"
    with pytest.raises(CheckpointError) as caught:
        fit(config("seed=1", path, *MISMATCHES), tmp_path / "other")
    said = str(caught.value)
    keys = [override.partition("=")[0] for override in MISMATCHES]
    assert [key for key in keys if f"{key}: " not in said] == []
    # Another seed makes other random weights.
    assert said.count(" has the sha256 ") == 3  # whisper, beats and the language model
    assert str(run_dir / "checkpoints" / "2") in said


def test_what_makes_no_other_model_may_change(run_dir: Path, tmp_path: Path) -> None:
    """To go on elsewhere, with dropout or in half precision, must not need a training anew."""
    values = values_of(run_dir)
    whisper = values["model"]["encoders"]["whisper"]
    shutil.copy(whisper["checkpoint"], moved := tmp_path / "moved.pt")
    whisper["checkpoint"] = str(moved)
    values["model"]["lora"]["dropout"], values["model"]["llm"]["dtype"] = 0.5, "bfloat16"
    values |= {"resume": str(run_dir / "checkpoints" / "2"), "seed": 1}
    start = starting_point(RunConfig.model_validate_json(json.dumps(values)), tmp_path / "checkpoints")
    assert start is not None
    assert start.path == run_dir / "checkpoints" / "2"


def test_only_a_run_s_own_checkpoints_must_be_of_its_data(tmp_path: Path) -> None:
    """`resume=PATH` begins with the weights and moments of a run on other data; from then on it is one run."""
    start = Checkpoint(tmp_path / "checkpoints" / "2", 2, {"stream": "one"}, {})
    check_stream(None, tmp_path / "checkpoints", "other")
    check_stream(start, tmp_path / "checkpoints", "one")
    check_stream(start, tmp_path / "elsewhere" / "checkpoints", "other")
    with pytest.raises(CheckpointError, match="was trained on other data"):
        check_stream(start, tmp_path / "checkpoints", "other")


def test_frozen_weights_that_were_replaced_are_refused(tmp_path: Path) -> None:
    """A file that was replaced under its old path would change what the trained part hears."""
    fit(config("trainer.max_steps=2"), tmp_path)
    llama = tmp_path / "random_weights" / "llama" / "model.safetensors"
    content = bytearray(llama.read_bytes())
    content[-1] ^= 1
    llama.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"llm: .* has the sha256 .* was trained with"):
        fit(config("trainer.max_steps=4"), tmp_path)


def test_identities_follow_the_files(tmp_path: Path) -> None:
    """They are kept; kept too long they would speak of weights that are gone."""
    made = build.materialise(config(), tmp_path)
    before = frozen_identities(made)
    beats = Path(before["beats"]["path"])
    beats.write_bytes(beats.read_bytes() + b"0")
    assert {name for name, identity in frozen_identities(made).items() if identity != before[name]} == {"beats"}


def test_frozen_weights_are_hashed_before_the_first_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading 20 GB within the half minute that a stop may give could cost the run its only save."""
    begun = threading.Event()

    def refused(config: RunConfig) -> Any:
        begun.set()
        raise PermissionError("not yours")

    monkeypatch.setattr(resume, "frozen_identities", refused)
    writer = resume.CheckpointWriter(config(), tmp_path, "stream")
    assert begun.wait(60)
    with pytest.raises(PermissionError, match="not yours"):
        writer.write(1, {})


def test_the_second_of_two_runs_in_one_folder_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    """Two processes would destroy each other's checkpoints; a dead one must not keep the folder for ever.

    Nor for the five seconds in which its data workers do not know yet that it is dead.
    """
    command = [sys.executable, "train.py", *QUICK, "trainer.max_steps=9999", f"hydra.run.dir={tmp_path}"]
    with subprocess.Popen([*command, "data.num_workers=1"], stdout=subprocess.DEVNULL) as first:
        while not (tmp_path / "metrics.jsonl").exists():
            assert first.poll() is None
            time.sleep(0.05)
        with pytest.raises(ConfigError, match="is in use by another run"):
            fit(config("trainer.max_steps=2"), tmp_path)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert fit(config("trainer.max_steps=2"), tmp_path) == 0


@pytest.mark.parametrize("name", ["a run with spaces", "läuft-运行-🎧", "/".join(["long" * 25] * 6)], ids=str.__len__)
def test_any_name_of_a_folder_will_do(name: str, tmp_path: Path) -> None:
    """Home folders have such names."""
    assert fit(config("trainer.max_steps=2"), tmp_path / name) == 0
    assert load_run(tmp_path / name).step == 2


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Before anything is loaded, and with the key to turn."""
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(ConfigError, match=r"hydra\.run\.dir: .* cannot be written to"):
            fit(config(), folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    """A mounted result folder, say."""
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(ConfigError, match="Permission denied"):
            fit(config(), tmp_path / "run")
    finally:
        tmp_path.chmod(0o755)

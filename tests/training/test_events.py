"""`task: events` learns, and is as safe as a run on dialogues; on random tiny experts."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from omnichat.checkpoint import best, load_checkpoint, tensors_sha256
from omnichat.config import ConfigError, load_config
from omnichat.models.events import EventModel
from omnichat.run_folder import SKIPPED_FILE
from omnichat.training import events
from omnichat.training.events import fit_events
from omnichat.training.guard import TrainingError
from tests.two_tracks import events_config
from tests.wandb_file import read_wandb


@pytest.fixture(scope="module")
def whole(tracks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps that nothing happened to."""
    run = tmp_path_factory.mktemp("whole")
    assert fit_events(events_config(tracks, "trainer.max_steps=4", "preflight=off"), run) == 0
    return run


def records(run_dir: Path) -> list[dict[str, float]]:
    """What was logged."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def trained(run_dir: Path, step: int) -> dict[str, str]:
    """Hashes of weights and moments."""
    tensors = load_checkpoint(run_dir / "checkpoints" / str(step)).tensors
    return {stem: tensors_sha256(group) for stem, group in tensors.items()}


def saved(run_dir: Path) -> list[int]:
    """Steps with a checkpoint."""
    return sorted(int(path.name) for path in (run_dir / "checkpoints").glob("[0-9]*"))


def spoilt(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[int, Tensor], Tensor]) -> None:
    """From now on the logits of each micro-batch, counted from 0, are what `spoil` makes of them."""
    forward, calls = EventModel.forward, iter(range(1_000))

    def hook(self: EventModel, frames: Any) -> Tensor:
        return spoil(next(calls), forward(self, frames))

    monkeypatch.setattr(EventModel, "forward", hook)


def test_it_learns_and_the_best_is_kept(tracks: Path, tmp_path: Path) -> None:
    """A model that learns nothing cannot halve the loss; the best by the held-out loss stays, as of any run."""
    more = ("trainer.max_steps=40", "trainer.validate_every=20", "trainer.learning_rate=5e-3", "trainer.save_every=0")
    assert fit_events(events_config(tracks, *more), tmp_path) == 0
    steps = [record for record in records(tmp_path) if "loss/total" in record]
    assert [record["step"] for record in steps] == list(range(1, 41))
    assert steps[-1]["loss/total"] < 0.5 * steps[0]["loss/total"]
    assert {"grad_norm/mixformer", "grad_norm/head"} <= steps[19].keys()
    for record in steps:
        assert record["perf/audio_s_per_s"] * record["perf/seconds"] == pytest.approx(8 * 3.06, rel=1e-3)
        assert 0.05 < record["perf/memory_gib"] < 1000
    held_out = {record["step"]: record for record in records(tmp_path) if "validation/total" in record}
    assert held_out.keys() == {20, 40}
    assert held_out[40]["validation/val/f1_macro"] > 0.5
    lowest = min(held_out, key=lambda step: held_out[int(step)]["validation/total"])
    noted = best(tmp_path / "checkpoints")
    assert noted == (tmp_path / "checkpoints" / str(int(lowest)), held_out[lowest]["validation/total"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_goes_on_bit_for_bit(
    number: int, code: int, tracks: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved after the step in hand, with the exit code of the signal; nothing is lost or trained twice."""
    step, handler = events._Training._train, signal.getsignal(number)

    def signalled(self: Any, which: int) -> dict[str, float]:
        os.kill(os.getpid(), number) if which == 1 else None
        return step(self, which)

    config = events_config(tracks, "trainer.max_steps=4", "trainer.keep_last=0")
    with monkeypatch.context() as patched:
        patched.setattr(events._Training, "_train", signalled)
        assert fit_events(config, tmp_path) == code
    assert saved(tmp_path) == [2]
    assert signal.getsignal(number) is handler
    assert fit_events(config, tmp_path) == 0
    assert trained(tmp_path, 4) == trained(whole, 4)
    timeless = [
        [{name: one for name, one in record.items() if not name.startswith("perf/")} for record in records(run)]
        for run in (tmp_path, whole)
    ]
    assert timeless[0] == timeless[1]


def test_frames_that_are_not_kept_are_the_same(tracks: Path, whole: Path, tmp_path: Path) -> None:
    """`data.features` says where frames come from, not what they are; frozen is frozen, and not saved."""
    fit_events(events_config(tracks, "trainer.max_steps=4", "data.features=live"), tmp_path)
    assert trained(tmp_path, 4) == trained(whole, 4)
    start = load_checkpoint(whole / "checkpoints" / "4")
    assert not [name for name in start.weights() if name.startswith("encoders")]
    assert set(start.state["frozen"]) == {"whisper", "emotion2vec", "beats"}
    assert load_config("recipe=interact_events", "model.llm.checkpoint=null").model.llm.checkpoint is None


def test_the_folder_is_one_run_s(tracks: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, ranks or configs in one folder would destroy each other's checkpoints."""
    config = events_config(tracks, "trainer.max_steps=2")
    hold = "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.lockf(lock, fcntl.LOCK_EX); print(); input()"
    command = [sys.executable, "-u", "-c", hold, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(ConfigError, match=r"run_name: .* is in use by another run"):
            fit_events(config, tmp_path)
        other.communicate(b"\n")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    for given in ("trainer.devices=2", "trainer.strategy=ddp", "trainer.compile=true", "trainer.compile_experts=true"):
        with pytest.raises(ConfigError, match=rf"{given.partition('=')[0]}: .*; task=events trains in one process"):
            fit_events(events_config(tracks, given), tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"trainer.accelerator: gpu, but there is none"):
            fit_events(events_config(tracks, "trainer.accelerator=gpu"), tmp_path)
    with pytest.raises(ConfigError, match="seed: 0 there, 1 here"):
        fit_events(events_config(tracks, "trainer.max_steps=5", "seed=1"), whole)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ConfigError, match="not the first of several processes"):
        fit_events(config, tmp_path)


def test_it_can_begin_with_another_run_s_weights(tracks: Path, whole: Path, tmp_path: Path) -> None:
    """`init_from` that is passed over in silence would be the wrong experiment."""
    config = events_config(tracks, "trainer.max_steps=2", "trainer.learning_rate=1e-12", f"init_from={whole}")
    assert fit_events(config, tmp_path) == 0
    before = load_checkpoint(whole / "checkpoints" / "4").weights()
    after = load_checkpoint(tmp_path / "checkpoints" / "2").weights()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-9)


def test_a_step_that_is_not_finite_is_left_out(
    tracks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One bad sample must not destroy weights or moments; its step's moments are on record. Three in a row end it."""
    bad = {3, *range(8, 20)}  # the second micro-batch of step 2; all from step 5 on
    spoilt(monkeypatch, lambda call, logits: logits * float("nan") if call in bad else logits)
    more = ("trainer.max_steps=9", "trainer.save_every=1", "trainer.keep_last=0", "preflight=off")
    with pytest.raises(TrainingError, match=r"step 7: the gradients are not finite, moments d\d at .*3 steps in a row"):
        fit_events(events_config(tracks, *more), tmp_path)
    assert trained(tmp_path, 2) == trained(tmp_path, 1)
    assert trained(tmp_path, 3) != trained(tmp_path, 2)
    assert trained(tmp_path, 6) == trained(tmp_path, 4)
    lines = [json.loads(line) for line in (tmp_path / SKIPPED_FILE).read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 5, 6, 7]
    assert lines[0]["indices"] == list(range(8, 16))
    assert len(lines[0]["moments"]) == 8
    assert "step 2: the gradients are not finite" in capsys.readouterr().out
    assert [record["optim/skipped"] for record in records(tmp_path)] == [0, 1, 0, 0, 1, 1]


def test_a_run_whose_first_steps_were_left_out_goes_on(
    tracks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint from before the first moments has no file of them."""
    spoilt(monkeypatch, lambda call, logits: logits * float("nan") if call < 2 else logits)
    more = ("trainer.save_every=1", "trainer.warmup_steps=1", "preflight=off")
    assert fit_events(events_config(tracks, "trainer.max_steps=1", *more), tmp_path) == 0
    assert "optimizer" not in load_checkpoint(tmp_path / "checkpoints" / "1").tensors
    assert fit_events(events_config(tracks, "trainer.max_steps=2", *more), tmp_path) == 0


def test_too_little_memory_is_explained(tracks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare traceback says neither which moments were too much, nor which key to turn."""

    def full(call: int, logits: Tensor) -> Tensor:
        if call == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB")
        return logits

    spoilt(monkeypatch, full)
    with pytest.raises(TrainingError, match=r"step 2: out of memory .* 4 moments \(d\d at .*Lower trainer.micro_batch"):
        fit_events(events_config(tracks, "trainer.max_steps=2", "preflight=off"), tmp_path)


def test_preflight_leaves_no_trace(
    tracks: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at before the first step, and trained as without; `only` ends there; a full disk is named in time."""
    config = events_config(tracks, "trainer.max_steps=4", "preflight=only", "logger.tensorboard=true")
    assert fit_events(config, tmp_path) == 0
    printed = capsys.readouterr().out
    batch = "largest micro-batch: 4 moments of 3.06 s, all are as long; forward and backward"
    for fact in (
        "1 x CPU",
        f"torch {torch.__version__}",
        "disk: a checkpoint takes",
        batch,
        "steps 1 to 4, 32 moments",
    ):
        assert fact in printed
    assert not tmp_path.exists()
    usage = type("Usage", (), {"free": 10})
    with monkeypatch.context() as patched:
        patched.setattr("omnichat.training.preflight.shutil.disk_usage", lambda path: usage)
        with pytest.raises(TrainingError, match=r"a checkpoint takes .*10 B are free.*hydra.run.dir"):
            fit_events(events_config(tracks, "trainer.max_steps=4"), tmp_path)
    assert fit_events(events_config(tracks, "trainer.max_steps=4"), tmp_path) == 0
    assert "preflight" in capsys.readouterr().out
    assert trained(tmp_path, 4) == trained(whole, 4)


def test_loggers_without_secrets(tracks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard and W&B get each figure that metrics.jsonl has, and nothing that a run writes tells a secret."""
    boards = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pytest.importorskip("wandb")
    secret = "ghp_canary4444canary4444canary4444"
    monkeypatch.setenv("GITHUB_TOKEN", secret)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr("omnichat.training.loggers.FINISH_SECONDS", 200.0)  # for a machine that is busy
    more = ("logger.tensorboard=true", "logger.wandb.mode=offline", f"logger.wandb.group={secret}")
    run = tmp_path / "run"
    config = events_config(tracks, "trainer.max_steps=2", "trainer.validate_every=2", *more)
    assert fit_events(config, run) == 0
    written = {(one["step"], key): value for one in records(run) for key, value in one.items() if key != "step"}
    assert {"loss/total", "optim/skipped", "validation/val/f1_macro"} <= {key for _, key in written}
    board = boards.EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    board.Reload()
    shown = {(event.step, tag): event.value for tag in board.Tags()["scalars"] for event in board.Scalars(tag)}
    shown = {key: value for key, value in shown.items() if key[1] not in ("epoch", "hp_metric")}
    assert shown == {key: pytest.approx(value, rel=1e-6) for key, value in written.items()}
    history = [record.history.item for record in read_wandb(run) if record.HasField("history")]
    told = {item.key or "/".join(item.nested_key) for items in history for item in items}
    assert {key for _, key in written} <= told
    for path in run.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    assert "[masked]" in (run / "config.yaml").read_text()


def test_a_dead_service_does_not_hold_a_run(
    tracks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """W&B's server takes the connection and never answers: all steps are trained, and the wait at the end is limited.

    In bfloat16, which the experts compute in and the head does not.
    """
    pytest.importorskip("wandb")
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "c0ffee" * 6 + "beef")
        monkeypatch.setattr("omnichat.training.loggers.FINISH_SECONDS", 1.0)
        more = ("logger.wandb.mode=online", "trainer.precision=bf16-mixed", "trainer.validate_every=2")
        assert fit_events(events_config(tracks, "trainer.max_steps=2", *more), tmp_path) == 0
    assert "W&B did not finish in 1 s" in capsys.readouterr().out
    assert [record["step"] for record in records(tmp_path)] == [1, 2, 2]
    assert saved(tmp_path) == [2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(tracks: Path, tmp_path: Path) -> None:
    """Fails when frames, labels and weights lie on different devices, in training, validation or going on."""
    steps = {}
    for accelerator in ("cpu", "gpu"):
        run = tmp_path / accelerator
        for last in (2, 4):
            more = (f"trainer.accelerator={accelerator}", f"trainer.max_steps={last}", "trainer.validate_every=2")
            assert fit_events(events_config(tracks, *more, "trainer.warmup_steps=1"), run) == 0
        steps[accelerator] = [record["loss/total"] for record in records(run) if "loss/total" in record]
    assert len(steps["gpu"]) == 4
    assert steps["gpu"] == pytest.approx(steps["cpu"], rel=1e-3)

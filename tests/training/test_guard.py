"""What breaks a step is named, and does no harm to what was learnt before."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import nn
from torch.optim import AdamW

from omnichat.checkpoint import load_checkpoint, tensors_sha256
from omnichat.config import RunConfig, load_config
from omnichat.models.omnichat import Losses, OmniChat
from omnichat.training import module
from omnichat.training.fit import fit
from omnichat.training.guard import (
    SKIPPED_FILE,
    NonFiniteGuard,
    Place,
    SkippedSteps,
    TrainingError,
    explained,
    gradient_norm,
)
from omnichat.training.module import OmniChatModule
from omnichat.training.optim import Verdict, build_optimizer
from omnichat.training.resume import CheckpointWriter
from omnichat.training.step_sums import StepSums
from tests.training.engines_job import plain_sgd

QUICK = (
    "recipe=smoke",
    "data.made_up=8",
    "trainer.validate_every=0",
    "trainer.warmup_steps=1",
    "trainer.micro_batch=4",
    "preflight=off",  # its trials would count as micro-batches
)


def config(*overrides: str) -> RunConfig:
    """Two micro-batches a step, a checkpoint after each step."""
    return load_config(*QUICK, "trainer.micro_batch=4", "trainer.save_every=1", "trainer.keep_last=0", *overrides)


def broken(monkeypatch: pytest.MonkeyPatch, *micro_batches: int, factor: float = float("nan")) -> None:
    """From now on the losses of these micro-batches (counted from 0) are multiplied by something that is no number."""
    forward, calls = OmniChat.forward, iter(range(1_000))

    def spoilt(self: OmniChat, batch: Any) -> Any:
        losses = forward(self, batch)
        return losses._replace(total=losses.total * factor) if next(calls) in micro_batches else losses

    monkeypatch.setattr(OmniChat, "forward", spoilt)


def trained(run_dir: Path, step: int) -> dict[str, str]:
    """Hashes of weights and moments."""
    tensors = load_checkpoint(run_dir / "checkpoints" / str(step)).tensors
    return {stem: tensors_sha256(group) for stem, group in tensors.items()}


def fused(parameters: dict[str, nn.Parameter], *options: Any) -> AdamW:
    """The optimizer as it is on a GPU."""
    groups = build_optimizer(parameters, *options).param_groups
    return AdamW(
        [{name: group[name] for name in ("params", "lr", "betas", "weight_decay")} for group in groups], fused=True
    )


@pytest.mark.parametrize(("factor", "on_device"), [(float("nan"), False), (float("inf"), False), (float("nan"), True)])
def test_a_step_that_is_not_finite_is_left_out(
    factor: float, on_device: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One bad sample must not destroy weights, moments or their step count; its dialogues are on record."""
    if on_device:
        monkeypatch.setattr(module, "build_optimizer", fused)
    broken(monkeypatch, 3, factor=factor)  # the second micro-batch of step 2
    fit(config("trainer.max_steps=3"), tmp_path)
    assert trained(tmp_path, 2) == trained(tmp_path, 1)
    assert trained(tmp_path, 3) != trained(tmp_path, 2)
    optimizer = load_checkpoint(tmp_path / "checkpoints" / "3").tensors["optimizer"]
    assert {float(tensor) for name, tensor in optimizer.items() if name.endswith(".step")} == {2.0}
    assert all(tensor.isfinite().all() for tensor in optimizer.values())
    record = json.loads((tmp_path / SKIPPED_FILE).read_text())
    assert record["step"] == 2
    assert sorted(record["indices"]) == list(range(8, 16))
    assert "step 2: the gradients are not finite" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["optim/skipped"] for line in lines] == [0, 1, 0]


def test_a_disk_that_takes_no_note_of_a_left_out_step_is_named(tmp_path: Path) -> None:
    """What was left out without a word would be missing from the data for ever."""
    (tmp_path / SKIPPED_FILE).mkdir()
    with pytest.raises(
        TrainingError, match=r"skipped\.jsonl: step 3, .* cannot be noted \(Is a directory\); free disk"
    ):
        SkippedSteps(tmp_path).leave_out(3, 0, [1], ["a"], possible=True)


def test_only_three_in_a_row_end_a_run(tmp_path: Path) -> None:
    """In a run of days single bad samples add up to more than three."""
    skipped = SkippedSteps(tmp_path)
    for step in (1, 2, 4, 5, 7, 8):
        skipped.leave_out(step, 0, [step], ["a"], possible=True)
        if step in (2, 5):
            skipped.sound()
    with pytest.raises(TrainingError, match=r"step 9: .*3 steps in a row"):
        skipped.leave_out(9, 0, [9], ["a"], possible=True)
    with pytest.raises(TrainingError, match=r"step 1: .* this DeepSpeed takes the step nevertheless"):
        SkippedSteps(tmp_path).leave_out(1, 0, [1], ["a"], possible=False)
    steps = [json.loads(line)["step"] for line in (tmp_path / SKIPPED_FILE).read_text().splitlines()]
    assert steps == [1, 2, 4, 5, 7, 8, 9, 1]


def test_norms_of_the_gradients_are_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which half of the model diverges, or stands still, is not seen in the loss; after clipping both would be small.

    Plain SGD's steps are the clipped gradients times the rate.
    """
    monkeypatch.setattr(module, "build_optimizer", plain_sgd)
    fit(config("trainer.max_steps=2", "trainer.log_every=2", "trainer.gradient_clip=0.2"), tmp_path)
    first, second = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    norms = {part: second[f"grad_norm/{part}"] for part in ("mixformer", "lora")}
    assert not any(name.startswith("grad_norm") for name in first)
    whole = sum(norm**2 for norm in norms.values()) ** 0.5
    assert whole > 0.2
    before, after = (load_checkpoint(tmp_path / "checkpoints" / str(step)).tensors for step in (1, 2))
    for part, stem in (("mixformer", "mixformer"), ("lora", "adapter")):
        moved = torch.stack([(after[stem][name] - tensor).norm() for name, tensor in before[stem].items()]).norm()
        assert moved / second["optim/learning_rate"] == pytest.approx(norms[part] * 0.2 / whole, rel=0.01)


def test_a_gpu_is_asked_only_while_it_computes_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that waits for each step's end leaves the GPU without work until the next step reaches it.

    Only a save has to know whether the step before it was sound.
    """
    done: list[str] = []

    def noted(kind: type, name: str, word: str) -> None:
        plain = getattr(kind, name)

        def call(*given: Any, **named: Any) -> Any:
            done.append(word)
            return plain(*given, **named)

        monkeypatch.setattr(kind, name, call)

    monkeypatch.setattr(module, "build_optimizer", fused)
    noted(AdamW, "step", "step")
    noted(Verdict, "sound", "asked")
    noted(CheckpointWriter, "__call__", "saved")
    fit(config("trainer.max_steps=4", "trainer.save_every=3"), tmp_path)
    # A call of the optimizer's step holds the forward and the backward, and the question about the step before.
    assert " ".join(done) == "step step asked step asked asked saved step asked saved"


@pytest.mark.parametrize("on_device", [False, True])
def test_three_in_a_row_end_the_run(on_device: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A diverged model would skip steps for ever."""
    if on_device:
        monkeypatch.setattr(module, "build_optimizer", fused)
    broken(monkeypatch, *range(2, 12))
    with pytest.raises(TrainingError, match=r"step 4: the gradients are not finite.*3 steps in a row.*checkpoint"):
        fit(config("trainer.max_steps=6"), tmp_path)
    assert trained(tmp_path, 3) == trained(tmp_path, 1)


class TakesAll(DeepSpeedStrategy):
    """One rank of an engine that has not seen that a loss is no number."""

    def __init__(self) -> None:
        pass

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        return decision


@dataclass
class Deep:
    """What the guard asks a trainer for."""

    optimizer: SimpleNamespace
    strategy: DeepSpeedStrategy = field(default_factory=TakesAll)
    accumulate_grad_batches: int = 2
    global_step: int = 5
    global_rank: int = 0

    @property
    def optimizers(self) -> list[SimpleNamespace]:
        return [self.optimizer]


def test_a_deepspeed_that_takes_every_step_ends_the_run(tmp_path: Path) -> None:
    """Its weights are no numbers from then on, and every step after would be trained, and saved, for nothing."""
    trainer: Any = Deep(SimpleNamespace(overflow=False))
    module, guard = OmniChatModule(nn.Linear(1, 1), config().trainer, 0), NonFiniteGuard(tmp_path)  # type: ignore[arg-type]
    module.trainer = trainer
    zero = torch.zeros(())
    for total, overflow in ((1.0, False), (float("nan"), True), (1.0, False), (float("nan"), False)):
        trainer.optimizer.overflow = overflow
        module.step_sums = StepSums([Losses(torch.tensor(total), *[zero] * 8)])
        guard.on_train_batch_end(trainer, module, None, None, 0)  # the first micro-batch of two
        assert module.step_sums.skipped is False
        if total == 1.0 or overflow:
            guard.on_train_batch_end(trainer, module, None, None, 1)
            assert module.step_sums.skipped is overflow
    with pytest.raises(TrainingError, match=r"step 5: .* this DeepSpeed takes the step nevertheless"):
        guard.on_train_batch_end(trainer, module, None, None, 1)


def test_the_norm_is_over_what_has_a_gradient() -> None:
    """A part without one has the norm 0, and does not stop the run."""
    some, none = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))
    some.grad = torch.tensor([3.0, 4.0])
    assert float(gradient_norm([some, none])) == 5.0
    assert float(gradient_norm([none])) == 0.0


def failing(error: Exception) -> Callable[..., Any]:
    """A step that raises."""

    def step(self: OmniChatModule, batch: Any, batch_idx: int) -> Any:
        self.current_batch = batch
        raise error

    return step


FAULTS = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB"), r"step 1: out of memory.*4 dialogues.*tokens"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), r"step 1: a data worker died.*_workers"),
    (RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:1"), r"step 1, rank 0: the connection to"),
]


@pytest.mark.parametrize(("error", "message"), FAULTS, ids=["memory", "worker", "rank"])
def test_faults_from_outside_are_explained(
    error: Exception, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare traceback says neither which dialogues were too much, nor which key to turn."""
    monkeypatch.setattr(OmniChatModule, "training_step", failing(error))
    with pytest.raises(TrainingError, match=message):
        fit(config("trainer.max_steps=1"), tmp_path)


LOST = (
    "[pair.cc:553] Connection closed by peer [127.0.0.1]:1",
    "[pair.cc:553] Read error [127.0.0.1]:1: Connection reset by peer",
    "NCCL communicator was aborted on rank 1.",
    "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.",
    "[unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation to complete",
)


@pytest.mark.parametrize("message", LOST)
def test_a_lost_rank_is_told_from_whatever_the_backend_says(message: str) -> None:
    """gloo and NCCL say it in words of their own, none of which names the cure."""
    with (
        pytest.raises(TrainingError, match="step 7, rank 2: the connection to another rank is gone"),
        explained(lambda: Place(7, 2, "nothing", "less")),
    ):
        raise RuntimeError(message)


def test_other_errors_keep_their_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the code must not be taken for a fault of the machine."""
    monkeypatch.setattr(OmniChatModule, "training_step", failing(RuntimeError("shapes do not fit")))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        fit(config("trainer.max_steps=1"), tmp_path)

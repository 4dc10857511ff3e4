"""Whole runs on a GPU: in CI on an emulated one (tests/test_emulated_gpu.py)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from omnichat.chat import Chat
from omnichat.checkpoint import load_checkpoint
from omnichat.config import load_config
from omnichat.training.callbacks import StepMetrics
from omnichat.training.fit import fit
from omnichat.training.module import OmniChatModule

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
STEPS = 4


def run(run_dir: Path, *overrides: str) -> dict[int, float]:
    """Train the smoke model, which has to end well; the loss of each step."""
    config = load_config(
        "recipe=smoke",
        "data.made_up=8",
        "trainer.precision=bf16-mixed",
        f"trainer.max_steps={STEPS}",
        "trainer.dialogues_per_step=4",
        "trainer.micro_batch=2",
        "trainer.warmup_steps=1",
        "trainer.validate_every=0",
        "trainer.log_every=2",
        "trainer.save_every=2",
        "preflight=off",
        *overrides,
    )
    assert fit(config, run_dir) == 0
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss/total"] for line in lines if "loss/total" in line}


@pytest.fixture
def unwaiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a step's batch to its end, but in the first step, whatever waits for the device is an error."""

    def with_mode(mode: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any) -> Any:
            module = next(thing for thing in given if isinstance(thing, OmniChatModule))
            if mode == "default" or module.global_step > 0:  # spectra's filters and kernels are made in the first step
                torch.cuda.set_sync_debug_mode(mode)
            return hook(*given)

        return called

    monkeypatch.setattr(OmniChatModule, "training_step", with_mode("error", OmniChatModule.training_step))
    monkeypatch.setattr(StepMetrics, "on_train_batch_end", with_mode("default", StepMetrics.on_train_batch_end))


def test_a_run_on_a_gpu_goes_on_bit_for_bit(tmp_path: Path, unwaiting: None) -> None:
    """Fails when the run asks its GPU for something in a step, or does not go on from its checkpoint as if nothing was.

    Also when what trains on a GPU only (a fused update, mixed precision, clipping) does not work together.
    """
    losses = run(tmp_path / "gpu", "trainer.accelerator=gpu")
    on_cpu = run(tmp_path / "cpu", "trainer.accelerator=cpu")
    assert list(losses) == list(range(1, STEPS + 1))
    assert list(losses.values()) == pytest.approx(list(on_cpu.values()), rel=0.02)
    last, whole = tmp_path / "gpu" / "checkpoints" / str(STEPS), tmp_path / "whole"
    last.rename(whole)
    assert run(tmp_path / "gpu", "trainer.accelerator=gpu") == losses
    again, before = load_checkpoint(last).tensors, load_checkpoint(whole).tensors
    for part, tensors in before.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, again[part][name]), f"{part} {name}"


def test_what_else_a_run_does_on_a_gpu(tmp_path: Path) -> None:
    """Fails when preflight, features, workers, checkpointed layers, validation or a reply mix up host and device."""
    run_dir = tmp_path / "run"
    losses = run(
        run_dir,
        "trainer.accelerator=gpu",
        "preflight=auto",
        "data.features=cached",
        f"data.features_dir={tmp_path / 'features'}",
        "data.num_workers=1",
        "trainer.activation_checkpointing=true",
        "trainer.shared_prefix=true",
        "trainer.validate_every=2",
        "evaluation.max_new_tokens=4",
    )
    assert list(losses) == list(range(1, STEPS + 1))
    assert any("validation/total" in line for line in (run_dir / "metrics.jsonl").read_text().splitlines())
    chat = Chat.load(run_dir)
    assert chat.run.model.llm.device.type == "cuda"
    sound = next(Path(run_dir).rglob("*.wav"))
    assert [chat.reply(sound).text, chat.reply(sound).text] != [None, None]  # two turns of one dialogue
    assert set(chat.gates) == {"whisper", "emotion2vec", "beats"}

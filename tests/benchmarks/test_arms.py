"""The arms at a toy size: those that claim to compute one function do, and those that do not are found out."""

from pathlib import Path

import pytest
import torch

from benchmarks import packing, windows
from benchmarks.measure import TOLERANCE, NotEqualError, difference, outcome, require_equal
from benchmarks.rows import pad_rows
from benchmarks.salmonn import SALMONN_WINDOWS
from benchmarks.training_step import CACHED, PAD30, PLAIN, SALMONN, TRIM, make_trainees
from benchmarks.workload import Sizes, draw_dialogues, make_examples, make_prompt, write_checkpoints
from omnichat.batch import pack

TOY = Sizes(
    width=32,
    whisper_layers=1,
    whisper_heads=2,
    qformer_heads=2,
    llm_layers=2,
    llm_heads=4,
    llm_ffn=64,
    vocab_size=600,
    lora_rank=2,
    lora_alpha=4,
)


def test_training_arms_are_equal_before_and_after_an_update(tmp_path: Path) -> None:
    """Fails when the plain loop trains on something else than the project: other slots, labels, weights or updates."""
    arms, examples = make_trainees(tmp_path, TOY, 2)
    assert len({len(example.tokens.ids) for example in examples}) == 2, "without padding the test would be idle"
    for _ in range(2):
        expected = arms[PLAIN].outcome()
        for name in (CACHED, PAD30):
            require_equal(name, arms[name].outcome(), PLAIN, expected)
        for arm in arms.values():
            arm.step()
    assert arms[PLAIN].outcome().loss < expected.loss
    assert difference(TRIM, arms[TRIM].outcome(), PLAIN, arms[PLAIN].outcome()).gradient > 100 * TOLERANCE


def test_packing_arms_are_equal(tmp_path: Path) -> None:
    """Fails when an arm leaves targets out, or shifts labels; and when attention across dialogues goes unnoticed."""
    checkpoints = write_checkpoints(tmp_path, TOY)
    batch = pack(make_examples(make_prompt(checkpoints), draw_dialogues(2)))
    arms = packing.make_arms(checkpoints, TOY, batch)
    found = {name: outcome(loss(), tensors) for name, (loss, tensors) in arms.items()}
    for name in (packing.PADDED_LABELS, packing.PACKED_FULL, packing.PACKED_LABELS, packing.LAST_LAYER, packing.SHARED):
        require_equal(name, found[name], packing.PADDED_FULL, found[packing.PADDED_FULL])
    leaking = batch._replace(starts=torch.tensor([0, len(batch.ids)], dtype=torch.int32), max_length=len(batch.ids))
    loss, tensors = packing.make_arms(checkpoints, TOY, leaking)[packing.PACKED_LABELS]
    with pytest.raises(NotEqualError):
        require_equal("leaking", outcome(loss(), tensors), packing.PADDED_FULL, found[packing.PADDED_FULL])


def test_a_whole_report() -> None:
    """Fails when a benchmark does not run to its end, or the loop over windows differs from one call."""
    report = windows.run(1, 1, TOY)
    assert [gap.arm for gap in report.equal] == [windows.TOGETHER]
    assert all(timing.peak_bytes > 0 and timing.median > 0 for timing in report.timings.values())
    assert "one call for all windows against a call for each window" in report.text()


def test_wide_slots_change_no_other_token(tmp_path: Path) -> None:
    """Fails when the SALMONN-style step trains on other text or targets than the rest, or on fewer slots."""
    examples = make_examples(make_prompt(write_checkpoints(tmp_path, TOY)), draw_dialogues(2))
    narrow, wide = pad_rows(examples), pad_rows(examples, SALMONN_WINDOWS)
    for row, example in enumerate(examples):
        assert int(wide.audio[row].sum()) == SALMONN_WINDOWS * len(example.tokens.slots)
        text = [rows.mask[row].bool() & ~rows.audio[row] for rows in (narrow, wide)]
        assert torch.equal(narrow.ids[row][text[0]], wide.ids[row][text[1]])
        assert torch.equal(narrow.labels[row][text[0]], wide.labels[row][text[1]])
        assert torch.equal(narrow.ids[row][narrow.mask[row].bool()], torch.from_numpy(example.tokens.ids))


def test_salmonn_style_step_trains(tmp_path: Path) -> None:
    """Fails when some part of the step learns nothing, or the step does not lower the loss it claims to train on."""
    arms, _ = make_trainees(tmp_path, TOY, 1)
    arm = arms[SALMONN]
    before = arm.outcome()
    assert all(
        gradient.abs().sum() > 0
        for name, gradient in before.gradients.items()
        if "self_attention" not in name and "lora_A" not in name  # of one query; and lora_B is zero at first
    )
    for _ in range(3):
        arm.step()
    assert arm.outcome().loss < before.loss

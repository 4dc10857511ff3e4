"""Three steps in a row that are not finite end a DeepSpeed run on every rank, with the last sound weights saved."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from omnichat.checkpoint import tensors_sha256
from omnichat.run_folder import SKIPPED_FILE
from tests.training.two_processes import run_job

JOB = Path(__file__).with_name("diverged_job.py")


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ["deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_3"])
def test_every_rank_ends_with_its_own_dialogues_named(engine: str, tmp_path: Path) -> None:
    """A rank that goes on alone waits for the other for ever; one that goes on at all spends hours on nothing."""
    pytest.importorskip("deepspeed")
    run_job(JOB, str(tmp_path), engine, timeout=280)
    run_dir = tmp_path / engine
    records = [json.loads(line) for line in (run_dir / SKIPPED_FILE).read_text().splitlines()]
    assert sorted((record["step"], record["rank"]) for record in records) == [
        (step, rank) for step in (2, 3, 4) for rank in (0, 1)
    ]
    last = {record["rank"]: record["dialogues"] for record in records if record["step"] == 4}
    for rank, dialogues in last.items():
        told = (tmp_path / f"told_{rank}.txt").read_text(encoding="utf-8")
        assert len(dialogues) == 4
        names = ", ".join(dialogues)
        assert told.startswith(f"step 4: the gradients are not finite, dialogues {names} of rank {rank} ")
        assert "3 steps in a row" in told
    checkpoints = run_dir / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir() if path.name.isdigit()) == ["1", "2", "3"]
    for stem in ("mixformer", "adapter", "optimizer"):
        first, third = (load_file(checkpoints / step / f"{stem}.safetensors") for step in ("1", "3"))
        assert tensors_sha256(third) == tensors_sha256(first)

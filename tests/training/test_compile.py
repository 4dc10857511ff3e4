"""`trainer.compile` and `trainer.compile_experts`: two processes compute with them what they compute without."""

import json
import re
from pathlib import Path

import pytest

from tests.training.two_processes import run_job

JOB = Path(__file__).with_name("compile_job.py")
# At least so many graphs: the LLM's layers and the loss; the layers of three experts and of the Q-Formers.
KINDS = {"compile": 2, "compile_experts": 4}


def losses(run_dir: Path) -> list[float]:
    """Of every step, in order."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line["loss/total"] for line in lines if "loss/total" in line]


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("key", "engine"),
    [
        *(("compile", engine) for engine in ("ddp", "fsdp", "deepspeed_stage_2", "deepspeed_stage_3")),
        *(("compile_experts", engine) for engine in ("ddp", "fsdp", "deepspeed_stage_2")),  # with ZeRO-3 it is refused
    ],
)
def test_losses_are_those_without(key: str, engine: str, tmp_path: Path) -> None:
    """An engine's hooks, casts or rounds of communication could break what is compiled, or be left out of it."""
    if engine.startswith("deepspeed"):
        pytest.importorskip("deepspeed")
    printed = run_job(JOB, str(tmp_path), key, engine, timeout=580)
    graphs = [int(count) for count in re.findall(r"^\w+ (?:false|true): (\d+) graphs$", printed, re.MULTILINE)]
    assert graphs[0] == 0
    assert graphs[1] >= KINDS[key]
    compiled = losses(tmp_path / f"{engine}_true")
    assert len(compiled) == 3
    assert compiled == pytest.approx(losses(tmp_path / f"{engine}_false"), rel=1e-5)

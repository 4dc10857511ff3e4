"""Signals, and SLURM's queue."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from omnichat.config import load_config
from omnichat.training import stopping
from omnichat.training.callbacks import Checkpointer
from omnichat.training.fit import fit
from omnichat.training.resume import CheckpointWriter
from omnichat.training.stopping import StopRequest

QUICK = ("recipe=smoke", "data.made_up=8", "trainer.validate_every=0", "trainer.max_steps=6", "trainer.save_every=0")


def signalled(monkeypatch: pytest.MonkeyPatch, step: int, *numbers: int) -> None:
    """The process sends itself these signals in the middle of a step."""
    before = Checkpointer.on_train_batch_end

    def hook(self: Checkpointer, trainer: Any, *arguments: Any) -> None:
        if trainer.global_step == step:
            for number in numbers:
                os.kill(os.getpid(), number)
        before(self, trainer, *arguments)

    monkeypatch.setattr(Checkpointer, "on_train_batch_end", hook)


def saved(run_dir: Path) -> list[int]:
    """Steps with a checkpoint."""
    return sorted(int(path.name) for path in (run_dir / "checkpoints").glob("[0-9]*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_after_this_step_and_a_save(
    number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most the step in hand may be waited for, nothing may be lost, and the handlers are given back."""
    handler = signal.getsignal(number)
    signalled(monkeypatch, 2, number)
    assert fit(load_config(*QUICK), tmp_path) == code
    assert saved(tmp_path) == [2]
    assert signal.getsignal(number) is handler


def test_a_signal_that_comes_while_ranks_agree_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank waits there for the slowest; what came meanwhile was overwritten by what the others had not heard yet."""
    stop = StopRequest()
    stop._group = "of all ranks"
    monkeypatch.setattr(distributed, "all_reduce", lambda *_, **__: stop._note(signal.SIGTERM, None))
    assert not stop.agreed()
    assert stop.exit_code(1, True) == 0
    monkeypatch.setattr(distributed, "all_reduce", lambda *_, **__: None)
    assert stop.agreed()
    assert stop.exit_code(2, True) == 143


def test_a_signal_to_another_rank_stops_this_one_and_queues_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that goes on alone waits for ever in its next step; a job that each rank queues again runs twice."""

    def with_the_other(most: torch.Tensor, op: Any, group: Any) -> None:
        combined = {distributed.ReduceOp.MAX: max, distributed.ReduceOp.MIN: min, distributed.ReduceOp.SUM: sum}[op]
        most.fill_(combined((int(most), int(signal.SIGUSR1))))

    queued = []
    monkeypatch.setattr(distributed, "all_reduce", with_the_other)
    monkeypatch.setattr(stopping, "requeue", lambda: queued.append(True))
    stop = StopRequest()
    stop._group = "of all ranks"
    assert stop.agreed()
    assert stop.exit_code(1, first=False) == 128 + signal.SIGUSR1
    assert queued == []
    assert stop.exit_code(1, first=True) == 128 + signal.SIGUSR1
    assert queued == [True]
    stop._agreed = signal.SIGTERM  # a job that was cancelled stays so
    assert stop.exit_code(1, first=True) == 143
    assert queued == [True]


def test_handlers_are_given_back_after_a_failure_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever calls `fit` from a notebook could else not interrupt anything any more."""
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before, stop = [signal.getsignal(number) for number in numbers], StopRequest()

    def fails() -> None:
        with stop.giving_back():
            stop.install()
            assert [signal.getsignal(number) for number in numbers] == [stop._note] * 3
            raise RuntimeError("in a step")

    with pytest.raises(RuntimeError, match="in a step"):
        fails()
    assert [signal.getsignal(number) for number in numbers] == before


def validations(run_dir: Path) -> dict[int, float]:
    """The held-out loss after each step that was validated."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["validation/total"] for line in lines if "validation/total" in line}


def test_who_asks_for_a_stop_need_not_wait_for_a_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning validates before it stops; with replies that is minutes, and a scheduler kills before the requeue.

    What was due is done when the run goes on: no gap in the curve, and no best step that is missed.
    """
    run = ("trainer.validate_every=2", "trainer.max_steps=6")
    assert fit(load_config(*QUICK, *run), tmp_path / "whole") == 0
    for stop in (1, 4):
        with monkeypatch.context() as patched:
            signalled(patched, stop, signal.SIGTERM)
            assert fit(load_config(*QUICK, *run), tmp_path / "stopped") == 143
        assert list(validations(tmp_path / "stopped")) == [2] * (stop > 2)
    assert fit(load_config(*QUICK, *run), tmp_path / "stopped") == 0
    assert validations(tmp_path / "stopped") == validations(tmp_path / "whole")
    assert list(validations(tmp_path / "whole")) == [2, 4, 6]
    notes = [json.loads((tmp_path / name / "checkpoints" / "best.json").read_text()) for name in ("whole", "stopped")]
    assert notes[0] == notes[1]


def test_a_second_sigterm_while_saving_is_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedulers send it again when the first seems to be ignored."""
    save = CheckpointWriter.__call__

    def saving(self: CheckpointWriter, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        save(self, *arguments)

    monkeypatch.setattr(CheckpointWriter, "__call__", saving)
    signalled(monkeypatch, 2, signal.SIGTERM)
    assert fit(load_config(*QUICK), tmp_path) == 143
    assert saved(tmp_path) == [2]


def test_a_second_sigint_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who presses twice does not want to wait; earlier checkpoints stay."""
    signalled(monkeypatch, 2, signal.SIGINT, signal.SIGINT)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(load_config(*QUICK, "trainer.save_every=1"), tmp_path)
    assert 1 in saved(tmp_path)


def test_a_slurm_job_is_queued_again_once_and_after_the_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queued before the save, the next run would start from the older checkpoint while this one still writes."""
    record = tmp_path / "scontrol.jsonl"
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    checkpoints = tmp_path / "run" / "checkpoints"
    program.write_text(f'#!/bin/sh\necho "[\\"$*\\", \\"$(ls {checkpoints} | tr "\\n" " ")\\"]" >> {record}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    signalled(monkeypatch, 2, signal.SIGUSR1)
    assert fit(load_config(*QUICK), tmp_path / "run") == 128 + signal.SIGUSR1
    assert [json.loads(line) for line in record.read_text().splitlines()] == [["requeue 4711", "2 "]]


def test_a_queue_that_refuses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is saved either way; its user has to know that it does not go on by itself."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    signalled(monkeypatch, 1, signal.SIGUSR1)
    assert fit(load_config(*QUICK), tmp_path / "run") == 128 + signal.SIGUSR1
    assert "job 4711 could not be queued again" in capsys.readouterr().err

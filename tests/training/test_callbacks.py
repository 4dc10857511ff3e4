"""What is written of a step, and of which steps the parts."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from omnichat.config import load_config
from omnichat.training import module, preflight, step_sums
from omnichat.training.callbacks import Checkpointer, ProgressLine
from omnichat.training.fit import fit
from omnichat.training.resume import CheckpointWriter

PARTS = ("loss/by_source/", "loss/by_turn/", "gate/", "grad_norm/", "qformer/out_norm/", "data/dialogue_turns")


def test_parts_stand_at_every_log_every_th_step_and_the_last(tmp_path: Path) -> None:
    """Parts at each step cost time that nobody sees; parts missing at the last leave the report without its end.

    What is not a part stands in every line, and the parts of a step are what they are where every step has them.
    """
    lines = {}
    for log_every in (1, 2):
        run = ("recipe=smoke", "data.made_up=4", "trainer.max_steps=5", "trainer.validate_every=0")
        fit(load_config(*run, f"trainer.log_every={log_every}"), tmp_path / str(log_every))
        text = (tmp_path / str(log_every) / "metrics.jsonl").read_text()
        lines[log_every] = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines[2]] == [1, 2, 3, 4, 5]
    for every, some in zip(lines[1], lines[2], strict=True):
        parts = {key for key in every if key.startswith(PARTS)}
        assert len({key.rpartition("/")[0] for key in parts}) >= 3
        expected = every.keys() if some["step"] in (2, 4, 5) else every.keys() - parts
        assert some.keys() == expected
        assert all(some[key] == every[key] for key in expected if not key.startswith("perf/"))


def test_a_kill_costs_no_line_of_a_step_that_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are written `log_every` steps at a time: those of saved steps would be missing for ever."""

    def killed(self: Checkpointer, trainer: Any, *rest: Any) -> None:
        end(self, trainer, *rest)
        if trainer.global_step == last + 1:
            raise RuntimeError("the machine went down")

    end = Checkpointer.on_train_batch_end
    run = ("recipe=smoke", "data.made_up=4", "trainer.max_steps=8", "trainer.validate_every=0")
    config = load_config(*run, "trainer.log_every=4", "trainer.save_every=2")
    assert fit(config, tmp_path / "whole") == 0
    with monkeypatch.context() as patched:
        patched.setattr(Checkpointer, "on_train_batch_end", killed)
        for last in (2, 6):
            with pytest.raises(RuntimeError, match="went down"):
                fit(config, tmp_path / "killed")
            text = (tmp_path / "killed" / "metrics.jsonl").read_text()
            assert [json.loads(line)["step"] for line in text.splitlines()] == list(range(1, last + 1))
    assert fit(config, tmp_path / "killed") == 0
    whole, killed_run = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    )
    assert [line["step"] for line in killed_run] == list(range(1, 9))
    assert [line["loss/total"] for line in killed_run] == [line["loss/total"] for line in whole]
    assert "grad_norm/lora" in killed_run[-1]


def test_what_is_no_step_is_not_in_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making ready, preflight and saving would look like slow steps that wait for their data.

    Each of them is made to take an hour of a clock that otherwise goes as clocks do.
    """
    hours = [0]

    def an_hour_more(call: Any) -> Any:
        def longer(*given: Any, **named: Any) -> Any:
            hours[0] += 1
            return call(*given, **named)

        return longer

    monkeypatch.setattr(step_sums, "perf_counter", lambda: time.perf_counter() + 3600 * hours[0])
    monkeypatch.setattr(preflight, "try_out", an_hour_more(preflight.try_out))
    monkeypatch.setattr(CheckpointWriter, "__call__", an_hour_more(CheckpointWriter.__call__))
    monkeypatch.setattr(
        module.OmniChatModule, "configure_optimizers", an_hour_more(module.OmniChatModule.configure_optimizers)
    )
    run = ("recipe=smoke", "data.made_up=4", "trainer.max_steps=4", "trainer.save_every=1", "trainer.validate_every=2")
    assert fit(load_config(*run), tmp_path) == 0
    assert hours[0] == 1 + 1 + 4
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss/total" in line]
    assert max(line["perf/seconds"] for line in steps) < 1800
    assert max(line["perf/data_wait"] * line["perf/seconds"] for line in steps) < 1800
    assert [line.get("perf/save_seconds", 0) // 3600 for line in steps] == [0, 1, 1, 1]


def test_the_bar_is_whole_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bar, time left and half of what a step came to were cut off at 80 columns."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    line = ProgressLine("a_run_of_some_name", 30_000, 0)
    speed = {
        "perf/tokens_per_s": 17_500.0,
        "perf/audio_s_per_s": 420.0,
        "perf/data_wait": 0.02,
        "perf/memory_gib": 68.4,
    }
    line.skipped, line.saved = 2, 1_000
    line.show(1_200, {"loss/total": 1.5, "loss/style": 0.5, "loss/content": 1.6, "optim/learning_rate": 3e-5} | speed)
    line.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    for part in ("a_run_of_some_name", "1200/30000", "0:00:0"):
        assert part in shown
    state = "loss 1.5000 style 0.500 content 1.600 lr 3.0e-05 17,500 tok/s 420 audio-s/s wait 2% mem 68.4 GiB "
    assert state + "2 skipped saved 1000" in " ".join(shown.split())

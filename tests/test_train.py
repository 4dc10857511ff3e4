"""The command line of train.py: exit codes and messages; no traceback for what the user can mend."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wandb_file import read_wandb

ROOT = Path(__file__).parents[1]


def train(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`python train.py ARGUMENTS`."""
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=250)


def test_all_faults_of_a_command_line_come_at_once(tmp_path: Path) -> None:
    """Hydra alone stops at the first and exits with 1."""
    result = train("recipe=quickstrt", "trainer=dpp", "foo", "modle=tiny", "data.alhpa=0.3", "seed=-1", cwd=tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    assert lines[0] == "train.py: 6 faults in the config:"
    keys = ["recipe=quickstrt", "trainer=dpp", "foo", "seed", "data.alhpa", "modle"]
    assert [line.strip().partition(": ")[0] for line in lines[1:]] == keys
    assert list(tmp_path.iterdir()) == []


def test_missing_weights_are_named_before_a_run_folder_is_made(tmp_path: Path) -> None:
    """A run that cannot start must leave nothing behind."""
    result = train(
        "recipe=quickstart",
        f"model.encoders.beats.checkpoint={tmp_path}/no.pt",
        f"data.synthetic={tmp_path}/no.jsonl",
        f"hydra.run.dir={tmp_path}/run",
    )
    assert result.returncode == 2
    assert f"model.encoders.beats.checkpoint: no file {tmp_path}/no.pt" in result.stderr
    assert f"data.synthetic: no file {tmp_path}/no.jsonl" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Hydra makes it, before the run itself, and showed the traceback of a `mkdir`."""
    (tmp_path / "taken").write_text("")
    result = train("recipe=smoke", f"hydra.run.dir={tmp_path}/taken/run")
    assert (result.returncode, "Traceback" in result.stderr) == (2, False)
    assert f"hydra.run.dir: {tmp_path}/taken/run cannot be written to, {tmp_path}/taken is no folder" in result.stderr


def test_a_checkpoint_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """`resume=` or `init_from=` with a file ended in a traceback; so did whatever else the system refuses to read."""
    (tmp_path / "file").write_text("")
    result = train("recipe=smoke", f"hydra.run.dir={tmp_path}/run", f"resume={tmp_path}/file")
    assert (result.returncode, "Traceback" in result.stderr) == (1, False)
    assert f"{tmp_path}/file: has no manifest.json" in result.stderr


def test_every_value_of_a_sweep_is_checked_before_the_first_runs(tmp_path: Path) -> None:
    """The last of seven values must not fail after six runs."""
    result = train("-m", "recipe=smoke", "data.alpha=0.5,1.5", "seed=0,-1", f"hydra.sweep.dir={tmp_path}/sweep")
    assert result.returncode == 2
    assert "data.alpha" in result.stderr
    assert "seed" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_several_values_need_the_flag() -> None:
    """Without -m, Hydra would call them ambiguous."""
    result = train("data.alpha=0,0.5")
    assert result.returncode == 2
    assert "data.alpha: has 2 values; add -m to run each" in result.stderr


def test_held_out_sets_take_new_names(tmp_path: Path) -> None:
    """`data.val` is the user's; Hydra by itself refuses a key that is not there yet."""
    result = train(f"data.val.mine={tmp_path}/no.jsonl")
    assert result.returncode == 2
    assert "data.val.mine: no file" in result.stderr


def test_help_into_a_closed_pipe() -> None:
    """`python train.py --help | head` ended in a traceback; here nobody reads at all. Any program may be asked so."""
    for program in ("train.py", "eval/run_store.py", "-m omnichat.chat", "-m data_prep.table"):
        command = f"'{sys.executable}' {program} --help | true; exit ${{PIPESTATUS[0]}}"
        result = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, check=False, timeout=250, cwd=ROOT
        )
        assert (result.stderr, result.returncode) == ("", 0), program


@pytest.mark.slow
def test_a_sweep_gives_each_run_its_own_folder_and_process(tmp_path: Path) -> None:
    """Runs that share a folder would resume each other; a failing one must neither end the sweep nor be left out.

    In W&B the runs are one group, each under its own name.
    """
    pytest.importorskip("wandb")
    result = train(
        "-m",
        "recipe=smoke",
        "data.max_tokens=2048,9",
        "data.made_up=4",
        "trainer.max_steps=2",
        "trainer.warmup_steps=1",
        "trainer.validate_every=0",
        "logger.wandb.mode=offline",
        f"hydra.run.dir={tmp_path}/runs/${{run_name}}",
        f"hydra.sweep.dir={tmp_path}/lengths",
    )
    assert result.returncode == 1, result.stderr[-2000:]
    assert "1 run(s) of the sweep failed: smoke_max_tokens_9" in result.stderr
    run = tmp_path / "runs" / "smoke_max_tokens_2048"
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    (record,) = [record.run for record in read_wandb(run) if record.HasField("run")]
    assert (record.display_name, record.run_group) == (run.name, "lengths")
    listed = json.loads((tmp_path / "lengths" / "sweep.json").read_text())["runs"]
    assert {name: (entry["changed"], entry["code"]) for name, entry in listed.items()} == {
        f"smoke_max_tokens_{length}": ([f"data.max_tokens={length}"], code) for length, code in ((2048, 0), (9, 1))
    }
    overview = (tmp_path / "lengths" / "overview.md").read_text()
    assert "2 runs, of which 1 are done and 0 scored" in overview
    assert "failed (exit code 1), step 0 of 2" in overview
    assert (tmp_path / "lengths" / "overview.html").is_file()

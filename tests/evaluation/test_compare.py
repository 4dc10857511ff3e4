"""Two runs beside each other: only over the same dialogues, with every metric that both have."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from omnichat.config import RunConfig
from omnichat.dialogue import DataError, Reply
from omnichat.evaluation.compare import compare_runs, print_comparison
from omnichat.evaluation.compare_command import main
from omnichat.evaluation.replies import Answer
from tests.evaluation.conftest import write_run

ROOT = Path(__file__).parents[2]
Change = Callable[[list[Answer]], list[Answer]]


@pytest.fixture
def other(tmp_path: Path, answers: list[Answer], config: RunConfig) -> Path:
    """A run that answers everything right."""
    folder = tmp_path / "other"
    folder.mkdir()
    write_run(folder, [replace(answer, reply=answer.reference) for answer in answers], config)
    return folder


def test_differences_by_hand(run_dir: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half of the styles and a quarter of the replies are right in one run, all in the other."""
    found = compare_runs(other, run_dir, resamples=200)
    assert list(found["splits"]) == ["scripts", "voices"]
    metrics = found["splits"]["scripts"]["metrics"]
    assert metrics["style_accuracy"]["difference"] == pytest.approx(0.5)
    assert metrics["exact_reply"]["difference"] == pytest.approx(0.75)
    assert metrics["exact_reply"]["ci95"] is not None
    assert metrics["bertscore"]["difference"] is None
    assert "bertscore=FOLDER" in metrics["bertscore"]["reason"]
    assert metrics["distinct_1"]["p_value"] is None  # no sum over replies
    assert found["splits"]["scripts"]["units"] == 2
    print_comparison(found)
    shown = capsys.readouterr().out
    assert "reply exact, style and words" in shown
    assert "+75.0" in shown
    assert "BERTScore not computed: no local model" in shown


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        (lambda answers: [replace(a, id=f"{a.id}x") for a in answers], "mismatched_ids", "scripts-0x"),
        (lambda answers: answers[1:], "mismatched_ids", "1 only in the first"),
        (lambda answers: [replace(a, history=a.history[2:]) for a in answers], "mismatched_ids", "turn 1"),
        (
            lambda answers: [replace(a, reference=Reply(a.reference.style, "indeed.")) for a in answers],
            "mismatched_references",
            "scripts-0 (turn 3)",
        ),
        (lambda answers: [replace(a, split="else") for a in answers], "no_split", "no set in common"),
    ],
)
def test_runs_over_other_dialogues_are_refused(
    run_dir: Path, other: Path, answers: list[Answer], config: RunConfig, change: Change, reason: str, message: str
) -> None:
    """A difference over other dialogues is one of the dialogues; and the error shows some."""
    write_run(other, change(answers), config)
    with pytest.raises(DataError) as error:
        compare_runs(run_dir, other, resamples=10)
    assert error.value.reason == reason
    assert message in str(error.value)


def test_a_set_that_is_not_there_is_named(run_dir: Path, other: Path) -> None:
    """With those that are."""
    with pytest.raises(DataError, match=r"no set nope in .*scripts, voices"):
        compare_runs(run_dir, other, ["nope"])


def test_command(run_dir: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It writes JSON where it is asked to; mistakes are told apart from failures."""
    out = tmp_path / "comparison.json"
    assert main([str(other), str(run_dir), "resamples=50", "split=scripts", f"out={out}"], "usage") == 0
    assert json.loads(out.read_text())["splits"]["scripts"]["n"] == 4
    assert main([str(other)], "usage") == 2
    assert "RUN_B: missing" in capsys.readouterr().err
    assert main([str(other), "/nowhere"], "usage") == 2
    assert main([str(other), str(run_dir), "slpit=a"], "usage") == 2
    assert "did you mean 'split'" in capsys.readouterr().err
    (run_dir / "replies.jsonl").write_text("")
    assert main([str(other), str(run_dir)], "usage") == 1
    assert "holds no reply" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["compare.py", "judge.py", "mos.py"])
def test_help_is_light(script: str) -> None:
    """Nobody should wait for numpy and nltk to be told how to call it."""
    command = [sys.executable, "-X", "importtime", str(ROOT / "eval" / script), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert result.returncode == 0
    assert f"python eval/{script} " in result.stdout
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert not imported & {"torch", "transformers", "numpy", "nltk"}

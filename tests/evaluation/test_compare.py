"""Two runs beside each other: only over the same dialogues, with every metric that both have."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from omnichat.config import RunConfig
from omnichat.dialogue import DataError, Reply
from omnichat.evaluation.compare import compare_runs, print_comparison
from omnichat.evaluation.compare_command import main
from omnichat.evaluation.judging import JUDGE, JUDGEMENTS, Judge, questions
from omnichat.evaluation.replies import Answer
from tests.evaluation.conftest import write_run

Change = Callable[[list[Answer]], list[Answer]]


@pytest.fixture
def other(tmp_path: Path, answers: list[Answer], config: RunConfig) -> Path:
    """A run that answers everything right."""
    folder = tmp_path / "other"
    folder.mkdir()
    write_run(folder, [replace(answer, reply=answer.reference) for answer in answers], config)
    return folder


def write_verdicts(folder: Path, judge: Judge, answers: list[Answer]) -> None:
    """What eval/judge.py leaves in a run folder."""
    asked = questions(answers, judge)
    lines = [json.dumps({"key": question.key, "score": 3, "reason": "fair"}) + "\n" for question in asked]
    (folder / JUDGEMENTS).write_text("".join(lines))
    (folder / JUDGE).write_text(json.dumps(asdict(judge)))


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


def test_metrics_that_only_one_run_has_or_that_differ_have_a_reason(
    run_dir: Path, other: Path, answers: list[Answer], config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """A judge that rated one run only, another judge, scenes of another store: all else is still compared."""
    judge = Judge("judge-1", 1)
    write_verdicts(run_dir, judge, answers)
    found = compare_runs(run_dir, other, resamples=20)["splits"]["scripts"]["metrics"]
    assert found["gpt_eval"]["reason"] == "B has none"
    assert found["gpt_eval"]["a"] is None
    assert found["bleu"]["difference"] is not None
    write_verdicts(other, Judge("judge-2", 1), [replace(answer, reply=answer.reference) for answer in answers])
    found = compare_runs(run_dir, other, resamples=20)["splits"]["scripts"]["metrics"]
    assert "not the same metric: A " in found["gpt_eval"]["reason"]
    assert "judge:judge-2" in found["gpt_eval"]["reason"]
    changed = [replace(answer, reply=answer.reference) for answer in answers]
    changed[1] = replace(changed[1], scene={**changed[1].scene, "sound": "dog"})
    write_run(other, changed, config)
    compared = compare_runs(run_dir, other, resamples=20)
    assert "not the same ones" in compared["splits"]["scripts"]["metrics"]["sound_accuracy"]["reason"]
    print_comparison(compared)
    assert "right sound named not computed: " in capsys.readouterr().out


def test_turns_without_an_answer_are_counted(
    run_dir: Path, other: Path, answers: list[Answer], config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """They count as wrong, and a reader has to know how many made the difference."""
    write_run(other, [replace(answers[0], reply=Reply(None, ""), failure="too_long"), *answers[1:]], config)
    found = compare_runs(run_dir, other, resamples=20)
    assert found["splits"]["scripts"]["failures"] == [0, 1]
    assert found["splits"]["scripts"]["metrics"]["exact_reply"]["difference"] == pytest.approx(0.25)
    print_comparison(found)
    assert "turns not answered, counted as wrong: A 0, B 1" in capsys.readouterr().out


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

"""GPT-eval through real HTTP against a fake endpoint that misbehaves in every way we know of."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnichat.config import RunConfig
from omnichat.dialogue import DataError
from omnichat.evaluation import judge_command
from omnichat.evaluation.judging import JUDGE, JUDGEMENTS, Judge, case_of, gpt_eval, read_judgements
from omnichat.evaluation.replies import Answer
from omnichat.evaluation.report import write_report
from omnichat.evaluation.score import score_run
from omnichat.evaluation.screen import print_scores
from omnichat.metrics.statistic import Missing, Statistic
from tests.fake_endpoint import Fake, Reply, completion, serve

pytest.importorskip("httpx", reason="httpx (extra `eval`) is not installed")


def rated(number: int, body: dict[str, Any]) -> str:
    """5 for a reply that is the fitting one, else 2."""
    case = json.loads(body["messages"][1]["content"])
    score = 5 if case["reply"] == case["fitting_reply"] else 2
    return json.dumps({"reason": "because", "score": score})


def judge(run_dir: Path, fake: Fake, *arguments: str) -> int:
    """eval/judge.py with little patience."""
    return judge_command.main([str(run_dir), "model=judge-1", f"url={fake.url}", "attempts=3", *arguments], "usage")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr("omnichat.metrics.endpoint.LONGEST_WAIT", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789abcdefghij")


def test_every_reply_is_judged_once_and_never_again(
    run_dir: Path, config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six replies, two of them the same; then scores, report and a second judging need no server at all."""
    with serve(rated) as fake:
        assert judge(run_dir, fake) == 0
        assert len(fake.bodies) == 5
    assert "scripts: 2.75 of 5, n=4" in capsys.readouterr().out
    body, headers = fake.bodies[0], fake.headers[0]
    assert body["model"] == "judge-1"
    assert body["temperature"] == 0
    assert body["response_format"]["json_schema"]["strict"] is True
    assert headers["authorization"] == "Bearer sk-test-0123456789abcdefghij"
    assert "sk-test" not in (run_dir / JUDGEMENTS).read_text() + (run_dir / JUDGE).read_text()
    assert judge(run_dir, fake) == 0
    assert "judge-1: 0 questions" in capsys.readouterr().out
    scores = score_run(run_dir, config)
    entry = scores["metrics"]["gpt_eval"]
    assert entry["value"] == pytest.approx(2.75)
    assert entry["n"] == 4
    assert "judge:judge-1" in entry["signature"]
    print_scores(scores)
    assert "2.75 [" in capsys.readouterr().out
    assert "2.75" in write_report(run_dir, config).read_text()


FAULTS: dict[str, Reply] = {
    "busy": {"status": 429, "headers": {"Retry-After": "0"}},
    "broken server": {"status": 500},
    "cut off": {"record": completion("{}", "judge-1"), "cut": 30},
    "no JSON": {"raw": b"<html>gateway</html>"},
    "no choices": {"record": {"choices": []}},
    "truncated": {"record": completion('{"reason": "be', "judge-1", finish_reason="length")},
    "refusal": {"record": completion(None, "judge-1", refusal="I cannot help with that.")},
    "filter": {"record": completion("", "judge-1", finish_reason="content_filter")},
    "no content": {"record": completion(None, "judge-1")},
    "nonsense": "I would say four out of five.",
    "out of range": '{"reason": "great", "score": 9}',
    "text for a number": '{"reason": "great", "score": "4"}',
    "true for a number": '{"reason": "great", "score": true}',
    "half a point": '{"reason": "great", "score": 3.5}',
    "another key": '{"reason": "great", "score": 4, "bonus": 1}',
    "half of JSON": '{"reason": "great", "score":',
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_is_asked_again(run_dir: Path, fault: str) -> None:
    """Every other request goes wrong; all verdicts come, and none is what the fault said."""
    with serve(lambda number, body: FAULTS[fault] if number % 2 == 0 else rated(number, body)) as fake:
        assert judge(run_dir, fake, "threads=1") == 0
    assert {record["score"] for record in read_judgements(run_dir).values()} == {5, 2}
    assert len({body["seed"] for body in fake.bodies[:2]}) == 2  # the same question is not asked in the same way


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("busy", "busy"),
        ("cut off", "broken_response"),
        ("truncated", "truncated"),
        ("refusal", "refusal"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_reply_without_a_verdict_leaves_no_mean(
    run_dir: Path,
    config: RunConfig,
    answers: list[Answer],
    capsys: pytest.CaptureFixture[str],
    fault: str,
    reason: str,
) -> None:
    """One reply of six is never judged: the command fails and says why, the cell says so; later that one is asked."""

    def script(number: int, body: dict[str, Any]) -> Reply:
        return FAULTS[fault] if "oh oh oh" in body["messages"][1]["content"] else rated(number, body)

    with serve(script) as fake:
        assert judge(run_dir, fake) == 1
    said = capsys.readouterr()
    assert f"1 of 6 verdicts are missing (1 {reason})" in said.err
    assert "of 5, n=" not in said.out
    entry = score_run(run_dir, config)["metrics"]["gpt_eval"]
    assert entry["value"] is None
    assert "1 of 4 replies lack verdicts" in entry["reason"]
    assert score_run(run_dir, config)["splits"]["voices"]["metrics"]["gpt_eval"]["value"] == 5
    with serve(rated) as fake:
        assert judge(run_dir, fake) == 0
        assert len(fake.bodies) == 1


def test_a_server_that_hangs(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is given up after the timeout, by name."""
    from omnichat.metrics.endpoint import Endpoint, NoAnswer
    from omnichat.metrics.judge import SCHEMA, verdict

    with serve(lambda number, body: {"delay": 0.5}) as fake, pytest.raises(NoAnswer) as error:
        Endpoint(fake.url, "judge-1", timeout=0.05, attempts=2).ask([], "verdict", SCHEMA, verdict)
    assert error.value.reason == "timeout"
    assert len(fake.bodies) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_server_that_refuses_is_not_asked_on(run_dir: Path, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong key or model name is wrong for all replies: the first answer of each thread is enough."""
    with serve(lambda number, body: {"status": status}) as fake:
        assert judge(run_dir, fake, "threads=1") == 1
        assert len(fake.bodies) <= 2
    assert f"answers {status}" in capsys.readouterr().err


def test_nobody_listens(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong address ends in a sentence."""
    assert judge(run_dir, Fake(rated, "http://127.0.0.1:9/v1")) == 1
    assert "5 unreachable" in capsys.readouterr().err
    assert judge(run_dir, Fake(rated, "localhost/v1")) == 1
    assert "is no address" in capsys.readouterr().err


def test_agreement_and_estimate(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two runs of the judge that differ by one point on every reply; the estimate asks nothing."""

    def script(number: int, body: dict[str, Any]) -> str:
        record = json.loads(rated(number, body))
        return json.dumps({**record, "score": record["score"] - (body["seed"] >= 3)})

    with serve(script) as fake:
        assert judge(run_dir, fake, "repeats=2", "estimate=true", "price=2.5,10") == 0
        assert not fake.bodies
        out = capsys.readouterr().out
        assert "judge-1: 10 questions, about " in out
        assert " in all" in out
        assert judge(run_dir, fake, "repeats=2") == 0
    assert "two runs of the judge: 0 % the same, 100 % within one, kappa 0.77 (quadratic)" in capsys.readouterr().out


def test_a_verdict_is_of_this_reply_judge_and_rubric(run_dir: Path, answers: list[Answer]) -> None:
    """Another reply, model or rubric must not find the old verdict."""
    with serve(rated) as fake:
        assert judge(run_dir, fake) == 0
    assert isinstance(gpt_eval(run_dir, answers), Statistic)
    (run_dir / JUDGE).write_text(json.dumps({"model": "judge-2", "repeats": 1, "rubric": "x"}))
    assert isinstance(gpt_eval(run_dir, answers), Missing)
    assert case_of(answers[0]) != case_of(answers[1])


def test_a_kill_costs_one_verdict(run_dir: Path) -> None:
    """The line that it cut short is asked again; a line broken otherwise is named."""
    with serve(rated) as fake:
        assert judge(run_dir, fake) == 0
        path = run_dir / JUDGEMENTS
        path.write_bytes(path.read_bytes()[:-20])
        assert judge(run_dir, fake) == 0
        assert len(fake.bodies) == 6
    assert len(read_judgements(run_dir)) == 5
    path.write_text('{"key": "a", "score": 11, "reason": ""}\n' + path.read_text())
    with pytest.raises(DataError, match=rf"{JUDGEMENTS}:1"):
        read_judgements(run_dir)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "RUN: missing"),
        (["RUN"], "model: is missing"),
        (["RUN", "model=m", "mdoel=n"], "did you mean 'model'"),
        (["RUN", "model=m", "price=cheap"], "price: two numbers"),
        (["RUN", "model=m", "repeats=0"], "repeats: must be at least 1"),
        (["RUN", "model=m", "split=nope"], "no replies to nope; there are: scripts, voices"),
        (["/nowhere", "model=m"], "no such folder"),
        (["RUN", "model=m", "schema=perhaps"], "schema: true or false"),
    ],
)
def test_wrong_usage(run_dir: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, with the cure, before anything is asked."""
    assert judge_command.main([one.replace("RUN", str(run_dir)) for one in arguments], "usage") == 2
    assert message in capsys.readouterr().err


def test_replies_that_are_missing_are_not_judged(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mean over half of a set would pass for the set's."""
    lines = (run_dir / "replies.jsonl").read_text().splitlines(keepends=True)
    (run_dir / "replies.jsonl").write_text("".join(lines[1:]))
    with serve(rated) as fake:
        assert judge(run_dir, fake) == 1
        assert not fake.bodies
        assert "incomplete_replies" in capsys.readouterr().err
        assert judge(run_dir, fake, "partial=true") == 0
    assert "scripts (PARTIAL: 3 of 4): " in capsys.readouterr().out


def test_the_judge_is_pinned(run_dir: Path) -> None:
    """judge.json says whose verdicts count."""
    with serve(rated) as fake:
        assert judge(run_dir, fake) == 0
    assert json.loads((run_dir / JUDGE).read_text()) == {
        "model": "judge-1",
        "repeats": 1,
        "rubric": Judge("", 1).rubric,
    }

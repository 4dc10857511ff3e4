"""GPT-eval through real HTTP against a fake endpoint that misbehaves in every way we know of."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import pytest

from omnichat.config import RunConfig
from omnichat.dialogue import DataError
from omnichat.dialogue import Reply as Said
from omnichat.evaluation import judge_command, mos_command
from omnichat.evaluation.compare import compare_runs
from omnichat.evaluation.judging import JUDGE, JUDGEMENTS, Judge, case_of, gpt_eval, questions, read_judgements
from omnichat.evaluation.replies import Answer, writing_alone
from omnichat.evaluation.report import write_report
from omnichat.evaluation.score import score_run
from omnichat.evaluation.screen import print_scores
from omnichat.metrics.judge import VERSION
from omnichat.metrics.statistic import Missing, Statistic
from omnichat.run_folder import REPLIES
from tests.evaluation.conftest import write_run
from tests.fake_endpoint import Fake, Reply, completion, serve

pytest.importorskip("httpx", reason="httpx (extra `eval`) is not installed")


FITTING = ("i am so sorry. think of the market.", "wonderful! enjoy the market. i hear the dog.")


def rated(number: int, body: dict[str, Any]) -> str:
    """5 for a reply that is the fitting one, else 2; with a reason where the schema has one."""
    case = json.loads(body["messages"][1]["content"])
    why = {"reason": "because"} if "reason" in body["response_format"]["json_schema"]["schema"]["required"] else {}
    return json.dumps({**why, "score": 5 if case["reply"]["says"] in FITTING else 2})


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
    "moderation": {"status": 403, "record": {"error": {"message": "your input was flagged", "code": 403}}},
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
    from omnichat.metrics.judge import schema, verdict

    with serve(lambda number, body: {"delay": 0.5}) as fake, pytest.raises(NoAnswer) as error:
        Endpoint(fake.url, "judge-1", timeout=0.05, attempts=2).ask([], "verdict", schema(True), verdict)
    assert error.value.reason == "timeout"
    assert len(fake.bodies) == 2


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (400, "schema=false"),
        (401, "does not take the key in OPENAI_API_KEY"),
        (403, "does not take the key in OPENAI_API_KEY"),
        (402, "has no credit"),
        (404, "no model 'judge-1' there, or a wrong address"),
    ],
)
def test_a_server_that_refuses_is_not_asked_on(
    run_dir: Path, status: int, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong key or model name is wrong for all replies: one sentence, not one for each reply."""
    said = {"status": status, "record": {"error": {"message": "no to sk-test-0123456789abcdefghij"}}}
    with serve(lambda number, body: said) as fake:
        assert judge(run_dir, fake, "threads=1") == 1
        assert len(fake.bodies) == 1
    captured = capsys.readouterr()
    assert f"{fake.url} answers {status}" in captured.err
    assert hint in captured.err
    assert captured.err.count("\n") == 1
    assert "sk-test" not in captured.err + captured.out


def test_a_key_that_is_not_there(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Servers say "unauthorized" for none at all, which sends people to look at a right key."""
    with serve(lambda number, body: {"status": 401}) as fake:
        assert judge(run_dir, fake, "key_env=NO_SUCH_KEY") == 1
    assert "no key was sent, as NO_SUCH_KEY is empty" in capsys.readouterr().err
    assert "authorization" not in fake.headers[0]


def test_a_judge_without_sense_is_given_up(
    tmp_path: Path, answers: list[Answer], config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten questions in a row cost their attempts; the rest is not asked, and what was judged before stays."""
    many = [
        replace(answers[0], id=f"scripts-{number:02d}", reply=replace(answers[0].reply, text=f"well, {number}."))
        for number in range(30)
    ]
    write_run(tmp_path, many, config)
    with serve(lambda number, body: "four, I guess" if number >= 3 else rated(number, body)) as fake:
        assert judge(tmp_path, fake, "threads=1", "attempts=2") == 1
        assert len(fake.bodies) == 3 + 10 * 2
    assert "no verdict on 10 questions in a row, the last: nonsense" in capsys.readouterr().err
    assert len(read_judgements(tmp_path)) == 3
    with serve(rated) as fake:
        assert judge(tmp_path, fake) == 0
        assert len(fake.bodies) == 27


def test_ctrl_c_waits_for_no_answer(run_dir: Path) -> None:
    """A judge that hangs holds each question for minutes, attempt after attempt; what came before stays."""
    program = Path(__file__).parents[2] / "eval" / "judge.py"
    with serve(lambda number, body: rated(number, body) if number < 2 else {"delay": 60}) as fake:
        command = [sys.executable, str(program), str(run_dir), "model=judge-1", f"url={fake.url}", "threads=2"]
        environment = os.environ | {"PYTHONPATH": str(program.parents[1])}
        with subprocess.Popen(command, stdout=PIPE, stderr=STDOUT, text=True, env=environment) as process:
            while len(fake.bodies) < 4 and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=30)  # fails by TimeoutExpired
    assert process.returncode == 1
    assert "interrupted; the same command goes on where it stopped" in said
    assert len(read_judgements(run_dir)) == 2


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
        return json.dumps({**record, "score": record["score"] - (body["seed"] >= 100)})

    with serve(script) as fake:
        assert judge(run_dir, fake, "repeats=2", "estimate=true", "price=2.5,10") == 0
        assert not fake.bodies
        out = capsys.readouterr().out
        assert "judge-1: 10 questions, about " in out
        assert " in all" in out
        assert judge(run_dir, fake, "repeats=2") == 0
    assert "two runs of the judge: 0 % the same, 100 % within one, kappa 0.77 (quadratic)" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["model=judge-2", "temperature=0.7", "reference=true", "reason=false", "repeats=2"])
def test_a_verdict_is_of_this_judge_asked_in_this_way(run_dir: Path, answers: list[Answer], change: str) -> None:
    """What would change it must not find the old one; the old ones stay, for whoever asks as before."""
    with serve(rated) as fake:
        assert judge(run_dir, fake) == 0
        first = gpt_eval(run_dir, answers)
        assert isinstance(first, Statistic)
        assert judge(run_dir, fake, change) == 0
        assert len(fake.bodies) == 10
        second = gpt_eval(run_dir, answers)
        assert isinstance(second, Statistic)
        assert second.signature != first.signature
        assert judge(run_dir, fake) == 0
        assert len(fake.bodies) == 10
    assert case_of(answers[0]) != case_of(answers[1])


def test_a_turn_without_a_reply_scores_the_lowest(tmp_path: Path, answers: list[Answer], config: RunConfig) -> None:
    """It counts as wrong in every score; left out, or asked about, it would be whatever the judge makes of nothing."""
    answers = [replace(answers[0], reply=Said(None, ""), raw="", failure="too_long"), *answers[1:]]
    write_run(tmp_path, answers, config)
    with serve(rated) as fake:
        assert judge(tmp_path, fake) == 0
        assert all(json.loads(body["messages"][1]["content"])["reply"]["says"] for body in fake.bodies)
    found = gpt_eval(tmp_path, answers)
    assert isinstance(found, Statistic)
    assert found.value == pytest.approx((1 + 2 + 2 + 2 + 5 + 5) / 6)


def test_old_judgements_are_not_mixed_with_new_ones(run_dir: Path, answers: list[Answer]) -> None:
    """A folder that an older version judged says so, and is judged anew; its old lines count no more."""
    old = {"split": "scripts", "turn": 3, "repeat": 0, "reason": "old", "score": 1, "served": "judge-1"}
    lines = [{"key": f"{number:064d}", "id": answer.id, **old} for number, answer in enumerate(answers)]
    (run_dir / JUDGEMENTS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run_dir / JUDGE).write_text('{"model": "judge-1", "repeats": 1, "rubric": "omnichat-judge-1"}')
    found = gpt_eval(run_dir, answers)
    assert isinstance(found, Missing)
    assert "judged by the rubric omnichat-judge-1" in found.reason
    with serve(rated) as fake:
        assert judge(run_dir, fake) == 0
        assert len(fake.bodies) == 5
    found = gpt_eval(run_dir, answers)
    assert isinstance(found, Statistic)
    assert found.value == pytest.approx((5 + 2 + 2 + 2 + 5 + 5) / 6)
    # Even where the file names this version, nothing that this version did not ask counts.
    (run_dir / JUDGEMENTS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert isinstance(gpt_eval(run_dir, answers), Missing)


def test_the_protocol_of_the_authors(run_dir: Path, answers: list[Answer], capsys: pytest.CaptureFixture[str]) -> None:
    """Ten warm samples of a bare score, averaged; what is given beside it wins. This server knows no `n`."""

    def script(number: int, body: dict[str, Any]) -> str:
        return json.dumps({"score": 4 if body["seed"] < 500 else 3})

    with serve(script) as fake:
        assert judge(run_dir, fake, "protocol=voxdialogue") == 0
        assert len(fake.bodies) == 50
        assert {body["temperature"] for body in fake.bodies} == {1.5}
        assert {body["seed"] for body in fake.bodies} == set(range(0, 1000, 100))
        assert "fitting_reply" not in fake.bodies[0]["messages"][1]["content"]
        assert fake.bodies[0]["response_format"]["json_schema"]["schema"]["required"] == ["score"]
        assert "scripts: 3.50 of 5, n=4" in capsys.readouterr().out
        found = gpt_eval(run_dir, answers)
        assert isinstance(found, Statistic)
        assert "mean of 10 verdicts" in found.signature
        assert "temperature:1.5|reference:hidden|reason:not asked" in found.signature
        assert judge(run_dir, fake, "protocol=voxdialogue", "repeats=2") == 0
        assert len(fake.bodies) == 50


def several(body: dict[str, Any], *scores: int) -> Reply:
    """As many bare scores as `n` asks for, the given ones in turn."""
    told = [json.dumps({"score": scores[number % len(scores)]}) for number in range(body.get("n", 1))]
    return {"record": completion(told[0], body["model"], *told[1:])}


def test_one_request_asks_for_all_verdicts_on_a_reply(
    run_dir: Path, answers: list[Answer], capsys: pytest.CaptureFixture[str]
) -> None:
    """As the authors' code does: the prompt is sent, and paid for, once. What is there is not asked for again."""
    with serve(lambda number, body: several(body, 4, 2)) as fake:
        price = ("protocol=voxdialogue", "estimate=true", "price=1,0")
        assert judge(run_dir, fake, *price) == 0
        assert "50 verdicts by 5 questions, about" in capsys.readouterr().out
        assert judge(run_dir, fake, "protocol=voxdialogue", "repeats=4") == 0
        assert [body["n"] for body in fake.bodies] == [4] * 5
        assert "scripts: 3.00 of 5, n=4" in capsys.readouterr().out
        assert judge(run_dir, fake, "protocol=voxdialogue") == 0
        assert [body["n"] for body in fake.bodies[5:]] == [6] * 5
        assert {body["seed"] for body in fake.bodies[5:]} == {400}
        records = read_judgements(run_dir).values()
        assert len(records) == 50
        assert sum(record["tokens"][0] for record in records) == 10 * 100  # of each request once
        found = gpt_eval(run_dir, answers)
        assert isinstance(found, Statistic)
        assert found.value == pytest.approx(3)
        assert judge(run_dir, fake, "protocol=voxdialogue") == 0
        assert len(fake.bodies) == 10
        assert judge(run_dir, fake, "repeats=2") == 1  # this judge gives no reason; at temperature 0
        assert all("n" not in body for body in fake.bodies[10:])


def test_the_estimate_is_of_what_is_asked(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten verdicts by one request have ten answers and one prompt to pay for; a server that knows no `n`, ten."""

    def said(*arguments: str) -> list[float]:
        assert judge(run_dir, Fake(rated, "http://127.0.0.1:9/v1"), *arguments, "estimate=true", "price=1,1") == 0
        return [float(one.replace(",", "")) for one in re.findall(r"[\d,]*\d(?:\.\d+)?", capsys.readouterr().out)[1:]]

    _, prompts, answers, _ = said("temperature=1.5", "reason=false")
    verdicts, questions, once, tenfold, *_, singly = said("protocol=voxdialogue")
    assert (verdicts, questions) == (50, 5)
    assert (once, tenfold) == (prompts, 10 * answers)
    assert singly == pytest.approx(10 * prompts, rel=1e-3)


def test_a_server_that_refuses_n_is_asked_for_one_at_a_time(run_dir: Path) -> None:
    """Some say so by a 400, which is the end of a judging only if a plain question gets it too."""

    def script(number: int, body: dict[str, Any]) -> Reply:
        if "n" in body:
            return {"status": 400, "record": {"error": {"message": "n must be 1"}}}
        return several(body, 3)

    with serve(script) as fake:
        assert judge(run_dir, fake, "protocol=voxdialogue", "threads=1", "attempts=1") == 0
        assert len(fake.bodies) == 51
    assert len(read_judgements(run_dir)) == 50


def test_what_is_nonsense_among_several_is_asked_again(run_dir: Path) -> None:
    """Left out, as the authors' code leaves it, a mean would be over however many came."""

    def script(number: int, body: dict[str, Any]) -> Reply:
        if body["n"] == 3:
            return {"record": completion("four", body["model"], '{"score": 5}', '{"score": 11}')}
        return several(body, 3)

    with serve(script) as fake:
        assert judge(run_dir, fake, "temperature=1", "repeats=3", "reason=false", "threads=1") == 0
        assert [body["n"] for body in fake.bodies] == [3, 2] * 5
    assert sorted(record["score"] for record in read_judgements(run_dir).values()) == [3] * 10 + [5] * 5


def test_a_kill_between_requests_costs_what_was_not_answered(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two of three verdicts on a reply are kept when the third never comes, and it alone is asked for later."""

    def script(number: int, body: dict[str, Any]) -> Reply:
        if body["n"] == 3:
            return {"record": completion('{"score": 5}', body["model"], '{"score": 4}', "four")}
        return {"status": 500}

    asked = ("temperature=1", "repeats=3", "reason=false", "threads=1", "split=voices")
    with serve(lambda number, body: script(number, {"n": 1, **body})) as fake:
        assert judge(run_dir, fake, *asked) == 1
    assert "2 of 6 verdicts are missing (2 busy)" in capsys.readouterr().err
    assert len(read_judgements(run_dir)) == 4
    with serve(lambda number, body: several(body, 1)) as fake:
        assert judge(run_dir, fake, *asked) == 0
        assert ["n" in body for body in fake.bodies] == [False, False]


@pytest.mark.parametrize(
    "fault",
    [
        {"raw": b'{"choices": [{"message": {"content": "{}"}}], "usage": {"prompt_tokens": 1e999}}'},
        {"raw": b'{"choices": {"0": 1}}'},
        {"raw": b'{"choices": [5]}'},
        {"raw": b"[" * 100_000},
        '{"reason": ' + "[" * 100_000,
    ],
)
def test_hostile_answers_are_nonsense(run_dir: Path, fault: Reply, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a server sends ends in a code, not in a traceback."""
    with serve(lambda number, body: fault) as fake:
        assert judge(run_dir, fake, "attempts=1", "split=voices") == 1
    assert re.search(r"2 of 2 verdicts are missing \(2 (nonsense|broken_response)\)", capsys.readouterr().err)


@pytest.mark.parametrize("key", ["sk-test-0123456789\r", "sk-test-0123456789\n", "sk-test-“0123456789”"])
def test_a_key_that_can_be_none(
    run_dir: Path, key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read from a file with the end of its line, or pasted with quotes: httpx says so with the key, five times."""
    monkeypatch.setenv("MY_KEY", key)
    with serve(rated) as fake:
        assert judge(run_dir, fake, "key_env=MY_KEY") == 1
        assert not fake.bodies
    said = capsys.readouterr()
    assert "MY_KEY holds what no key can" in said.err
    assert "0123456789" not in said.err + said.out


def test_a_second_judging_is_refused(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both would pay for the same verdicts, and the second takes the first's file away."""
    with serve(rated) as fake, writing_alone(run_dir):
        assert judge(run_dir, fake) == 1
        assert not fake.bodies
    assert "another process writes replies or verdicts" in capsys.readouterr().err


def test_only_verdicts_got_alike_are_compared(
    run_dir: Path, answers: list[Answer], config: RunConfig, tmp_path: Path
) -> None:
    """The difference of two ways to ask would pass for one of two models."""
    other = tmp_path / "other"
    other.mkdir()
    write_run(other, [replace(answer, reply=answer.reference) for answer in answers], config)

    def compared(a: Path, b: Path) -> dict[str, Any]:
        found = compare_runs(a, b, ["scripts"], 20)["splits"]["scripts"]["metrics"]["gpt_eval"]
        assert isinstance(found, dict)
        return found

    with serve(rated) as fake:
        assert judge(run_dir, fake) == 0
        assert [compared(*pair)["reason"] for pair in ((run_dir, other), (other, run_dir))] == [
            "B has none",
            "A has none",
        ]
        assert judge(other, fake, "temperature=1") == 0
        found = compared(run_dir, other)
        assert found["difference"] is None
        assert "temperature:0|" in found["reason"]
        assert "temperature:1|" in found["reason"]
        assert judge(other, fake) == 0
        assert compared(run_dir, other)["difference"] == pytest.approx(2.75 - (5 + 5 + 5 + 2) / 4)


@pytest.mark.parametrize(
    ("scene", "criterion"),
    [
        ({"scenario": "emotion"}, "emotion"),
        ({"scenario": "audio", "sound": "dog"}, "sounds"),
        ({"scenario": "music", "caption": "slow piano"}, "music"),
        ({"script": "12"}, "plain"),
        ({"scenario": "interruption"}, "plain"),
    ],
)
def test_the_scene_says_what_a_reply_is_rated_for(answers: list[Answer], scene: dict[str, str], criterion: str) -> None:
    """A reply to a dialogue without any sound must not lose points for not speaking of one."""
    [asked] = questions([replace(answers[0], scene=scene)], Judge("m"))
    assert asked.criterion == criterion
    shown = json.loads(asked.messages[1]["content"])
    assert all(value in json.dumps(shown["heard"]) for name, value in scene.items() if name in ("sound", "caption"))


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
        (["RUN", "model=m", "protocol=mine"], "protocol: one of voxdialogue"),
        (["RUN", "model=m", "temperature=hot"], "temperature: a number from 0 to 2"),
        (["RUN", "model=m", "temperature=nan"], "temperature: a number from 0 to 2"),
        (["RUN", "model=m", "temperature=3"], "temperature: a number from 0 to 2"),
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
    assert json.loads((run_dir / JUDGE).read_text()) == asdict(Judge("judge-1", 1, 0.0, False, True, VERSION))


@pytest.mark.parametrize(
    "content", ["", "[]", '{"model": "m", "repeats": 0}', '{"model": 1}', '{"model": "m", "temperature": "0"}']
)
def test_a_broken_judge_file_is_named(run_dir: Path, answers: list[Answer], content: str) -> None:
    """Not with a traceback when the run is scored."""
    (run_dir / JUDGE).write_text(content)
    with pytest.raises(DataError, match=r"judge\.json: .*run eval/judge\.py again"):
        gpt_eval(run_dir, answers)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no replies are here"),
        ("", "holds no reply"),
        ('{"id": "a"}\n', "lacks a field"),
        ('{"id": "a", "spl', "the last line was cut short"),
        ("\xff\xfe\n", "not JSON"),
    ],
)
def test_without_whole_replies_there_is_no_judging(
    run_dir: Path, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of a run's replies rated, or shown to listeners, would pass for all: both commands say what is wrong."""
    (run_dir / REPLIES).unlink()
    if content is not None:
        (run_dir / REPLIES).write_text(content)
    with serve(rated) as fake:
        assert judge(run_dir, fake) == 1
        assert not fake.bodies
    assert message in capsys.readouterr().err
    assert mos_command.main(["page", str(run_dir), f"out={run_dir / 'mos'}", "samples=1"], "usage") == 1
    assert message in capsys.readouterr().err
    assert not (run_dir / "mos").exists()

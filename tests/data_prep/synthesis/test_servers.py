"""The chain with a server that misbehaves: nothing is lost, nothing is paid twice, all of it stands in the report."""

import json
from io import StringIO
from pathlib import Path

import pytest

from data_prep.synthesis.__main__ import main
from data_prep.synthesis.ledger import Ledger
from tests.data_prep.synthesis.fakes.author import Author
from tests.data_prep.synthesis.fakes.server import FakeServer

SPEAKERS = [{"name": f"{name} {gender}", "gender": gender} for gender in ("male", "female") for name in ("one", "two")]
FAULTS = ["500", "429", "reset", "html", "empty", "garbage", "silence", "clipped", "long", "short", "no_samples", "400"]


def test_every_fault_of_a_server_is_retried_or_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fifth of all answers is bad: the corpus is whole, and a second run asks for nothing again."""
    out = tmp_path / "run"
    with FakeServer() as server:
        faulty = iter(FAULTS * 20)
        server.faults = [next(faulty) if number % 5 == 2 else "" for number in range(600)]
        recipe = {
            "name": "served",
            "scripts": 12,
            "splits": {"train": 0.75, "test": 0.25},
            "writing": {"history_turns": [2]},
            "speech": {
                "kind": "openai",
                "server": {
                    "endpoints": [f"{server.address}/v1"],
                    "backoff": 0.01,
                    "speakers": [
                        {"name": name, "gender": gender, "unseen": name.startswith("new")}
                        for gender in ("male", "female")
                        for name in (f"one {gender}", f"two {gender}", f"new {gender}", f"newer {gender}")
                    ],
                },
            },
            "execution": {"executor": "inline"},
        }
        (tmp_path / "served.yaml").write_text(json.dumps(recipe))  # JSON is YAML
        assert main(["run", str(out), f"recipe={tmp_path / 'served.yaml'}"]) == 0
        spoken = len(server.calls)
        assert main(["resume", str(out)]) == 0
        assert len(server.calls) == spoken
    with Ledger(out / "ledger.sqlite") as ledger:
        counts = ledger.counts("speak")
        refused = {reason for (text,) in ledger.query("SELECT refusals FROM items") for reason in json.loads(text)}
        assert counts["pending"] == counts["leased"] == 0
        mixed = ledger.counts("mix")["done"]
        lost = sum(1 for found in ledger.results("conversation") if found.reason)
    assert mixed + lost == 36
    assert mixed >= 30
    assert {"tts_silent", "tts_clipped", "dur_ratio", "tts_format"} <= refused
    report = (out / "report.md").read_text()
    assert all(f"| {reason} |" in report for reason in refused)
    assert main(["verify", str(out)]) == 0
    capsys.readouterr()


def refused_once(out: Path, server: FakeServer, named: str, route: str, status: str, said: str) -> str:
    """Run until the server refuses, look at what is kept, mend the server, run the same again; what was printed."""
    server.after[route] = [*[""] * 3, *[status] * 1000]
    with pytest.MonkeyPatch.context() as patch, StringIO() as printed:
        patch.setattr("sys.stderr", printed)
        assert main(["run", str(out), named]) == 1
        error = printed.getvalue()
    assert error.count("error:") == 1
    assert f"{server.address}/v1/{route} answers status {status}" in error
    assert said in error
    assert "nothing is lost" in error
    with Ledger(out / "ledger.sqlite") as ledger:
        assert ledger.query("PRAGMA integrity_check") == [("ok",)]
        counts = dict(ledger.query("SELECT status, count(*) FROM items GROUP BY status"))
    assert "rejected" not in counts
    assert "leased" not in counts
    assert counts["pending"] > 0
    server.after.clear()
    calls = len(server.calls)
    assert main(["run", str(out), named]) == 0
    assert len(server.calls) > calls
    with Ledger(out / "ledger.sqlite") as ledger:
        assert set(dict(ledger.query("SELECT status, count(*) FROM items GROUP BY status"))) == {"done"}
    return error


@pytest.mark.parametrize("executor", ["inline", "local"])
@pytest.mark.parametrize(
    ("route", "status", "said"),
    [
        ("audio/speech", "401", "the key is from the environment variable THE_KEY: is it right"),
        ("audio/transcriptions", "403", "the key is from the environment variable THE_KEY: is it right"),
        ("audio/speech", "404", "no such route or model there"),
    ],
)
def test_a_server_that_refuses_everything_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str, route: str, status: str, said: str
) -> None:
    """A key that is revoked halfway would reject item after item; the same command goes on when it is mended."""
    monkeypatch.setenv("THE_KEY", "very-private-value")
    with FakeServer() as server:
        endpoint = {"endpoints": [f"{server.address}/v1"], "backoff": 0.01, "api_key_env": "THE_KEY"}
        recipe = {
            "name": "served",
            "scripts": 3,
            "splits": {"train": 1.0},
            "writing": {"history_turns": [2]},
            "speech": {"kind": "openai", "server": {**endpoint, "speakers": SPEAKERS}},
            "gates": {"recogniser": {"kind": "http", "server": endpoint}},
            "execution": {"executor": executor, "workers": 1},
        }
        (tmp_path / "served.yaml").write_text(json.dumps(recipe))
        error = refused_once(tmp_path / "run", server, f"recipe={tmp_path / 'served.yaml'}", route, status, said)
    assert "very-private-value" not in error + (tmp_path / "run" / "ledger.sqlite").read_bytes().decode(errors="ignore")


def test_a_language_model_that_refuses_everything_stops_the_run(tmp_path: Path) -> None:
    """The same for the writer: no script is given up for a wrong key."""
    topics = tmp_path / "topics.txt"
    topics.write_text("a long journey\nreading\nbreakfast\nthe weather\n")
    with FakeServer(author=Author()) as server:
        endpoint = {"endpoints": [f"{server.address}/v1"], "backoff": 0.01}
        recipe = {
            "name": "written",
            "scripts": 6,
            "splits": {"train": 1.0},
            "writing": {"writer": "llm", "history_turns": [2], "topics": str(topics)},
            "chat": {**endpoint, "model": "one", "concurrency": 1},
            "speech": {"kind": "openai", "server": {**endpoint, "speakers": SPEAKERS}},
            "execution": {"executor": "inline"},
        }
        (tmp_path / "written.yaml").write_text(json.dumps(recipe))
        said = "no key was sent: name the environment variable that holds one in api_key_env"
        refused_once(tmp_path / "run", server, f"recipe={tmp_path / 'written.yaml'}", "chat/completions", "401", said)

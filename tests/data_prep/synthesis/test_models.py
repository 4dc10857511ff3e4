"""The chain with a language model that misbehaves: scripts come out, retries end, every fault has its row."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_prep.synthesis.__main__ import main
from data_prep.synthesis.contracts import Script
from data_prep.synthesis.ledger import Ledger
from tests.data_prep.synthesis.fakes.author import Author
from tests.data_prep.synthesis.fakes.server import FakeServer

pytest.importorskip("espeakng_loader", reason="the embedded engine is not installed: pip install -e '.[tts]'")

# What a third of the answers are, and by what reason that is refused.
SCRIPT_FAULTS = {
    "truncated_json": "llm_json",
    "speaker_order": "speaker_order",
    "branches_alike": "branches_alike",
    "refusal": "llm_refusal",
    "429": "llm_http",
    "timeout": "llm_timeout",
}
TURN_FAULTS = ("truncated_json", "other_key", "refusal", "429", "poor")


def recipe(path: Path, server: FakeServer, writing: dict[str, Any], **chat: Any) -> str:
    """The argument that names a recipe with this writer, spoken by espeak-ng."""
    values = {
        "name": "written",
        "scripts": 12,
        "splits": {"train": 0.75, "test": 0.25},
        "writing": {"writer": "llm", "history_turns": [2], **writing},
        "chat": {"model": "one", "endpoints": [f"{server.address}/v1"], "retries": 0, "timeout": 4, **chat},
        "execution": {"executor": "inline"},
    }
    path.write_text(json.dumps(values))  # JSON is YAML
    return f"recipe={path}"


def refusals(out: Path, stage: str) -> Counter[str]:
    """Reasons of all attempts that were refused."""
    with Ledger(out / "ledger.sqlite") as ledger:
        rows = ledger.query("SELECT refusals FROM items WHERE stage = ?", stage)
    return Counter(reason for (text,) in rows for reason in json.loads(text))


def report_rows(out: Path) -> dict[str, list[str]]:
    """The report's table of refusals by reason: meaning, items, attempts."""
    text = (out / "report.md").read_text().partition("## Refusals")[2].partition("## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows[2:]}


def test_a_third_of_the_answers_is_unusable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every script is written, each fault costs one call and stands in the report, and resume asks nothing."""
    out, kinds = tmp_path / "run", list(SCRIPT_FAULTS)
    author = Author(lambda number: kinds[number // 3 % len(kinds)] if number % 3 == 2 else "")
    topics = tmp_path / "topics.txt"
    topics.write_text("a long journey\nreading\nbreakfast\nthe weather\n")
    with FakeServer(author=author) as server:
        named = recipe(tmp_path / "written.yaml", server, {"topics": str(topics)})
        assert main(["run", str(out), named, "scripts=16"]) == 0
        calls = len(server.calls)
        assert main(["resume", str(out)]) == 0
        assert len(server.calls) == calls
    assert {call["model"] for _, call in server.calls} == {"one"}
    with Ledger(out / "ledger.sqlite") as ledger:
        assert ledger.counts("scripts") == {"pending": 0, "leased": 0, "done": 16, "rejected": 0}
        repeated = sum(1 for found in ledger.results("deduplicate") if found.reason)
        assert ledger.counts("mix")["done"] == 3 * (16 - repeated)
        (tokens,) = ledger.query("SELECT sum(tokens_out) FROM items WHERE stage = 'scripts'")[0]
    found = refusals(out, "scripts")
    assert set(author.met) == set(SCRIPT_FAULTS)
    wanted = Counter(SCRIPT_FAULTS[fault] for fault in author.met)
    shared = {"llm_http", "llm_timeout"}  # an endpoint that fails is left alone for a while, which others meet too
    assert {reason: n for reason, n in found.items() if reason not in shared} == {
        reason: n for reason, n in wanted.items() if reason not in shared
    }
    assert all(found[reason] >= wanted[reason] for reason in shared)
    assert 16 + wanted.total() <= calls <= 16 + found.total()
    unread = ("429", "timeout", "refusal")  # no usage comes with those
    assert tokens == 12 * (16 + sum(fault not in unread for fault in author.met))
    rows = report_rows(out)
    assert {reason: rows[reason][1:] for reason in found} == {reason: ["0", str(n)] for reason, n in found.items()}
    assert main(["verify", str(out)]) == 0
    capsys.readouterr()


def test_what_a_model_always_declines_is_given_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One topic that no model will touch costs its attempts, once, and none of the other scripts."""
    out, topics = tmp_path / "run", tmp_path / "topics.txt"
    topics.write_text("reading\nbreakfast\n")

    class Prudish(Author):
        def fault(self, fields: Any) -> str:
            super().fault(fields)
            return "refusal" if "breakfast" in fields["messages"][1]["content"] else ""

    with FakeServer(author=Prudish()) as server:
        writing = {"topics": str(topics), "max_attempts": 3}
        assert main(["run", str(out), recipe(tmp_path / "written.yaml", server, writing), "scripts=4"]) == 0
        assert len(server.calls) == 2 + 2 * 3
        assert main(["resume", str(out)]) == 0
        assert len(server.calls) == 2 + 2 * 3
        seeds = [call["seed"] for _, call in server.calls]
        assert len(set(seeds)) == len(seeds)
        assert main(["retry", str(out), "--reason", "llm_refusal"]) == 0
        assert len(server.calls) == 2 + 2 * 3 + 2 * 3
        assert len({call["seed"] for _, call in server.calls}) == len(server.calls)
    assert report_rows(out)["llm_refusal"][1:] == ["2", "12"]
    with Ledger(out / "ledger.sqlite") as ledger:
        assert ledger.counts("scripts") == {"pending": 0, "leased": 0, "done": 2, "rejected": 2}
    capsys.readouterr()


def test_two_models_talk_and_one_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A turn that fails is asked for again by itself; a dialogue that the judge refuses is written anew."""
    out = tmp_path / "run"
    author = Author(lambda number: TURN_FAULTS[number // 5 % len(TURN_FAULTS)] if number % 5 == 4 else "")
    with FakeServer(author=author) as server, FakeServer(author=author) as second:
        writing = {"recipe": "deepdialogue", "models": ["one", "other"], "history_turns": [1, 2, 3]}
        named = recipe(
            tmp_path / "written.yaml", server, writing, concurrency=1, endpoints_of={"other": [f"{second.address}/v1"]}
        )
        assert main(["run", str(out), named]) == 0
        calls = len(server.calls + second.calls)
        assert main(["resume", str(out)]) == 0
        assert len(server.calls + second.calls) == calls
    assert {call["model"] for _, call in server.calls} == {"one"}
    assert {call["model"] for _, call in second.calls} == {"other"}
    with Ledger(out / "ledger.sqlite") as ledger:
        assert ledger.counts("scripts") == {"pending": 0, "leased": 0, "done": 12, "rejected": 0}
        scripts = [Script.model_validate_json(found.output) for found in ledger.results("scripts") if found.output]
        assert ledger.counts("mix")["done"] == 12
        (counted,) = ledger.query("SELECT sum(calls) FROM items WHERE stage = 'scripts'")[0]
    assert counted == calls
    assert {len(script.history) for script in scripts} == {1, 2, 3}
    models = Counter(author.asked)
    assert {model for model, kind in models if kind == "judge"} == {"one"}
    assert models["other", "turn"] >= 12
    assert models["one", "turn"] >= 12
    assert set(author.met) == set(TURN_FAULTS)
    judged = sum(count for (_, kind), count in models.items() if kind == "judge")
    found = refusals(out, "scripts")
    assert judged == 12 + found["judge"] + sum(found[reason] for reason in ("llm_json", "llm_refusal", "llm_http"))
    assert found["judge"] > 0
    assert report_rows(out)["judge"][1:] == ["0", str(found["judge"])]
    capsys.readouterr()

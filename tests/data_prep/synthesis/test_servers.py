"""The chain with a server that misbehaves: nothing is lost, nothing is paid twice, all of it stands in the report."""

import json
from pathlib import Path

import pytest

from data_prep.synthesis.__main__ import main
from data_prep.synthesis.ledger import Ledger
from tests.data_prep.synthesis.fakes.server import FakeServer

FAULTS = ["500", "429", "reset", "html", "empty", "garbage", "silence", "clipped", "long", "short", "no_samples", "401"]


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

"""What people decided by ear comes back into the run."""

import json
from pathlib import Path

import pytest

from data_prep.synthesis.decisions import DecisionError, parse_decisions, read_decisions, take_in
from data_prep.synthesis.ledger import LEDGER_FILE, Ledger

SCRIPTS = {"a-0": 0, "a-1": 0, "b-0": 1}


def saved(path: Path, **decisions: dict[str, object]) -> Path:
    path.write_text(json.dumps({"run": "x", "decisions": {k.replace("_", "-"): v for k, v in decisions.items()}}))
    return path


def test_each_refusal_asks_for_another_take_once(tmp_path: Path) -> None:
    """Two branches of a script whose words are refused are one refusal; a second file is a second one."""
    words = {"verdict": "refused", "part": "words", "note": "odd"}
    file = saved(tmp_path / "d.json", a_0=words, a_1=words, b_0={"verdict": "refused", "part": None})
    with Ledger(tmp_path / LEDGER_FILE) as ledger:
        take_in(ledger, parse_decisions(file), SCRIPTS)
        accepted = saved(tmp_path / "e.json", a_0={"verdict": "accepted"}, b_0={"verdict": "refused", "part": "speech"})
        take_in(ledger, parse_decisions(accepted), SCRIPTS)
        decisions = read_decisions(ledger)
    assert decisions.take("words", "0") == 1
    assert decisions.take("words", "1") == 0
    assert decisions.take("speech", "b-0") == 2
    assert decisions.take("sound", "b-0") == 0
    assert decisions.verdicts["a-0"].verdict == "accepted"
    assert decisions.verdicts["a-1"].note == "odd"


def test_a_foreign_file_is_named(tmp_path: Path) -> None:
    """A wrong file must not be half taken in."""
    with Ledger(tmp_path / LEDGER_FILE) as ledger:
        for text in ("{", "[]", '{"decisions": {"a": {"verdict": "maybe"}}}', '{"decisions": 3}'):
            (tmp_path / "d.json").write_text(text)
            with pytest.raises(DecisionError, match=r"d\.json: is not a file that the pilot's page saved"):
                parse_decisions(tmp_path / "d.json")
        file = saved(tmp_path / "d.json", c_0={"verdict": "accepted"})
        with pytest.raises(DecisionError, match="1 dialogues are not in this run, the first is 'c-0'"):
            take_in(ledger, parse_decisions(file), SCRIPTS)
        assert read_decisions(ledger).verdicts == {}

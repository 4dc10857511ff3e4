"""The ledger's own rules: ids, leases, what is wanted, what is opened again."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_prep.synthesis.leases import Lease, born, living_drivers, lost_drivers
from data_prep.synthesis.ledger import LEDGER_FILE, Item, Ledger, LedgerError
from data_prep.synthesis.seeds import Namer, generator
from data_prep.synthesis.stage import Cost
from data_prep.synthesis.work import Outcome
from tests.data_prep.synthesis.stages import Sing, Word, items


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    with Ledger(tmp_path / LEDGER_FILE) as ledger:
        ledger.want("sing", items(Sing(tmp_path / "calls"), [Word(text=str(number)) for number in range(10)]))
        yield ledger


def done(name: str, **more: object) -> Outcome:
    return Outcome(name, "done", output='{"blob": "x"}', attempts=1, cost=Cost(calls=1), **more)  # type: ignore[arg-type]


def test_an_id_holds_all_that_changes_the_result(tmp_path: Path) -> None:
    """Otherwise a new engine's run would take over the old one's recordings."""
    stage, word = Sing(tmp_path), Word(text="a")
    newer = Sing(tmp_path)
    newer.version = "2"  # type: ignore[misc]
    ids = {
        Namer(stage, 0)(word),
        Namer(stage, 1)(word),
        Namer(stage, 0)(word, take=1),
        Namer(stage, 0)(Word(text="b")),
        Namer(Sing(tmp_path, key="b"), 0)(word),
        Namer(newer, 0)(word),
    }
    assert len(ids) == 6
    assert {len(name) for name in ids} == {20}
    assert Namer(Sing(tmp_path / "elsewhere", concurrency=9), 0)(word) in ids  # neither where nor how many at once


def test_randomness_belongs_to_seed_item_and_attempt() -> None:
    """Streams that met would make two items alike."""
    keys = [(0, "0" * 20, 0), (1, "0" * 20, 0), (0, "f" * 20, 0), (0, "0" * 19 + "1", 0), (0, "0" * 20, 1)]
    keys += [(0, "f" * 15 + "e" + "f" * 4, 0), (2**64 - 1, "f" * 20, 0), (2**63 + 1, "f" * 20, 0)]
    draws = [generator(*key).random(1000) for key in keys]
    assert len(np.unique(np.concatenate(draws))) == 8000
    assert np.array_equal(draws[0], generator(*keys[0]).random(1000))


def test_claims_come_in_order_and_once(ledger: Ledger) -> None:
    """An item that two drivers hold is made twice."""
    first, second = ledger.claim("sing", "a", 4), ledger.claim("sing", "b", 100)
    assert [json.loads(task.input)["text"] for task in first] == ["0", "1", "2", "3"]
    assert len(second) == 6
    assert ledger.claim("sing", "a", 5) == []


def test_a_result_that_comes_too_late_is_dropped(ledger: Ledger) -> None:
    """A driver that slept through its lease must not write over who took its place."""
    (task,) = ledger.claim("sing", "slow", 1)
    ledger.reap(["slow"])
    (again,) = ledger.claim("sing", "quick", 1)
    assert again == task
    assert ledger.commit("slow", [done(task.id, worker="slow")]) == 0
    assert ledger.commit("quick", [done(task.id, worker="quick")]) == 1
    assert ledger.commit("quick", [done(task.id, worker="quick")]) == 0
    assert ledger.query("SELECT worker, calls FROM items WHERE id = ?", task.id) == [("quick", 1)]


def test_a_lease_lapses_when_its_driver_does(ledger: Ledger) -> None:
    """Work of a dead node must come back, and that of a living one must not."""
    script = (
        "import sys, time; from pathlib import Path; from data_prep.synthesis.leases import Lease; "
        "lease = Lease(Path(sys.argv[1]), 1000); print(lease.name, flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(ledger.path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        with Lease(ledger.path, 1000) as lease:
            ledger.claim("sing", lease.name, 2)
            ledger.claim("sing", name, 3)
            assert set(living_drivers(ledger.connection)) == {lease.name, name}
            assert ledger.reap(lost_drivers(ledger.connection)) == 0
            other.kill()
            other.wait()
            assert ledger.reap(lost_drivers(ledger.connection)) == 3
            assert living_drivers(ledger.connection) == [lease.name]
    assert ledger.reap([]) == 2  # without a lease nothing is held


def test_a_lease_of_another_host_is_good_until_it_ends(ledger: Ledger) -> None:
    """Its process cannot be seen from here: only the time tells."""
    until = time.time() + 1000
    ledger.query("INSERT INTO drivers VALUES ('far', 'another-host', 1, '5', ?)", until)
    ledger.claim("sing", "far", 2)
    assert ledger.reap(lost_drivers(ledger.connection)) == 0
    ledger.query("UPDATE drivers SET expires = ?", time.time() - 1)
    assert ledger.reap(lost_drivers(ledger.connection)) == 2


def test_a_lease_is_renewed_while_its_driver_lives(tmp_path: Path) -> None:
    """A long item must not lose its lease half-way."""
    with Ledger(tmp_path / LEDGER_FILE) as ledger, Lease(ledger.path, 0.4):
        first = ledger.query("SELECT expires FROM drivers")[0][0]
        deadline = time.monotonic() + 20
        while ledger.query("SELECT expires FROM drivers")[0][0] == first and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ledger.query("SELECT expires FROM drivers")[0][0] > first


def test_a_process_is_known_by_its_birth() -> None:
    """A pid is soon another process's."""
    assert born(os.getpid()) == born(os.getpid()) != ""
    assert born(2**22 + 1) == ""


def test_what_is_no_longer_wanted_is_kept_but_not_counted(ledger: Ledger, tmp_path: Path) -> None:
    """After a change of config the old items must neither run nor stand in the report, and come back for nothing."""
    (task,) = ledger.claim("sing", "a", 1)
    ledger.commit("a", [done(task.id)])
    other = items(Sing(tmp_path, key="b"), [Word(text="0")])
    assert ledger.want("sing", other) == 1
    assert ledger.counts("sing") == {"pending": 1, "leased": 0, "done": 0, "rejected": 0}
    ledger.want("sing", items(Sing(tmp_path), [Word(text=str(number)) for number in range(10)]))
    assert ledger.counts("sing") == {"pending": 9, "leased": 0, "done": 1, "rejected": 0}


def test_reopened_items_go_on_counting_attempts(ledger: Ledger) -> None:
    """Tried again with the old seed, a deterministic engine would fail the same way."""
    one, two = ledger.claim("sing", "a", 2)
    ledger.commit("a", [Outcome(one.id, "rejected", reason="wer", attempts=10, refusals=("wer",) * 10)])
    ledger.commit("a", [Outcome(two.id, "rejected", reason="tts_silent", attempts=1, refusals=("tts_silent",))])
    assert ledger.reopen("wer", ("other",)) == 0
    assert ledger.reopen("wer", ("sing", "other")) == 1
    (again,) = ledger.claim("sing", "a", 1)
    assert (again.id, again.first_attempt) == (one.id, 10)
    ledger.commit("a", [done(one.id)])
    assert len(json.loads(ledger.query("SELECT refusals FROM items WHERE id = ?", one.id)[0][0])) == 10


def test_verdicts_are_written_anew(ledger: Ledger) -> None:
    """A pure stage is computed in every run; the old verdicts would stay beside the new."""
    verdicts = [(Item(f"duplicate-{number}", number, "{}"), "duplicate" if number else "", "of 0") for number in (0, 1)]
    ledger.settle("deduplicate", verdicts)
    ledger.settle("deduplicate", verdicts[:1])
    assert [(found.number, found.reason) for found in ledger.results("deduplicate")] == [(0, "")]


def test_another_file_is_refused(tmp_path: Path) -> None:
    """A file that happens to have the name must not be written to."""
    path = tmp_path / LEDGER_FILE
    path.write_text("no ledger at all, but long enough to be read as a header" * 50)
    with pytest.raises(LedgerError, match="not a database"):
        Ledger(path)
    path.unlink()
    with Ledger(path) as ledger:
        ledger.set_fact("format", "0")
    with pytest.raises(LedgerError, match="another version"):
        Ledger(path)

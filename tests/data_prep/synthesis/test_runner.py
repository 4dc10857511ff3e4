"""Items through drivers that are killed, workers that die, disks that fill."""

import multiprocessing
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from data_prep.synthesis.blobs import blob_path
from data_prep.synthesis.executors import Executor, Inline, Job, Local
from data_prep.synthesis.leases import Lease
from data_prep.synthesis.ledger import LEDGER_FILE, Ledger
from data_prep.synthesis.runner import DiskFull, run_stage
from data_prep.synthesis.serve import StageFailed, serve
from tests.data_prep.synthesis.stages import Sing, Sung, Word, items, results

KINDS: dict[str, type[Executor]] = {"inline": Inline, "local": Local}
MIXED = [
    *(Word(text=f"word {number}") for number in range(20)),
    *(Word(text=f"again {number}", then=f"retry {number}") for number in range(1, 6)),
    Word(text="no", then="reject"),
    Word(text="bug", then="raise"),
]


def drive(
    folder: Path, stage: Sing, words: list[Word], kind: str, workers: int = 2
) -> list[tuple[str, str | None, str]]:
    with Ledger(folder / LEDGER_FILE) as ledger, Lease(ledger.path) as lease:
        ledger.want("sing", items(stage, words))
        run_stage(ledger, lease, Job(stage, 7, folder / "blobs", workers), KINDS[kind])
        return results(ledger)


@pytest.mark.parametrize(("kind", "concurrency"), [("inline", 1), ("inline", 5), ("local", 1), ("local", 5)])
def test_every_executor_gives_the_same(kind: str, concurrency: int, tmp_path: Path) -> None:
    """A result that hung on workers, order or what ran beside it could not be made again."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    found = drive(tmp_path / "a", Sing(tmp_path / "calls", concurrency), MIXED, kind)
    plain = drive(tmp_path / "b", Sing(tmp_path / "plain"), MIXED[::-1], "inline", workers=1)
    assert sorted(found) == sorted(plain)
    reasons = Counter(reason for _, _, reason in found)
    assert reasons == {"": 23, "wer": 2, "tts_silent": 1, "internal": 1}  # four attempts: numbers 0 to 3
    calls = Counter((tmp_path / "calls").read_text().splitlines())
    assert [calls[f"again {number}"] for number in range(1, 6)] == [2, 3, 4, 4, 4]
    assert calls["no"] == calls["bug"] == calls["word 7"] == 1


def test_a_fault_of_the_program_names_its_place(tmp_path: Path) -> None:
    """One bad row must not end the run, nor hide where it went wrong."""
    stage = Sing(tmp_path / "calls")
    drive(tmp_path, stage, [Word(text="bug", then="raise"), Word(text="fine")], "local")
    with Ledger(tmp_path / LEDGER_FILE) as ledger:
        bad, fine = ledger.results("sing")
    assert bad.reason == "internal"
    assert bad.message.startswith("KeyError: 'bug' (stages.py:")
    assert fine.output is not None


def test_an_item_that_kills_its_worker_costs_only_itself(tmp_path: Path) -> None:
    """Engines crash on odd input; those that were in the same worker must not share its fate."""
    words = [Word(text=f"word {number}") for number in range(30)]
    words[4] = words[4].model_copy(update={"then": "die"})
    found = drive(tmp_path, Sing(tmp_path / "calls", concurrency=3, pause=0.01), words, "local")
    assert len(found) == 30
    assert [reason for _, _, reason in found if reason] == ["internal"]
    assert Counter((tmp_path / "calls").read_text().splitlines())["word 4"] == 3


def test_a_stage_that_cannot_open_says_so(tmp_path: Path) -> None:
    """A missing engine is one message, not one per item; and nothing is lost."""
    for kind in KINDS:
        with pytest.raises(StageFailed, match=r"sing: no engine is installed; install one \[tts_engine\]"):
            drive(tmp_path, Sing(tmp_path / "calls", key="no engine"), [Word(text="a")], kind)
    with Ledger(tmp_path / LEDGER_FILE) as ledger:
        assert ledger.counts("sing")["pending"] == 1


@pytest.mark.parametrize("key", ["a", "no engine"])
def test_a_worker_whose_driver_is_gone_ends_quietly(
    key: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A driver that is shot while its workers start must not leave a traceback of each."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    ours.close()
    worker = context.Process(target=serve, args=(theirs, Sing(tmp_path / "calls", key=key), 7, tmp_path / "blobs"))
    worker.start()
    theirs.close()
    worker.join(60)
    assert worker.exitcode == 1
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["inline", "local"])
def test_a_full_disk_stops_and_goes_on(kind: str, tmp_path: Path) -> None:
    """A full disk rejects nothing: the items wait until there is room."""
    room = tmp_path / "room"
    words = [Word(text=f"word {number}", then=f"full {room}" if number == 6 else "") for number in range(12)]
    stage = Sing(tmp_path / "calls")
    with pytest.raises(DiskFull, match=r"No space left on device.*nothing is lost"):
        drive(tmp_path, stage, words, kind)
    with Ledger(tmp_path / LEDGER_FILE) as ledger:
        counts = ledger.counts("sing")
        assert counts["rejected"] == counts["leased"] == 0
        assert counts["pending"] > 0
    room.touch()
    assert [reason for _, _, reason in drive(tmp_path, stage, words, kind)] == [""] * 12


def test_a_ledger_that_cannot_grow_is_whole(tmp_path: Path) -> None:
    """SQLite on a full disk: a clear message, and after room is made the rest."""
    stage, words = Sing(tmp_path / "calls"), [Word(text=f"{number} " + "la " * 300) for number in range(400)]
    with Ledger(tmp_path / LEDGER_FILE) as ledger, Lease(ledger.path) as lease:
        ledger.want("sing", items(stage, words))
        pages = ledger.query("PRAGMA page_count")[0][0]
        ledger.query(f"PRAGMA max_page_count = {pages + 4}")
        with pytest.raises(DiskFull, match="full; free some space, then `resume`"):
            run_stage(ledger, lease, Job(stage, 7, tmp_path / "blobs", 1), Inline)
        ledger.query("PRAGMA max_page_count = 1000000")
        assert ledger.query("PRAGMA integrity_check") == [("ok",)]
        run_stage(ledger, lease, Job(stage, 7, tmp_path / "blobs", 1), Inline)
        assert ledger.counts("sing")["done"] == 400


@pytest.mark.parametrize(
    ("kind", "kills"),
    [("inline", 12), ("local", 5), *(pytest.param(kind, 60, marks=pytest.mark.full) for kind in KINDS)],
)
@pytest.mark.timeout(1800)
def test_killed_at_any_instant_nothing_is_lost_or_done_twice(kind: str, kills: int, tmp_path: Path) -> None:
    """What is done stays done, whenever the driver is shot: calls cost money."""
    stage, draw = Sing(tmp_path / "calls"), random.Random(kind)
    words = [Word(text=f"word {number}") for number in range(40 * kills)]
    with Ledger(tmp_path / LEDGER_FILE) as ledger:
        ledger.want("sing", items(stage, words))
    program = [sys.executable, str(Path(__file__).with_name("driver.py")), str(tmp_path), str(tmp_path / "calls"), kind]
    finished: set[str] = set()
    for _ in range(kills):
        before = Counter(calls(tmp_path))
        with subprocess.Popen(program, stdout=subprocess.PIPE) as driver:
            assert driver.stdout is not None
            assert driver.stdout.readline() == b"driving\n"
            time.sleep(draw.uniform(0, 0.15 if kind == "inline" else 0.6))
            driver.kill()
        time.sleep(0.05)  # its workers see that it is gone
        again = {text for text, count in Counter(calls(tmp_path)).items() if count > before[text]}
        assert not again & finished, "finished items were called again"
        with Ledger(tmp_path / LEDGER_FILE) as ledger:
            assert ledger.query("PRAGMA integrity_check") == [("ok",)]
            found = list(ledger.results("sing"))
        finished = {Word.model_validate_json(result.input).text for result in found}
    found = drive(tmp_path, stage, words, "inline")
    assert len(found) == len(words) == len({name for name, _, _ in found})
    assert all(reason == "" for _, _, reason in found)
    for _, output, _ in found:
        assert output is not None
        assert blob_path(tmp_path / "blobs", Sung.model_validate_json(output).blob).is_file()
    twice = [text for text, count in Counter(calls(tmp_path)).items() if count > 1]
    capacity = KINDS[kind](Job(stage, 7, tmp_path / "blobs", 2 if kind == "local" else 1)).capacity
    assert len(twice) < 2 * capacity * kills  # what was in hand, or not yet written down, when the driver was shot
    assert not [path for path in (tmp_path / "blobs").rglob("*.partial") if path.suffix == ".flac"]


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_several_drivers_share_the_work(tmp_path: Path) -> None:
    """Nodes that work on one ledger must neither wait for each other nor do a thing twice."""
    stage, words = Sing(tmp_path / "calls"), [Word(text=f"word {number}") for number in range(400)]
    with Ledger(tmp_path / LEDGER_FILE) as ledger:
        ledger.want("sing", items(stage, words))
    program = [sys.executable, str(Path(__file__).with_name("driver.py")), str(tmp_path), str(tmp_path / "calls")]
    drivers = [subprocess.Popen([*program, "inline"]) for _ in range(3)]
    assert [driver.wait(120) for driver in drivers] == [0, 0, 0]
    with Ledger(tmp_path / LEDGER_FILE) as ledger:
        assert ledger.counts("sing")["done"] == 400
        assert ledger.query("SELECT count(*) FROM drivers") == [(0,)]
    assert sorted(calls(tmp_path)) == sorted(word.text for word in words)

"""Items on a local Ray."""

from collections import Counter
from pathlib import Path

import pytest

from data_prep.synthesis.executors import Inline, Job
from data_prep.synthesis.leases import Lease
from data_prep.synthesis.ledger import LEDGER_FILE, Ledger
from data_prep.synthesis.ray_executor import OnRay
from data_prep.synthesis.runner import run_stage
from data_prep.synthesis.serve import StageFailed
from tests.data_prep.synthesis.stages import Sing, Word, items, results

pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")
pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]


def drive(folder: Path, stage: Sing, words: list[Word], ray: bool) -> list[tuple[str, str | None, str]]:
    folder.mkdir(exist_ok=True)
    with Ledger(folder / LEDGER_FILE) as ledger, Lease(ledger.path) as lease:
        ledger.want("sing", items(stage, words))
        job = Job(stage, 7, folder / "blobs", 2)
        run_stage(ledger, lease, job, (lambda job: OnRay(job, None)) if ray else Inline)
        return results(ledger)


def test_ray_gives_what_one_process_gives(tmp_path: Path) -> None:
    """Where a result is made must not change it; a bad row and a lost actor cost only themselves."""
    words = [Word(text=f"word {number}") for number in range(40)]
    words += [Word(text="no", then="reject"), Word(text="again", then="retry 2"), Word(text="bug", then="raise")]
    calls = tmp_path / "calls"
    plain = drive(tmp_path / "plain", Sing(tmp_path / "plain calls"), words, ray=False)
    assert drive(tmp_path / "ray", Sing(calls, concurrency=3), words, ray=True) == plain
    deadly = [*words, Word(text="poison", then="die")]
    found = drive(tmp_path / "ray", Sing(calls, concurrency=3), deadly, ray=True)
    assert Counter(reason for _, _, reason in found) == {"": 41, "tts_silent": 1, "internal": 2}
    assert Counter(calls.read_text().splitlines())["poison"] == 3
    assert Counter(calls.read_text().splitlines())["word 7"] == 1


def test_a_stage_that_cannot_open_says_so(tmp_path: Path) -> None:
    """The same message as without Ray."""
    with pytest.raises(StageFailed, match="no engine is installed"):
        drive(tmp_path / "ray", Sing(tmp_path / "calls", key="no engine"), [Word(text="a")], ray=True)

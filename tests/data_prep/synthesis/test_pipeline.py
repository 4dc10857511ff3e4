"""The whole chain with the embedded backends, in small: its results, its shards, its faults."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.synthesis.__main__ import main
from data_prep.synthesis.blobs import blob_path
from data_prep.synthesis.folder import RunFolder
from data_prep.synthesis.ledger import Ledger
from data_prep.synthesis.session import session
from data_prep.synthesis.verify import verify
from omnichat.audio import load_audio
from omnichat.data.info import read_info
from omnichat.data.store import Store

pytest.importorskip("espeakng_loader", reason="the embedded engine is not installed: pip install -e '.[tts]'")

SETTINGS = [
    "recipe=sharechat_audio_mini",
    "scripts=6",
    "splits={train: 0.5, test_voices: 0.5}",
    "writing.history_turns=[2]",
    "execution.executor=inline",
    "execution.workers=1",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be changed."""
    out = tmp_path_factory.mktemp("synthesis") / "run"
    assert main(["run", str(out), *SETTINGS]) == 0
    return out


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A finished run of a test's own."""
    return shutil.copytree(made, tmp_path / "run")


def contents(store: Path) -> dict[str, str]:
    return {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


def calls(out: Path) -> list[tuple[str, str, int, float]]:
    with Ledger(out / "ledger.sqlite") as ledger:
        return sorted(ledger.query("SELECT id, status, attempts, finished FROM items WHERE finished"))


def test_the_store_is_what_training_reads(made: Path) -> None:
    """The chain ends where the others begin."""
    info = read_info(made / "store")
    assert info.splits == {"train": 9, "test_voices": 9}
    store = Store(made / "store" / "train")
    dialogues = [store[row] for row in range(len(store))]
    assert len({dialogue.scene["group"] for dialogue in dialogues}) == 3
    for dialogue in dialogues:
        assert dialogue.turns[-1].role == "assistant"
        heard = [turn for turn in dialogue.turns if turn.role == "user"]
        assert all(turn.audio is not None for turn in heard)
        assert len(load_audio(heard[-1].audio)) == heard[-1].audio.num_samples  # type: ignore[arg-type,union-attr]
        assert dialogue.scene["split"] == "train"
    card = (made / "store" / "README.md").read_text()
    assert "espeak-ng" in card
    assert "| train | 9 |" in card


def test_the_report_has_it_all(made: Path) -> None:
    """It is what one looks at to see whether a run can be used."""
    html, text = (made / "report.html").read_text(), (made / "report.md").read_text()
    for words in ("18 dialogues of 6 scripts", "| speak |", "Engines and thresholds", "seconds_per_character"):
        assert words in text
    assert html.count("<audio") >= 9
    assert "data:audio/flac;base64," in html
    assert len(html) < 5_000_000


def test_nothing_is_made_again(run: Path) -> None:
    """`resume` on a finished run costs nothing, whatever the executor, and packs the same bytes again."""
    before, store = calls(run), contents(run / "store")
    assert main(["run", str(run), *SETTINGS[:-2]]) == 0
    assert calls(run) == before
    shutil.rmtree(run / "store")
    assert main(["resume", str(run)]) == 0
    assert calls(run) == before
    assert contents(run / "store") == store


def test_shards_merged_are_one_run_byte_for_byte(made: Path, tmp_path: Path) -> None:
    """Whoever divides the work over nodes must get the corpus that one node makes."""
    shards = [str(tmp_path / f"part{number}") for number in range(4)]
    for number, shard in enumerate(shards):
        assert main(["run", shard, *SETTINGS, "--shard", f"{number}/4"]) == 0
        assert not (Path(shard) / "store").exists()
    out = tmp_path / "whole"
    assert main(["merge", str(out), *shards]) == 0
    assert contents(out / "store") == contents(made / "store")
    assert main(["verify", str(out)]) == 0


def test_merge_takes_each_shard_once(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing shard would be a hole in the corpus that nobody sees."""
    shards = [str(tmp_path / f"part{number}") for number in range(2)]
    for number, shard in enumerate(shards):
        assert main(["plan", shard, *SETTINGS, "--shard", f"{number}/2"]) == 0
    out = str(tmp_path / "whole")
    assert main(["merge", out, shards[0]]) == 2
    assert "merge takes each shard of a run once; given are 0/2" in capsys.readouterr().err
    assert main(["merge", out, str(made)]) == 2
    assert "is no shard" in capsys.readouterr().err
    assert main(["merge", out, *shards]) == 2
    assert "3 items are not finished" in capsys.readouterr().err


def test_verify_finds_what_is_wrong(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Disks rot, and people tidy up."""
    assert main(["verify", str(run)]) == 0
    with session(RunFolder(run)) as pipeline:
        one, other = list(pipeline.mixed())[:2]
    pieces = [piece for piece in one.pieces if piece is not None]
    path = blob_path(run / "blobs", pieces[0].blob)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    missing = blob_path(run / "blobs", next(p.blob for p in other.pieces[::-1] if p is not None))
    missing.unlink()
    assert main(["verify", str(run)]) == 1
    out = capsys.readouterr().out
    assert f"{path}: damaged" in out
    assert f"{missing}: missing" in out
    assert "2 faults" in out


def test_verify_finds_leaks_and_other_stores(run: Path) -> None:
    """A test on words or voices of training measures memory."""
    with Ledger(run / "ledger.sqlite") as ledger:
        rows = ledger.query("SELECT id, output FROM items WHERE stage = 'mix'")
        mine = next(row for row in rows if json.loads(row[1])["plan"]["brief"]["split"] == "train")
        record = json.loads(mine[1])
        record["plan"]["brief"]["split"] = "test_voices"
        ledger.query("UPDATE items SET output = ? WHERE id = ?", json.dumps(record), mine[0])
        ledger.set_fact("packed", "something else")
    with session(RunFolder(run)) as pipeline:
        faults = verify(pipeline)
    assert any(fault.startswith("leak: script") for fault in faults)
    assert any(fault.startswith("leak: voice") for fault in faults)
    assert any("holds other dialogues than the ledger" in fault for fault in faults)


def test_decisions_of_a_pilot_come_back(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was refused by ear is made anew, and only that; the report has the share that was accepted."""
    assert main(["pilot", str(run), "--dialogues", "4"]) == 0
    page = (run / "pilot.html").read_text()
    assert page.count('class="panel dialogue"') == 4
    assert 'src="blobs/' in page
    assert "localStorage" in page
    with session(RunFolder(run)) as pipeline:
        before = {mixed.plan.id: mixed for mixed in pipeline.mixed()}
    assert main(["resume", str(run)]) == 0
    names = sorted(before)
    file = tmp_path / "decisions.json"
    verdicts = {names[0]: {"verdict": "accepted"}, names[1]: {"verdict": "refused", "part": "speech", "note": "dull"}}
    file.write_text(json.dumps({"decisions": verdicts}))
    assert main(["retry", str(run), "--decisions", str(file)]) == 0
    with session(RunFolder(run)) as pipeline:
        after = {mixed.plan.id: mixed for mixed in pipeline.mixed()}
    assert [name for name in names if after[name] != before[name]] == [names[1]]
    assert "1 (50.0 %)" in (run / "report.md").read_text()
    capsys.readouterr()


def test_estimate_grows_with_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty items decide about a month of GPUs; ten times the scripts are ten times the dialogues."""
    assert main(["estimate", str(run), "--items", "4", "scripts=60", "prices.hour={speak: 2}"]) == 0
    lines = {
        line.split("│")[1].strip(): line.split("│")[2:5] for line in capsys.readouterr().out.splitlines() if "│" in line
    }
    assert [cell.strip() for cell in lines["dialogues"]] == ["180", "180", "180"]
    low, high = (float(cell.split()[0].replace(",", "")) for cell in lines["hours heard"][1:])
    assert 0 < low <= float(lines["hours heard"][0].split()[0]) <= high
    assert float(lines["money"][0]) > 0


def test_wrong_usage_is_told_in_a_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and what would be right."""
    cases = [
        (["retry", str(run), "--reason", "werr"], "did you mean 'wer'?"),
        (["retry", str(run), "--reason", "wer", "--stage", "talk"], "is not one of scripts, speak, mix"),
        (["run", str(run), *SETTINGS, "seed=9"], "seed: 0 -> 9"),
        (["status", str(run / "nowhere")], "holds no run"),
        (["run", str(run / "new")], "recipe: is missing"),
    ]
    for arguments, message in cases:
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert main(["retry", str(run), "--reason", "wer"]) == 0
    assert "0 items" in capsys.readouterr().out


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.full)])
def test_killed_anywhere_it_ends_the_same(kills: int, made: Path, tmp_path: Path) -> None:
    """The corpus of a run that was shot is that of one that was not."""
    out, draw = tmp_path / "run", random.Random(1)
    command = [sys.executable, "-m", "data_prep.synthesis", "run", str(out), *SETTINGS[:-2], "execution.workers=2"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    for _ in range(kills):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment, cwd=tmp_path) as driver:
            deadline = time.monotonic() + draw.uniform(1, 8)
            while time.monotonic() < deadline and driver.poll() is None:
                time.sleep(0.05)
            driver.send_signal(signal.SIGKILL)
    assert main(["run", str(out), *SETTINGS]) == 0
    assert contents(out / "store") == contents(made / "store")
    assert main(["verify", str(out)]) == 0


@pytest.mark.parametrize("command", ["", *"plan run resume status retry verify estimate pilot report merge".split()])
def test_help_has_an_example_and_is_quick(command: str) -> None:
    """--help that loads numpy and an engine is slow; one without an example is no help."""
    arguments = [sys.executable, "-X", "importtime", "-m", "data_prep.synthesis", *command.split(), "--help"]
    root = Path(__file__).parents[3]
    result = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60, cwd=root)
    assert f"python -m data_prep.synthesis {command}" in result.stdout
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if "import time:" in line}
    assert not imported & {"numpy", "pydantic", "torch", "yaml", "soundfile"}

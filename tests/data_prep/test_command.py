"""The command line that all readers share, and what each makes of the recordings at hand."""

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from omnichat.audio import load_audio
from omnichat.data.info import read_info
from omnichat.data.scan import scan
from omnichat.data.store import Store
from omnichat.prompt import Prompt

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT.parent / "shared" / "samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the corpora's recordings are not at ../shared/samples")
READERS = sorted(
    path.stem for path in (ROOT / "data_prep").glob("*.py") if "command.main(" in path.read_text(encoding="utf-8")
)


def command(reader: str, *arguments: object) -> int:
    """What `python -m data_prep.<reader>` with these arguments returns."""
    module: Any = importlib.import_module(f"data_prep.{reader}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["prog", *map(str, arguments)])
        return module.main()


def needed(reader: str) -> tuple[str, ...]:
    return ("--licence", "CC0-1.0") if reader == "table" else ()


def test_there_are_readers() -> None:
    """The tests below find them by how they are written."""
    assert {"dailytalk", "deepdialogue", "sharechat", "sharechat_demo", "styletalk", "table"} <= set(READERS)


@pytest.mark.parametrize("reader", READERS)
def test_help_shows_an_example(reader: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A user must not have to read the code to run it; wrong usage is exit code 2."""
    with pytest.raises(SystemExit) as caught:
        command(reader, "--help")
    assert caught.value.code == 0
    assert f"  python -m data_prep.{reader} " in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        command(reader)
    assert caught.value.code == 2


@pytest.mark.parametrize("reader", READERS)
def test_a_folder_without_the_corpus_fails_with_one_line(
    reader: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, what was expected there, no traceback, no store."""
    (tmp_path / "in").mkdir()
    assert command(reader, tmp_path / "in", tmp_path / "out", *needed(reader)) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'in'}: ")
    assert "expected is" in error or "holds no" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--emotion", "curious"), "--emotion takes LABEL=EMOTION"),
        (("--emotion", "curious=odd"), "an emotion is one of neutral, happy"),
        (("--roles", "first"), "invalid choice: 'first'"),
        (("--workers", "0"), "not a whole number from 1 on"),
        (("--split", "../elsewhere"), "split '../elsewhere' names a folder"),
        (("--split", "splits"), "and not 'splits'"),
        (("--val", "1"), "below 1"),
    ],
)
def test_wrong_usage_is_named(arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 with the option, before anything is read."""
    with pytest.raises(SystemExit) as caught:
        command("deepdialogue", "in", "out", *arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_columns_and_emotions_that_do_not_exist_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt field would leave its column unread; a corpus without labels has none to choose for."""
    with pytest.raises(SystemExit):
        command("table", "in", "out", "--licence", "x", "--column", "txt=said")
    assert "--column txt: FIELD=COLUMN, of dialogue, " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command("sharechat", "in", "out", "--emotion", "sad=none")
    assert "the corpus has no emotions to choose for" in capsys.readouterr().err


def test_every_reader_stands_in_the_table() -> None:
    """Whoever uses a reader must be able to see what it was tried on, and under which licence the corpus is."""
    page = (ROOT / "data_prep" / "README.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert sorted(row.split("`")[1] for row in rows) == READERS
    assert {row.count("|") for row in rows} == {7}
    for link in re.findall(r"\]\(([^)]+)\)", page):
        assert (ROOT / "data_prep" / link).exists(), link


def test_a_store_of_jsonl_keeps_its_own_licence(tmp_path: Path) -> None:
    """What synthesis stated about its engines and recordings must go with the dialogues."""
    (tmp_path / "in").mkdir()
    turns = [{"role": "user", "text": "a"}, {"role": "assistant", "text": "b"}]
    (tmp_path / "in/train.jsonl").write_text(json.dumps({"id": "d", "turns": turns}))
    info = {"name": "mine", "licence": "CC BY 4.0", "source": "here", "splits": {"train": 1}}
    (tmp_path / "in/store.json").write_text(json.dumps(info))
    assert command("sharechat", tmp_path / "in", tmp_path / "out", "--workers", 1) == 0
    made = read_info(tmp_path / "out")
    assert (made.name, made.licence, made.source) == ("mine", "CC BY 4.0", "here")


def test_a_store_stands_alone_with_the_samples_of_its_source(
    tmp_path: Path, prompt: Prompt, capsys: pytest.CaptureFixture[str]
) -> None:
    """The source may go away; a clipped copy would be other data."""
    source = tmp_path / "in"
    for name in ("1_2", "2_2"):
        (source / name).mkdir(parents=True)
        spoken = [
            {"speaker": "LLM1", "text": "hi", "emotion": "curious"},
            {"speaker": "LLM2", "text": "yes", "emotion": "happy"},
        ]
        record = {"domain": "art", "model1": "a", "model2": "b", "conversation": spoken}
        (source / name / f"{name}.json").write_text(json.dumps(record))
    wave = np.concatenate([np.full(8_000, 1.08), np.zeros(4_800), np.full(8_000, 0.5), np.zeros(8_000)])
    soundfile.write(source / "1_2" / "1_2_xtts.wav", wave, 16_000, subtype="FLOAT")
    assert command("deepdialogue", source, tmp_path / "out", "--emotion", "curious=surprised", "--workers", 1) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[1].split() == ["train", "1", "2", "2.00", "2", "0.00"]
    assert "curious        1  50.0% -> surprised  (chosen)  (lossy)" in printed
    assert "2_2/2_2.json: has no 2_2_<voice>.wav beside it" in printed
    (source / "1_2" / "1_2_xtts.wav").unlink()
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    store = Store(moved / "train")
    assert scan(store, prompt, decode=True).faults == ()
    first = store[0].turns[0]
    assert (first.style.emotion, first.meta["emotion"]) == ("surprised", "curious")
    assert first.audio is not None
    assert load_audio(first.audio).max() == pytest.approx(1.08)


@needs_samples
@pytest.mark.parametrize(
    ("reader", "split", "dialogues", "hours"),
    [("sharechat_demo", "test", 12, 0.11), ("deepdialogue", "train", 13, 0.14)],
)
def test_real_recordings_become_a_sound_store(
    reader: str, split: str, dialogues: int, hours: float, tmp_path: Path, prompt: Prompt
) -> None:
    """16 and 24 kHz, PCM_16, PCM_32 and FLOAT, background music: every sample decodes, nothing is lost."""
    samples = SAMPLES / {"sharechat_demo": "sharechatx_demo"}.get(reader, reader)
    assert command(reader, samples, tmp_path / "store", "--split", split, "--workers", 1) == 0
    store = Store(tmp_path / "store" / split)
    result = scan(store, prompt, decode=True)
    assert result.faults == ()
    assert len(result.rows) == dialogues
    turns = [turn for row in range(len(store)) for turn in store[row].turns]
    samples_heard = sum(turn.audio.num_samples for turn in turns if turn.audio is not None)
    assert samples_heard / 16_000 / 3600 == pytest.approx(hours, abs=0.005)

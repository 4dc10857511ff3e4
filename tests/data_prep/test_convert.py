"""From a corpus to a store: the same bytes however it was run, stopped and gone on with."""

import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from data_prep import convert, output, resumable, sharechat, table
from omnichat.audio import load_audio
from omnichat.data import shards
from omnichat.data.corpora.emotions import emotion_map
from omnichat.data.corpora.reading import Choices
from omnichat.data.info import read_info
from omnichat.data.store import Store
from omnichat.dialogue import AudioRef

ROOT = Path(__file__).parents[2]
LICENCE = ("--licence", "CC0-1.0")


def command(module: Any, *arguments: object) -> int:
    """What `python -m data_prep.<module>` with these arguments returns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["prog", *map(str, arguments)])
        return module.main()


def corpus(folder: Path, dialogues: int = 12) -> Path:
    """Dialogues of noise in three splits; every fifth has a recording of no numbers, every seventh none."""
    rng = np.random.default_rng(0)
    (folder / "wavs").mkdir(parents=True)
    lines = ["dialogue,role,text,audio,emotion,group,split"]
    for number in range(dialogues):
        path = folder / "wavs" / f"{number}.wav"
        wave = rng.uniform(-0.5, 0.5, 4_000)
        if number % 7 != 6:
            soundfile.write(path, wave if number % 5 != 4 else wave + np.nan, 16_000, subtype="FLOAT")
        split = ("train", "val", "train", "test")[number % 4]
        lines += [f"d{number},user,hello {number},wavs/{number}.wav,angry,g{number // 2},{split}"]
        lines += [f"d{number},assistant,yes,,happy,g{number // 2},{split}"]
    (folder / "turns.csv").write_text("\n".join(lines) + "\n")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_a_store_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sizes, ids, licence, rejects with their places: broken recordings are found, and stop nothing."""
    source, out = corpus(tmp_path / "in"), tmp_path / "out"
    assert command(table, source, out, *LICENCE, "--origin", "tests", "--workers", 1) == 0
    printed = capsys.readouterr().out
    assert "rejected: 3" in printed
    assert "not_finite      2" in printed
    assert "turns.csv:14: dialogue 'd6': line 14: " in printed
    assert (out / "splits/train.txt").read_text().split() == ["d0", "d2", "d8", "d10"]
    assert (out / "splits/val.txt").read_text().split() == ["d1", "d5"]
    assert (out / "splits/test.txt").read_text().split() == ["d3", "d7", "d11"]
    info = read_info(out)
    assert (info.name, info.licence, info.source) == ("in", "CC0-1.0", "tests")
    assert dict(info.splits) == {"train": 4, "val": 2, "test": 3}
    store = Store(out / "train")
    assert [store[row].id for row in range(len(store))] == ["d0", "d2", "d8", "d10"]
    heard = store[2].turns[0].audio
    assert heard is not None
    assert np.array_equal(load_audio(heard), load_audio(AudioRef(str(source / "wavs/8.wav"), 4_000)))
    assert (out / "rejects.jsonl").read_text().count("\n") == 3
    assert str(tmp_path) not in (out / "rejects.jsonl").read_text()
    assert not (out / ".conversion").exists()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A corpus, and the store that one process makes of it without being stopped."""
    folder = tmp_path_factory.mktemp("reference")
    source = corpus(folder / "in")
    assert command(table, source, folder / "out", *LICENCE, "--workers", 1) == 0
    return source, contents(folder / "out")


def test_two_processes_write_the_same_bytes(reference: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    """Otherwise a store could not be checked against another machine's."""
    source, expected = reference
    assert command(table, source, tmp_path / "out", *LICENCE, "--workers", 2) == 0
    assert contents(tmp_path / "out") == expected


class _Killed(BaseException):
    """What no handler of errors may catch."""


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_stopped_at_every_step_it_goes_on_to_the_same_bytes(
    before: bool, reference: tuple[Path, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just before and just after each file gets its name, until nothing is left to stop."""
    source, expected = reference
    write, steps = resumable.write_whole, 0

    def stopping(path: Path, text: str, stop_at: int, done: list[int]) -> None:
        done.append(1)
        if before and len(done) == stop_at:
            raise _Killed
        write(path, text)
        if not before and len(done) == stop_at:
            raise _Killed

    for stop_at in range(1, 50):
        out, done = tmp_path / f"{stop_at}", list[int]()
        for module in (resumable, convert):
            monkeypatch.setattr(module, "write_whole", lambda path, text, n=stop_at, d=done: stopping(path, text, n, d))
        try:
            assert command(table, source, out, *LICENCE, "--workers", 1) == 0
            break
        except _Killed:
            steps += 1
        monkeypatch.undo()
        assert command(table, source, out, *LICENCE, "--workers", 1) == 0
        assert contents(out) == expected
        shutil.rmtree(out)
    assert steps >= 9  # one piece read, three written, three lists of ids, rejects, the record


@pytest.mark.parametrize(("module", "name"), [(shards, "_describe"), (convert, "finish_store")])
def test_stopped_while_the_store_is_put_together(
    module: Any, name: str, reference: tuple[Path, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With some shards moved into place already, and with all of the store there but what was kept for it."""
    source, expected = reference
    function = getattr(module, name)

    def stopping(*args: Any, **more: Any) -> None:
        function(*args, **more)
        raise _Killed

    monkeypatch.setattr(module, name, stopping)
    with pytest.raises(_Killed):
        command(table, source, tmp_path / "out", *LICENCE, "--workers", 1)
    monkeypatch.undo()
    assert (tmp_path / "out" / ".conversion").exists()
    assert command(table, source, tmp_path / "out", *LICENCE, "--workers", 1) == 0
    assert contents(tmp_path / "out") == expected


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "Ctrl-C"])
def test_stopped_at_random_it_goes_on_to_the_same_bytes(
    how: signal.Signals, reference: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    """Processes and all, at instants nobody chose."""
    source, expected = reference
    line = [sys.executable, "-m", "data_prep.table", str(source), str(tmp_path / "out"), *LICENCE, "--workers", "2"]
    draw = random.Random(int(how))
    stopped = 0
    for _ in range(4):
        started = time.monotonic()
        process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        assert "pieces" in process.stderr.readline()  # before that there is nothing to break
        time.sleep(draw.uniform(0, time.monotonic() - started))
        process.send_signal(how)
        _, error = process.communicate(timeout=120)
        if process.returncode == 0:
            break
        stopped += 1
        assert process.returncode in (130, -how)  # -SIGINT: when all was done, while Python was ending
        assert "Traceback" not in error
        if process.returncode == 130:
            assert "the same command goes on from there" in error
    assert stopped
    assert command(table, source, tmp_path / "out", *LICENCE, "--workers", 2) == 0
    assert contents(tmp_path / "out") == expected


def test_running_again_changes_nothing(
    reference: tuple[Path, dict[str, bytes]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints the same table, and touches no file; with other settings it refuses, unless told to."""
    source, _ = reference
    arguments = (table, source, tmp_path / "out", *LICENCE, "--workers", 1)
    assert command(*arguments) == 0
    first = capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert command(*arguments) == 0
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    other = ("--emotion", "angry=surprised", "--split", "everything")
    assert command(*arguments, *other) == 1
    assert "pass --overwrite [store_exists]" in capsys.readouterr().err
    assert command(*arguments, *other, "--overwrite") == 0
    assert "surprised (chosen)" in capsys.readouterr().out.replace("  ", " ")
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["everything", "splits"]
    assert Store(tmp_path / "out" / "everything")[0].turns[0].style.emotion == "surprised"


@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip"])
def test_an_archive_is_unpacked_and_leaves_nothing_behind(
    name: str, reference: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    """A corpus as it was downloaded: the same dialogues, whatever it was packed in."""
    source, expected = reference
    if name.endswith("zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as packed:
            for path in sorted(source.rglob("*.*")):
                packed.write(path, f"in/{path.relative_to(source)}")
    else:
        with tarfile.open(tmp_path / name, "w:gz") as packed_tar:
            packed_tar.add(source, "in")
    arguments = (table, tmp_path / name, tmp_path / "out", *LICENCE, "--name", "in", "--workers", 1)
    assert command(*arguments) == 0
    made = contents(tmp_path / "out")
    assert set(made) == set(expected)
    for key in set(made) - {"conversion.json", "rejects.jsonl"}:  # those tell where they come from
        assert made[key] == expected[key], key
    assert command(*arguments) == 0  # and does not unpack again
    assert contents(tmp_path / "out") == made


def test_a_hostile_archive_leaves_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One message that names the member, exit code 1, nothing written."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        packed.writestr("../evil.csv", "dialogue,role,text\n")
    assert command(table, tmp_path / "x.zip", tmp_path / "out", *LICENCE) == 1
    assert "x.zip: member '../evil.csv': leads out of the folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]
    assert command(table, tmp_path / "x.zip", tmp_path / "out", *LICENCE, "--audio", "reference") == 1


def test_links_out_of_a_corpus_need_leave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A link in a download could show any file of the machine; one's own are allowed by option."""
    source = corpus(tmp_path / "in", 2)
    (source / "wavs/0.wav").rename(tmp_path / "elsewhere.wav")
    (source / "wavs/0.wav").symlink_to(tmp_path / "elsewhere.wav")
    arguments = (table, source, tmp_path / "out", *LICENCE, "--split", "train", "--workers", 1)
    assert command(*arguments) == 0
    assert "if the link is yours, pass --follow-links [path_outside_root]" in capsys.readouterr().out
    assert command(*arguments, "--follow-links", "--overwrite") == 0
    assert "rejected: 0" in capsys.readouterr().out


def test_references_keep_the_audio_where_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A corpus that lies in the store's folder need not be copied, and is never touched: not by --overwrite either."""
    out = tmp_path / "out"
    source = corpus(out / "raw", 4)
    before = contents(source)
    arguments = (table, source, out, *LICENCE, "--audio", "reference", "--workers", 1)
    assert command(*arguments) == 0
    audio = Store(out / "train")[0].turns[0].audio
    assert audio is not None
    assert (audio.path, audio.size) == (str(source / "wavs/0.wav"), 0)
    assert sum(path.stat().st_size for path in (out / "train").iterdir()) < 8_000
    (out / "train" / "mine.txt").write_text("a note")
    assert command(*arguments, "--split", "all", "--overwrite") == 0
    assert contents(source) == before
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["all", "raw", "splits", "train"]
    assert [path.name for path in (out / "train").iterdir()] == ["mine.txt"]
    assert command(table, source, source, *LICENCE, "--audio", "reference") == 1
    assert "SRC and OUT are one folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["splits", "train"])
def test_folders_of_a_corpus_are_not_taken_for_ours(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Expresso has a folder called splits: its lists would be written over."""
    source = corpus(tmp_path / "in", 4)
    (tmp_path / "out" / name).mkdir(parents=True)
    for option in ((), ("--overwrite",)):
        assert command(table, source, tmp_path / "out", *LICENCE, *option) == 1
        assert f"holds {name}, which no conversion made" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


def test_drawn_splits_are_asked_for_where_the_corpus_has_its_own(tmp_path: Path) -> None:
    """Its test set stays; a val set it lacks is drawn from train only, by groups."""
    source = corpus(tmp_path / "in", 4)
    text = (source / "turns.csv").read_text().replace(",val\n", ",train\n")
    (source / "turns.csv").write_text(text)
    for share, splits in ((None, {"train", "test"}), (0.5, {"train", "val", "test"})):
        out = tmp_path / f"{share}"
        assert command(table, source, out, *LICENCE, *(("--val", share) if share else ()), "--workers", 1) == 0
        assert set(read_info(out).splits) == splits
        assert (out / "splits/test.txt").read_text().split() == ["d3"]


def test_what_is_wrong_is_said_in_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback, no empty store: no corpus, no usable dialogue, the same id twice, two conversions at once."""
    out = tmp_path / "out"
    assert command(table, tmp_path / "none", out, *LICENCE) == 1
    assert "download the corpus first or correct the path [no_file]" in capsys.readouterr().err
    (tmp_path / "x.csv").write_text("dialogue,role,text\nd,user,hi\n")
    assert command(table, tmp_path / "x.csv", out, *LICENCE) == 1
    assert "no dialogue is usable\n  1 x no_assistant_turn" in capsys.readouterr().err
    assert not out.exists()
    line = '{"id": "d", "turns": [{"role": "user", "text": "a"}, {"role": "assistant", "text": "b"}]}\n'
    (tmp_path / "in").mkdir()
    (tmp_path / "in/train.jsonl").write_text(line)
    (tmp_path / "in/val.jsonl").write_text(line)
    assert command(sharechat, tmp_path / "in", out, "--workers", 1) == 0
    assert "another dialogue of this corpus has the same id" in capsys.readouterr().out
    assert dict(read_info(out).splits) == {"train": 1}
    with output.alone(out):
        assert command(sharechat, tmp_path / "in", out, "--split", "train", "--overwrite") == 1
    assert "[in_use]" in capsys.readouterr().err


def test_settings_that_change_the_store_change_its_key() -> None:
    """A kept piece of other settings must not be used; the number of processes changes nothing."""
    choices = Choices("last_speaker", emotion_map("table"))
    base = convert.Settings(choices)
    others = [
        convert.Settings(Choices("second_speaker", emotion_map("table"))),
        convert.Settings(Choices("last_speaker", emotion_map("table").choosing({"sad": None}))),
        convert.Settings(choices, seed=1),
        convert.Settings(choices, audio="bytes"),
    ]
    assert len({base.key(), *(other.key() for other in others)}) == 5
    assert convert.Settings(choices, workers=7, overwrite=True).key() == base.key()

"""A dataset of the hub and back: nothing that was published is lost on the way to a store."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile

from data_prep import hugging_face, table
from data_prep.hugging_face import unpack
from omnichat.audio import load_audio
from omnichat.data.made_up import made_up_dialogues
from omnichat.data.shards import finish_store, write_shard
from omnichat.data.store import Store
from omnichat.dialogue import AudioRef, DataError, Dialogue, Style, Turn


def run(program: Any, *arguments: object) -> int:
    """Exit code of a command of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["program", *map(str, arguments)])
        return int(program.main())


def recording(path: Path, value: float = 0.25) -> bytes:
    """Half a second, and its bytes."""
    soundfile.write(path, np.full(8_000, value), 16_000)
    return path.read_bytes()


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as the hub keeps them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_a_store_that_was_published_comes_back(form: str, tmp_path: Path) -> None:
    """Words, styles, scenes and every sample, also of a turn that is a stretch of a longer recording."""
    store, hub = tmp_path / "store", tmp_path / "hub"
    dialogues = made_up_dialogues(store / "in", 2)
    recording(store / "in" / "long.wav")
    stretch = Turn("user", "hi", audio=AudioRef(str(store / "in" / "long.wav"), 3_000, 2_000))
    answer = Turn("assistant", "yes", Style("male", "sad"))
    wrong = Turn("assistant", "no", learn=False)
    dialogues.append(Dialogue("d", (stretch, wrong, stretch, answer), scene={"group": "g", "script": "s"}))
    shards = {"train": [write_shard(store / ".a", dialogues)]}
    finish_store(store, name="x", licence="CC0-1.0", source="tests", splits=shards)
    if form == "parquet":
        (shard,) = (store / "train").glob("*.arrow")
        with pa.memory_map(str(shard)) as file:
            rows = pa.ipc.open_stream(file).read_all()
            hub.mkdir()
            pyarrow.parquet.write_table(rows, hub / "train-00000-of-00001.parquet")
    assert run(hugging_face, store if form == "arrow" else hub, tmp_path / "rows") == 0
    assert run(table, tmp_path / "rows", tmp_path / "again", "--licence", "CC0-1.0", "--workers", 1) == 0
    ours, theirs = Store(tmp_path / "again" / "train"), Store(store / "train")
    assert len(ours) == len(theirs) == 3
    for row in range(3):
        found, given = ours[row], theirs[row]
        assert found.id == given.id
        assert {**found.scene, "split": ""} == {**given.scene, "split": ""}
        for one, other in zip(found.turns, given.turns, strict=True):
            assert (one.role, one.text, one.style, one.learn) == (other.role, other.text, other.style, other.learn)
            assert (one.audio is None) == (other.audio is None)
            if one.audio is not None and other.audio is not None:
                np.testing.assert_array_equal(load_audio(one.audio), load_audio(other.audio))


def test_turns_of_somebody_elses_dataset(tmp_path: Path) -> None:
    """A row for each turn, splits by file, recordings in the row or beside it, their columns by their own names."""
    hub = tmp_path / "hub"
    beside = recording(tmp_path / "b.wav", 0.5)
    (hub / "wavs").mkdir(parents=True)
    (hub / "wavs" / "b.wav").write_bytes(beside)
    within = {"bytes": recording(tmp_path / "a.flac"), "path": "a.flac"}
    for name, audio in (("train", within), ("validation", {"bytes": None, "path": "wavs/b.wav"})):
        rows = [
            {"conversation": name, "speaker": "caller", "text": "hello", "sound": audio, "times": [1, 2]},
            {"conversation": name, "speaker": "agent", "text": "fine", "sound": None, "times": []},
        ]
        parquet(hub / "data" / f"{name}-00000-of-00001.parquet", rows)
    assert unpack(hub, tmp_path / "rows") == 4
    assert unpack(hub, tmp_path / "rows") == 4  # again
    assert len(list((tmp_path / "rows" / "audio").iterdir())) == 2
    columns = ("--column", "dialogue=conversation", "--column", "audio=sound")
    assert run(table, tmp_path / "rows", tmp_path / "out", "--licence", "x", "--workers", 1, *columns) == 0
    for split, value in (("train", 0.25), ("val", 0.5)):
        (dialogue,) = [Store(tmp_path / "out" / split)[0]]
        assert [turn.role for turn in dialogue.turns] == ["user", "assistant"]
        assert dialogue.turns[0].audio is not None
        assert np.median(load_audio(dialogue.turns[0].audio)) == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize("name", ["../secret.wav", "/etc/hostname", "gone.wav", "*", "link.wav"])
def test_a_row_reads_nothing_from_elsewhere(name: str, tmp_path: Path) -> None:
    """A dataset is a stranger's: a path in it must not bring this machine's files into a corpus."""
    hub = tmp_path / "hub"
    path = parquet(hub / "train.parquet", [{"text": "a", "audio": {"bytes": None, "path": name}}])
    (tmp_path / "secret.wav").write_bytes(b"secret")
    (hub / "link.wav").symlink_to(tmp_path / "secret.wav")
    with pytest.raises(DataError, match=r"is named, and neither in the row nor below") as raised:
        unpack(hub, tmp_path / "rows")
    assert f"{path}: row 0" in str(raised.value)
    assert not (tmp_path / "rows" / "rows.jsonl").exists()
    assert not list((tmp_path / "rows" / "audio").iterdir())


def test_what_cannot_be_unpacked_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half a download is the usual case."""
    hub = tmp_path / "hub"
    path = parquet(hub / "train.parquet", [{"text": "a" * 1_000}])
    path.write_bytes(path.read_bytes()[:-20])
    assert run(hugging_face, hub, tmp_path / "rows") == 1
    assert f"{path}: cannot be read" in capsys.readouterr().err
    path.unlink()
    assert run(hugging_face, hub, tmp_path / "rows") == 1
    assert "holds no *.parquet and no *.arrow" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(hugging_face, hub, hub / "rows")
    assert "lies within SRC" in capsys.readouterr().err
    assert json.dumps(sorted(entry.name for entry in hub.iterdir())) == "[]"

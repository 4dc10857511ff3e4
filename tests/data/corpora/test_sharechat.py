"""Stores of JSONL as a corpus."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from omnichat.data.corpora.reading import Choices, Reading, read_all
from omnichat.data.corpora.sharechat import CORPUS
from omnichat.data.shards import finish_store, write_shard
from omnichat.dialogue import DataError, Dialogue, Turn


def read(folder: Path) -> Reading:
    return read_all(CORPUS, folder, Choices())


def line(name: str, path: str = "audio/a.wav") -> str:
    turns = [
        {"role": "user", "text": "hi", "audio": {"path": path, "num_samples": 16_000}},
        {"role": "assistant", "text": "yes", "style": {"emotion": "happy"}},
    ]
    return json.dumps({"id": name, "scene": {"scenario": "music"}, "turns": turns})


def store(folder: Path) -> Path:
    (folder / "audio").mkdir(parents=True)
    soundfile.write(folder / "audio" / "a.wav", np.ones(16_000) / 2, 16_000)
    (folder / "train.jsonl").write_text("\n".join([line("b"), "", line("a")]) + "\n")
    (folder / "test_voices.jsonl").write_text(line("c"))
    return folder


def test_splits_and_dialogues_stay_as_they_are(tmp_path: Path) -> None:
    """A store that was made with splits of its own, of any name, must not be drawn anew."""
    reading = read(store(tmp_path))
    found = [(dialogue.id, dialogue.scene["split"], dialogue.scene["scenario"]) for dialogue in reading.dialogues]
    assert found == [("c", "test_voices", "music"), ("b", "train", "music"), ("a", "train", "music")]
    assert reading.dialogues[0].turns[0].audio is not None
    assert reading.dialogues[0].turns[0].audio.path == str(tmp_path / "audio/a.wav")


def test_many_lines_are_read_once_and_in_order(tmp_path: Path) -> None:
    """They are read in runs, each from its place in the file."""
    store(tmp_path)
    (tmp_path / "test_voices.jsonl").unlink()
    (tmp_path / "train.jsonl").write_text("\n".join(line(f"d{number}é") for number in range(450)))
    assert [part.key for part in CORPUS.parts(tmp_path)] == ["train.jsonl:1", "train.jsonl:201", "train.jsonl:401"]
    assert [dialogue.id for dialogue in read(tmp_path).dialogues] == [f"d{number}é" for number in range(450)]


def test_a_bad_line_is_rejected_with_its_number(tmp_path: Path) -> None:
    """A manifest must not reach outside its folder; broken lines are named, the others kept."""
    store(tmp_path / "in")
    soundfile.write(tmp_path / "out.wav", np.ones(16_000) / 2, 16_000)
    bad = [line("x", "../out.wav"), line("y", str(tmp_path / "out.wav")), "{", "\xff"]
    with (tmp_path / "in" / "train.jsonl").open("ab") as out:
        out.write("\n".join(bad).encode("latin-1"))
    reading = read(tmp_path / "in")
    assert len(reading.dialogues) == 3
    assert [error.where.partition("train.jsonl:")[2][0] for error in reading.rejects] == ["4", "5", "6", "7"]
    reasons = ["path_outside_root", "path_outside_root", "bad_json", "bad_encoding"]
    assert [error.reason for error in reading.rejects] == reasons


def test_a_store_of_shards_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    """There is nothing to convert in either."""
    with pytest.raises(DataError, match=r"holds no <split>.jsonl"):
        read(tmp_path)
    shard = write_shard(tmp_path / "x.arrow", [Dialogue("d", (Turn("user", "a"), Turn("assistant", "b")))])
    finish_store(tmp_path, name="x", licence="CC0-1.0", source="tests", splits={"train": [shard]})
    with pytest.raises(DataError, match=r"is a store of shards already"):
        read(tmp_path)

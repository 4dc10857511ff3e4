"""Exporting a store: the same dialogues and the same waves, as plain files."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_prep.export_store import export
from omnichat.audio import load_audio
from omnichat.data.info import read_info
from omnichat.data.made_up import made_up_dialogues
from omnichat.data.shards import AudioForm, finish_store, write_shard
from omnichat.data.store import Store
from omnichat.dialogue import AudioRef, DataError, Dialogue, Turn

ROOT = Path(__file__).parents[2]


def stored(folder: Path, audio: AudioForm) -> Path:
    """A store of two splits; one dialogue has two turns in one float recording, of which the second is a stretch."""
    dialogues = made_up_dialogues(folder / "in", 3)
    soundfile.write(folder / "in/both.wav", np.random.default_rng(0).normal(0, 0.1, 32_000), 16_000, subtype="FLOAT")
    heard = [Turn("user", "", audio=AudioRef(str(folder / "in/both.wav"), 9_000, start)) for start in (0, 12_000)]
    answer = Turn("assistant", "yes", meta={"label": "calm"})
    dialogues.append(Dialogue("both/of\\them", (heard[0], answer, heard[1], answer), scene={"topic": "x"}))
    root = folder if audio == "reference" else None
    splits = {"train": dialogues[:2], "val": dialogues[2:]}
    shards = {split: [write_shard(folder / f".{split}", part, audio, root)] for split, part in splits.items()}
    finish_store(folder, name="x", licence="CC0-1.0", source="tests", splits=shards)
    return folder


@pytest.mark.parametrize("audio", ["flac", "reference"])
def test_what_is_exported_is_what_was_stored(tmp_path: Path, audio: AudioForm) -> None:
    """An export that loses a field or a sample would be another corpus under the same name."""
    store = stored(tmp_path / "store", audio)
    assert export(store, tmp_path / "out") == {"train": 2, "val": 2}
    assert read_info(tmp_path / "out") == replace(read_info(store), shards={})
    for split in ("train", "val"):
        for row in range(2):
            ours, theirs = Store(tmp_path / "out" / f"{split}.jsonl")[row], Store(store / split)[row]
            assert (ours.id, ours.scene, ours.source) == (theirs.id, theirs.scene, theirs.source)
            for found, given in zip(ours.turns, theirs.turns, strict=True):
                assert replace(found, audio=None) == replace(given, audio=None)
                if found.audio is not None and given.audio is not None:
                    assert found.audio.sha256 == given.audio.sha256
                    np.testing.assert_array_equal(load_audio(found.audio), load_audio(given.audio))
    files = [file for file in (tmp_path / "out" / "audio" / "val").iterdir() if file.suffix == ".wav"]
    heard = [turn.audio for turn in Store(tmp_path / "out" / "val.jsonl")[1].turns if turn.audio is not None]
    assert len({ref.path for ref in heard}) == (1 if audio == "reference" else 2)
    assert {Path(ref.path) for ref in heard} <= set(files)


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """And what is JSONL already needs no export."""
    store = stored(tmp_path / "store", "flac")
    export(store, tmp_path / "out")
    with pytest.raises(DataError, match=r"\[store_exists\]"):
        export(store, tmp_path / "out")
    with pytest.raises(DataError, match=r"\[no_shards\]"):
        export(tmp_path / "out", tmp_path / "again")


def test_the_command_line_says_what_it_did(tmp_path: Path) -> None:
    """Or what it could not do, in a line."""
    store = stored(tmp_path / "store", "flac")
    command = [sys.executable, "-m", "data_prep.export_store", str(store), str(tmp_path / "out"), "--as", "jsonl"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "train: 2 dialogues\nval: 2 dialogues\n"
    command[3] = str(tmp_path / "nowhere")
    failed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert failed.stderr.startswith(f"error: {tmp_path}/nowhere/store.json: no such file")

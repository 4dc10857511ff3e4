"""The reader of SpokenWOZ, on files written after its documentation: channels, word times, and its split."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from omnichat.data.corpora.spokenwoz import CORPUS
from omnichat.dialogue import DataError
from tests.corpora import levels, read, reasons, roles, write_levels


def turn(tag: str, text: str, *times: int) -> dict[str, Any]:
    """A turn whose words end where the next begins, in milliseconds; without times it has no words."""
    words = [
        {"Word": "x", "BeginTime": start, "EndTime": stop, "ChannelId": 0, "WordIndex": number}
        for number, (start, stop) in enumerate(pairwise(times))
    ]
    return {"tag": tag, "text": text, "words": words, "metadata": {}, "dialog_act": {}, "span_info": []}


LOG = [
    turn("user", "hi i need a train", 0, 200, 500),
    turn("system", "where to", 500, 800, 1_000),
    turn("user", "uh", 1_000, 1_500),
    turn("system", "sure"),
    turn("user", "thank you bye", 1_500, 2_000),
]


def corpus(folder: Path, name: str, logs: dict[str, list[dict[str, Any]]], validation: list[str] | None = None) -> Path:
    """A list and its telephone recordings: four levels in each channel, half a second each."""
    text = folder / f"text_5700_{name}"
    text.mkdir(parents=True)
    (text / "data.json").write_text(json.dumps({key: {"goal": {}, "log": log} for key, log in logs.items()}))
    if validation is not None:
        (text / "valListFile.json").write_text("".join(f"{key}\n" for key in validation))
    for key in logs:
        user, system = [0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]
        write_levels(folder / f"audio_5700_{name}" / f"{key}.wav", user, system, rate=8_000)
    return folder


def test_each_turn_is_heard_in_its_own_channel_at_its_own_time(tmp_path: Path) -> None:
    """The other channel, or both mixed, holds the other speaker; what the user says last has no answer to learn."""
    corpus(tmp_path, "train_dev", {"MUL0001": LOG}, [])
    reading = read(CORPUS, tmp_path)
    assert reasons(reading) == {}
    (dialogue,) = reading.dialogues
    assert roles(dialogue) == "uaua"
    assert levels(dialogue) == [0.1, 0.6, 0.3, None]
    assert dialogue.turns[1].meta == {"start_ms": "500", "stop_ms": "1000"}
    assert dialogue.turns[1].audio is not None
    assert (dialogue.turns[1].audio.start, dialogue.turns[1].audio.num_samples) == (8_000, 8_000)


def test_the_corpuss_own_split_is_kept(tmp_path: Path) -> None:
    """A test dialogue in training makes every score on it worthless."""
    corpus(tmp_path, "train_dev", {"MUL0001": LOG, "SNG0002": LOG}, ["SNG0002"])
    corpus(tmp_path, "test", {"MUL0003": LOG})
    splits = {dialogue.id: dialogue.scene["split"] for dialogue in read(CORPUS, tmp_path).dialogues}
    assert splits == {"MUL0001": "train", "SNG0002": "val", "MUL0003": "test"}


def test_what_cannot_be_used_is_rejected_by_name(tmp_path: Path) -> None:
    """Times beyond the recording, a key that leaves the folder, a recording in mono, a list without its split."""
    late = [turn("user", "hi", 0, 500), turn("system", "yes", 2_000, 9_000)]
    logs = {
        "late": late,
        "mono": LOG,
        "gone": LOG,
        "who": [turn("operator", "hi", 0, 500)],
        "../../x": LOG,
        "good": LOG,
    }
    corpus(tmp_path / "a", "test", logs)
    write_levels(tmp_path / "a" / "audio_5700_test" / "mono.wav", [0.1, 0.2, 0.3, 0.4])
    (tmp_path / "a" / "audio_5700_test" / "gone.wav").unlink()
    reading = read(CORPUS, tmp_path / "a")
    assert [dialogue.id for dialogue in reading.dialogues] == ["good"]
    expected = ["bad_times", "no_channel", "no_file", "unknown_role", "path_outside_root"]
    assert [error.reason for error in reading.rejects] == expected
    corpus(tmp_path / "b", "train_dev", {"MUL0001": LOG})
    assert reasons(read(CORPUS, tmp_path / "b")) == {"no_file": 1}
    with pytest.raises(DataError, match=r"\[no_file\]"):
        read(CORPUS, tmp_path / "nothing")

"""The reader of EmotionTalk: two speakers' folders as one conversation, marks, and which label is taken."""

import csv
import json
from pathlib import Path

import pytest

from omnichat.data.corpora.emotiontalk import CORPUS
from omnichat.dialogue import DataError
from tests.corpora import SAMPLES, levels, needs, read, reasons, roles, write_levels

SAID = {
    "G01_07_12_001": ("neutral", "你好[laughing]。"),
    "G01_07_12_004": ("sad", "[over/]对[/over]，但是[interrupted]"),
    "G01_07_14_002": ("happy", "嗯。"),
    "G01_07_14_005": ("angry", "不。"),
}


def place(name: str) -> str:
    """G01/G01_07/G01_07_12/G01_07_12_001."""
    pieces = name.split("_")
    return "/".join("_".join(pieces[:count]) for count in (1, 2, 3, 4))


def corpus(folder: Path, said: dict[str, tuple[str, str]] = SAID, mm: dict[str, str] | None = None) -> Path:
    """The lists of one conversation, speaker by speaker."""
    lists = folder / "dataset" / "mm-process"
    lists.mkdir(parents=True)
    rows = [["name", "emotion", "chinese"], *([place(name), *rest] for name, rest in said.items())]
    with (lists / "transcription.csv").open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows(rows)
    if mm is not None:
        lines = ["file_name,emotion", *(f"{place(name)}.mp4,{emotion}" for name, emotion in mm.items())]
        (lists / "mm.csv").write_text("\n".join(lines))
    return folder


def test_the_speakers_take_turns_in_the_order_of_the_numbers(tmp_path: Path) -> None:
    """Folder by folder, one speaker would say everything first; a mark in the words would be learnt as a word."""
    for number, name in enumerate(SAID, start=1):
        write_levels(tmp_path / "wav" / f"{place(name)}.wav", [number / 10])
    reading = read(CORPUS, corpus(tmp_path))
    assert reasons(reading) == {}
    (dialogue,) = reading.dialogues
    assert [turn.text for turn in dialogue.turns] == ["你好。", "嗯。", "对，但是", "不。"]
    assert roles(dialogue) == "uaua"
    assert levels(dialogue) == [0.1, 0.3, 0.2, 0.4]
    assert [turn.meta["speaker"] for turn in dialogue.turns] == ["12", "14", "12", "14"]
    assert dialogue.turns[2].meta["marked"] == "[over/]对[/over]，但是[interrupted]"
    assert "marked" not in dialogue.turns[3].meta
    assert CORPUS.group(dialogue) == "G01"


def test_the_emotion_heard_comes_before_that_of_the_words(tmp_path: Path) -> None:
    """The labels differ in a third of the utterances; which one was taken is said in the scene."""
    corpus(tmp_path / "a", mm=dict.fromkeys(SAID, "surprised"))
    (dialogue,) = read(CORPUS, tmp_path / "a").dialogues
    assert {turn.style.emotion for turn in dialogue.turns} == {"surprised"}
    assert dialogue.scene["labels"] == "mm"
    corpus(tmp_path / "b")
    (dialogue,) = read(CORPUS, tmp_path / "b").dialogues
    assert [turn.style.emotion for turn in dialogue.turns] == ["neutral", "happy", "sad", "angry"]
    assert dialogue.scene["labels"] == "transcription"


def test_what_cannot_be_used_is_rejected_by_name(tmp_path: Path) -> None:
    """A number that comes twice has no order; a missing label or recording is no neutral and no silence."""
    corpus(tmp_path / "a", {"G01_07_12_001": ("sad", "一"), "G01_07_14_001": ("sad", "二")})
    corpus(tmp_path / "b", mm={"G01_07_12_001": "sad"})
    corpus(tmp_path / "c", {"G01_7_x": ("sad", "一")})
    corpus(tmp_path / "d")
    write_levels(tmp_path / "d" / "wav" / "G01_07_12_001.wav", [0.1])
    corpus(tmp_path / "e", {"G01_07_12_001": ("sad", "一")})
    found = {name: reasons(read(CORPUS, tmp_path / name)) for name in "abcde"}
    assert found == {
        "a": {"segment_mismatch": 1},
        "b": {"no_emotion": 1},
        "c": {"bad_layout": 1},
        "d": {"no_file": 1},
        "e": {"not_two_speakers": 1},
    }
    with pytest.raises(DataError, match=r"\[no_file\]"):
        read(CORPUS, tmp_path / "nothing")


@needs("emotiontalk")
def test_the_real_lists(tmp_path: Path) -> None:
    """310 utterances are 11 conversations of 3 pairs, each in the split that the corpus's labels give it."""
    (tmp_path / "transcription.csv").write_bytes((SAMPLES / "emotiontalk" / "transcription_part.csv").read_bytes())
    reading = read(CORPUS, tmp_path)
    assert reasons(reading) == {}
    assert len(reading.dialogues) == 11
    assert sum(len(dialogue.turns) for dialogue in reading.dialogues) == 310
    assert {CORPUS.group(dialogue) for dialogue in reading.dialogues} == {"G00009", "G00003", "G00012"}
    labels = json.loads((SAMPLES / "emotiontalk" / "labels_part.json").read_text(encoding="utf-8"))
    splits = {name.split("/")[1]: label["split"] for name, label in labels.items()}
    assert {dialogue.id: dialogue.scene["split"] for dialogue in reading.dialogues} == splits
    assert not any("[" in turn.text for dialogue in reading.dialogues for turn in dialogue.turns)

"""The reader of EChat-200K, on files written after its documentation: tags, rounds, and paths of another machine."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnichat.data.corpora import echat_200k, lists
from omnichat.data.corpora.echat_200k import CORPUS
from omnichat.dialogue import DataError
from tests.corpora import levels, read, reasons, roles, write_levels


def record(key: str = "1_a", txt: str = "<HAPPY>你好呀", **changes: Any) -> dict[str, Any]:
    """A dialogue of one round, as the corpus's code expects it."""
    extra = {
        "dataset": "KeSpeech",
        "age": "<ADULT>",
        "gender": "<FEMALE>",
        "think_str": "...",
        "question": "在吗",
        "speech_token": [2164, 2935],
        "a_wav_path": "/home/other/wavs/1_a_2.wav",
    }
    task = "<S2TCHAT> <TEXT2TOKEN> <THINK>"
    return {"key": key, "txt": txt, "wav": "./raw/wav/q.wav", "extra": extra, "task": task} | changes


def corpus(folder: Path, *records: dict[str, Any] | str, name: str = "raw/data.list") -> Path:
    """A list and the recording of a question and an answer, named from the corpus's folder."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    lines = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in records]
    (folder / name).write_text("\n".join(lines) + "\n")
    write_levels(folder / "raw" / "wav" / "q.wav", [0.1])
    write_levels(folder / "raw" / "wav" / "q2.wav", [0.2])
    write_levels(folder / "raw" / "wav" / "a.wav", [0.3])
    return folder


def test_the_answers_tag_is_its_emotion_and_not_a_word(tmp_path: Path) -> None:
    """Left in the words the tag would be spoken; and what has no tag is not known to be neutral."""
    said = ["<HAPPY>你好呀", "你好", "<SHY> 嗯", "<NONE>好", "<ANGRY>不"]
    reading = read(CORPUS, corpus(tmp_path, *(record(str(number), txt) for number, txt in enumerate(said))))
    assert reasons(reading) == {}
    answers = [dialogue.turns[1] for dialogue in reading.dialogues]
    assert [turn.text for turn in answers] == ["你好呀", "你好", "嗯", "好", "不"]
    assert [turn.style.emotion for turn in answers] == ["happy", None, None, None, "angry"]
    assert [turn.meta.get("emotion") for turn in answers] == ["<HAPPY>", None, "<SHY>", None, "<ANGRY>"]
    question = reading.dialogues[0].turns[0]
    assert (question.text, question.style.gender, question.meta["age"]) == ("在吗", "female", "<ADULT>")
    assert levels(reading.dialogues[0]) == [0.1, None]  # the answer's recording is on another machine


def test_earlier_rounds_come_first(tmp_path: Path) -> None:
    """Without its history the last answer follows from nothing."""
    extra = {"question": "", "gender": "<MALE>", "a_wav_path": "raw/wav/a.wav"}
    rounds = record(history=[{"wav": "raw/wav/q2.wav", "txt": "<SAD>唉"}], extra=extra)
    (dialogue,) = read(CORPUS, corpus(tmp_path, rounds)).dialogues
    assert roles(dialogue) == "uaua"
    assert levels(dialogue) == [0.2, None, 0.1, 0.3]
    assert [turn.style.emotion for turn in dialogue.turns] == [None, "sad", None, "happy"]


def test_no_line_is_lost_or_read_twice_where_stretches_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list is read in stretches of bytes, which end within lines."""
    monkeypatch.setattr(lists, "STRETCH", 97)
    corpus(tmp_path, *(record(str(number)) for number in range(20)))
    assert len(CORPUS.parts(tmp_path)) > 20
    assert [dialogue.id for dialogue in read(CORPUS, tmp_path).dialogues] == [str(number) for number in range(20)]


def test_unpacked_shards_hold_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The form in which the corpus's code trains: a file for each field, as its do_make_shard_from_raw.py has it."""
    monkeypatch.setattr(echat_200k, "_PART", 2)
    for number in range(3):
        one = record(f"1.{number}")
        for field, text in (("txt", one["txt"]), ("emotion", "none"), ("extra", json.dumps(one["extra"]))):
            (tmp_path / f"1.{number}.{field}").write_text(text)
        write_levels(tmp_path / f"1.{number}.wav", [number / 10])
    (tmp_path / "1.0.emotion").write_text("<FEAR>")
    (tmp_path / "1.3.extra").write_text("{}")
    reading = read(CORPUS, tmp_path)
    assert [dialogue.id for dialogue in reading.dialogues] == ["1.0", "1.1", "1.2"]
    assert [levels(dialogue)[0] for dialogue in reading.dialogues] == [0.0, 0.1, 0.2]
    assert [dialogue.turns[0].style.emotion for dialogue in reading.dialogues] == ["fearful", None, None]
    assert {dialogue.turns[1].style.emotion for dialogue in reading.dialogues} == {"happy"}
    assert reasons(reading) == {"no_file": 1}


def test_what_cannot_be_used_is_rejected_by_name(tmp_path: Path) -> None:
    """One bad line must not cost the others; a path that leads elsewhere is not opened."""
    outside = write_levels(tmp_path / "outside.wav", [0.9])
    lines = [
        record("1"),
        "{",
        "[]",
        record("2", wav="raw/wav/none.wav"),
        record("3", wav=str(outside)),
        record("4", txt=""),
    ]
    lines += [record("5", wav="../outside.wav"), record("6", txt="<MOODY>好"), {"key": "7"}]
    reading = read(CORPUS, corpus(tmp_path / "corpus", *lines))
    assert [dialogue.id for dialogue in reading.dialogues] == ["1"]
    expected = ["bad_json", "bad_json", "no_file", "no_file", "empty_text", "no_file", "unknown_emotion", "bad_layout"]
    assert [error.reason for error in reading.rejects] == expected
    with pytest.raises(DataError, match=r"shards \(\.tar\).*\[no_file\]"):
        read(CORPUS, tmp_path / "nothing")

"""The reader of StyleTalk, on its real lists and on audio laid out as its README says."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from omnichat.audio import load_audio
from omnichat.data.corpora.emotions import emotion_map
from omnichat.data.corpora.reading import Choices, Reading, read_all
from omnichat.data.corpora.styletalk import COLUMNS, CORPUS, split_context
from omnichat.dialogue import DataError, Style

SAMPLES = Path(__file__).parents[4] / "shared" / "samples" / "styletalk"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="StyleTalk's lists are not at ../shared/samples")
ROW = {
    "diag_id": "book_1", "context": "A : Hi there: you! B : No, wait. A : What?",
    "curr_audio_id": "book_1/c_2.wav", "res_audio_id": "book_1/r_2.wav", "curr_text": "B: Well.  ",
    "res_text": "  Fine.", "curr_emotion": "unfriendly", "curr_speed": "fast", "curr_volume": "loud",
    "res_emotion": "sad", "res_speed": "slow", "res_volume": "quiet",
}  # fmt: skip


def read(folder: Path) -> Reading:
    return read_all(CORPUS, folder, Choices("last_speaker", emotion_map("styletalk")))


def corpus(folder: Path, *rows: dict[str, str], name: str = "train.csv") -> Path:
    with (folder / name).open("w", newline="") as out:
        table = csv.DictWriter(out, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    return folder


def test_history_in_one_string_becomes_turns() -> None:
    """A colon within the words is not a speaker."""
    assert split_context("A : Hi: you! B : Is 3:30 ok? A : Yes.") == [
        ("A", "Hi: you!"),
        ("B", "Is 3:30 ok?"),
        ("A", "Yes."),
    ]
    with pytest.raises(DataError, match=r"\[bad_layout\]"):
        split_context("Hello B : x")


def test_current_turn_and_answer_are_heard_the_history_is_read(tmp_path: Path) -> None:
    """Each style goes to its own recording; what has none says so."""
    corpus(tmp_path, ROW)
    (tmp_path / "audio" / "book_1").mkdir(parents=True)
    for name, level in (("c_2", 0.25), ("r_2", 0.5)):
        soundfile.write(tmp_path / "audio" / "book_1" / f"{name}.wav", np.full(24_000, level), 24_000)
    (dialogue,) = read(tmp_path).dialogues
    assert (dialogue.id, dialogue.scene["script"], dialogue.scene["split"]) == ("book_1/2", "book_1", "train")
    *history, current, answer = dialogue.turns
    assert all(turn.audio is None and turn.meta == {"audio": "none"} for turn in history)
    assert (current.text, current.style, current.role) == ("Well.", Style(emotion="angry", speed="fast"), "user")
    assert (answer.text, answer.style, answer.role) == ("Fine.", Style(emotion="sad", speed="slow"), "assistant")
    assert current.meta == {"emotion": "unfriendly", "volume": "loud"}
    levels = [float(np.median(load_audio(turn.audio))) for turn in (current, answer) if turn.audio is not None]
    assert levels == [pytest.approx(0.25, abs=1e-3), pytest.approx(0.5, abs=1e-3)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"curr_audio_id": "book_1/c_1.wav"}, "no_file"),
        ({"res_audio_id": "../book_1/r_2.wav"}, "path_outside_root"),
        ({"curr_audio_id": "book_1/x.wav"}, "bad_layout"),
        ({"context": "no speakers"}, "bad_layout"),
        ({"context": "A : We have a plan A : no. B : Yes. A : What?"}, "bad_layout"),
        ({"curr_text": "Well."}, "bad_layout"),
        ({"curr_emotion": "bored"}, "unknown_emotion"),
        ({"res_speed": "slower"}, "unknown_style"),
        ({"res_text": "  "}, "empty_text"),
    ],
)
def test_a_row_that_cannot_be_used_is_rejected_with_its_line(
    change: dict[str, str], reason: str, tmp_path: Path
) -> None:
    """One bad row must neither stop the others nor vanish."""
    corpus(tmp_path, ROW, ROW | change)
    (tmp_path / "book_1").mkdir()
    for name in ("c_2", "r_2"):
        soundfile.write(tmp_path / "book_1" / f"{name}.wav", np.ones(16_000), 16_000)
    reading = read(tmp_path)
    assert len(reading.dialogues) == 1
    assert [error.reason for error in reading.rejects] == [reason]
    assert reading.rejects[0].where.startswith(f"{tmp_path / 'train.csv'}:3")


def test_a_name_that_no_file_system_takes_stops_no_other_row(tmp_path: Path) -> None:
    """The search for the recordings asked the file system of every name, and ended with its error."""
    corpus(tmp_path, {**ROW, "curr_audio_id": f"{'y' * 300}/c_1.wav"}, ROW)
    assert [dialogue.id for dialogue in read(tmp_path).dialogues] == ["book_1/1", "book_1/2"]  # words only


def test_another_table_is_refused(tmp_path: Path) -> None:
    """A table without our columns is not StyleTalk."""
    (tmp_path / "train.csv").write_text("diag_id,context\n1,A : x\n")
    with pytest.raises(DataError, match=r"has no column curr_audio_id, .*\[missing_column\]"):
        read(tmp_path)
    (tmp_path / "train.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"\[bad_layout\]"):
        read(tmp_path)


@needs_samples
def test_the_real_lists_are_read_whole() -> None:
    """2,696 rows of five turns; styles of one text are one script, in one split; only the answer's speaker replies."""
    reading = read(SAMPLES)
    assert reading.rejects == []
    with (SAMPLES / "train.csv").open() as train, (SAMPLES / "eval.csv").open() as test:
        rows = [("train", row) for row in csv.DictReader(train)] + [("test", row) for row in csv.DictReader(test)]
    assert len(reading.dialogues) == len(rows) == 2_696
    for (split, row), dialogue in zip(rows, reading.dialogues, strict=True):
        assert (dialogue.scene["split"], dialogue.scene["script"]) == (split, row["diag_id"])
        assert len(dialogue.turns) == 5
        assert [turn.role for turn in dialogue.turns] == ["assistant", "user", "assistant", "user", "assistant"]
        heard = " ".join(turn.text for turn in dialogue.turns[:3])
        letters = "".join(row["context"].replace("A :", "").replace("B :", "").split())
        assert "".join(heard.split()) == letters
    splits = {dialogue.scene["script"]: dialogue.scene["split"] for dialogue in reading.dialogues}
    assert all(splits[dialogue.scene["script"]] == dialogue.scene["split"] for dialogue in reading.dialogues)

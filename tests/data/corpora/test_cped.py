"""The reader of CPED: emotions, speakers, and dialogues that have too many of them."""

import lzma
from pathlib import Path

import pytest

from omnichat.data.corpora.cped import CORPUS
from omnichat.dialogue import DataError
from tests.corpora import SAMPLES, needs, read, reasons, roles

HEADER = "TV_ID,Dialogue_ID,Utterance_ID,Speaker,Gender,Age,Scene,Sentiment,Emotion,DA,Utterance"


def rows(folder: Path, name: str, *utterances: tuple[str, str, str, str, str]) -> Path:
    """A list of (dialogue, speaker, gender, emotion, words)."""
    lines = [
        f"27,{dialogue},{dialogue}_{number:03d},{speaker},{gender},young,home,neutral,{emotion},greeting,{words}"
        for number, (dialogue, speaker, gender, emotion, words) in enumerate(utterances)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join([HEADER, *lines]), encoding="utf-8-sig")
    return folder


def test_utterances_in_a_row_stay_turns_and_styles_are_the_corpuss(tmp_path: Path) -> None:
    """Joined, two emotions would become one; an unknown gender must not be invented."""
    said = [
        ("1", "林", "female", "worried", "喂"),
        ("1", "林", "female", "grateful", "谢谢"),
        ("1", "陆", "unknown", "negative-other", "嗯"),
    ]
    reading = read(CORPUS, rows(tmp_path, "valid_split.csv", *said))
    (dialogue,) = reading.dialogues
    assert roles(dialogue) == "uua"
    assert [turn.style.emotion for turn in dialogue.turns] == ["fearful", "happy", None]
    assert [turn.style.gender for turn in dialogue.turns] == ["female", "female", None]
    assert all(turn.audio is None and turn.meta["audio"] == "none" for turn in dialogue.turns)
    assert dialogue.scene["split"] == "val"


def test_what_cannot_be_used_is_rejected_by_name(tmp_path: Path) -> None:
    """One bad dialogue must not cost the others, and none may disappear."""
    three = [("1", name, "male", "happy", "好") for name in "abc"]
    new = [("2", "a", "male", "happy", "好"), ("2", "b", "male", "smug", "好")]
    sound = [("3", "a", "male", "happy", "好"), ("3", "b", "male", "happy", "好")]
    rows(tmp_path, "train_split.csv", *three, *new, *sound)
    reading = read(CORPUS, tmp_path)
    assert [dialogue.id for dialogue in reading.dialogues] == ["train/3"]
    assert [error.reason for error in reading.rejects] == ["not_two_speakers", "unknown_emotion"]
    assert "dialogue '1'" in reading.rejects[0].where
    (tmp_path / "test_split.csv").write_text("TV_ID,Speaker\n27,a\n")
    assert reasons(read(CORPUS, tmp_path))["missing_column"] == 1
    with pytest.raises(DataError, match=r"\[no_file\]"):
        read(CORPUS, tmp_path / "nothing")


@needs("cped")
def test_the_real_test_split(tmp_path: Path) -> None:
    """Counts of the whole list, made apart from this code: 2,815 dialogues, 27 of them with three or four speakers."""
    packed = (SAMPLES / "cped" / "test_split.csv.xz").read_bytes()
    (tmp_path / "test_split.csv").write_bytes(lzma.decompress(packed))
    reading = read(CORPUS, tmp_path)
    assert len(reading.dialogues) == 2_788
    assert reasons(reading) == {"not_two_speakers": 27}
    assert {dialogue.scene["split"] for dialogue in reading.dialogues} == {"test"}
    kept = read(CORPUS, tmp_path, "second_speaker")
    assert len(kept.dialogues) == 2_788
    assert all(dialogue.turns[0].role == "user" for dialogue in kept.dialogues)

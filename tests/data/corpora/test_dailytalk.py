"""The reader of DailyTalk: its release (files written after its documentation), its lists, and our test set."""

import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from omnichat.audio import load_audio
from omnichat.data.corpora.dailytalk import CORPUS, listed, shared_scripts
from omnichat.data.corpora.emotions import emotion_map
from omnichat.data.corpora.reading import Choices, Reading, read_all
from omnichat.dialogue import DataError, Style

SAMPLES = Path(__file__).parents[4] / "shared" / "samples" / "dailytalk"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="DailyTalk's lists are not at ../shared/samples")
CHOICES = Choices("last_speaker", emotion_map("dailytalk"))
LONG = "i would like to have the large one with the handle that does not melt, please"


def read(folder: Path) -> Reading:
    return read_all(CORPUS, folder, CHOICES)


def release(folder: Path, dialogues: dict[int, list[tuple[int, str, str]]], audio: bool = True) -> Path:
    """`metadata.json` and `data/<dialogue>/<utterance>_<speaker>_d<dialogue>.wav`, as lhotse's recipe reads them."""
    metadata = {
        str(number): {
            str(turn): {
                "index": turn, "speaker": speaker, "text": text, "turn": turn, "topic": "Work", "emotion": emotion,
                "act": "inform",
            }
            for turn, (speaker, text, emotion) in enumerate(spoken)
        }
        for number, spoken in dialogues.items()
    }  # fmt: skip
    (folder / "dailytalk").mkdir(parents=True)
    (folder / "dailytalk" / "metadata.json").write_text(json.dumps(metadata))
    for number, spoken in dialogues.items() if audio else ():
        (folder / "dailytalk" / "data" / str(number)).mkdir(parents=True)
        for turn, (speaker, _, _) in enumerate(spoken):
            path = folder / "dailytalk" / "data" / str(number) / f"{turn}_{speaker}_d{number}.wav"
            soundfile.write(path, np.full(44_100 // 2, (turn + 1) / 10), 44_100)
    return folder


def spoken(count: int, first: int = 1, emotion: str = "no emotion") -> list[tuple[int, str, str]]:
    return [((first + turn) % 2, f"turn {turn}", emotion) for turn in range(count)]


def test_the_release_is_read_turn_by_turn(tmp_path: Path) -> None:
    """More than ten turns: sorted as text, turn 10 would follow turn 1. Gender by speaker, act and topic kept."""
    (dialogue,) = read(release(tmp_path, {7: spoken(12)})).dialogues
    assert (dialogue.id, dialogue.scene["topic"], dialogue.scene["script"]) == ("7", "Work", "7")
    assert [turn.text for turn in dialogue.turns] == [f"turn {turn}" for turn in range(12)]
    assert dialogue.turns[0].style == Style("female", "neutral")
    assert dialogue.turns[11].style.gender == "male"
    assert dialogue.turns[11].role == "assistant"
    assert dialogue.turns[0].meta == {"emotion": "no emotion", "act": "inform"}
    for number, turn in enumerate(dialogue.turns):
        assert turn.audio is not None
        assert turn.audio.num_samples == 8_000
        if number < 9:  # a file holds samples below one
            assert np.median(load_audio(turn.audio)) == pytest.approx((number + 1) / 10, abs=1e-3)


def test_without_any_audio_turns_say_that_they_have_none(tmp_path: Path) -> None:
    """Words only is of use, and must not look like audio that was lost."""
    (dialogue,) = read(release(tmp_path, {7: spoken(2)}, audio=False)).dialogues
    assert all(turn.audio is None and turn.meta["audio"] == "none" for turn in dialogue.turns)


def test_what_cannot_be_used_is_rejected_by_name(tmp_path: Path) -> None:
    """A missing recording among others, a gap in the turns, a new emotion, a third speaker: each with its dialogue."""
    wrong = {
        1: spoken(2),
        2: spoken(3),
        3: spoken(2, emotion="bored"),
        4: [*spoken(2), (2, "x", "anger")],
        5: spoken(2),
    }
    release(tmp_path, wrong)
    root = tmp_path / "dailytalk"
    (root / "data/1/1_0_d1.wav").unlink()
    metadata = json.loads((root / "metadata.json").read_text())
    del metadata["2"]["1"]
    (root / "metadata.json").write_text(json.dumps(metadata))
    reading = read(tmp_path)
    assert [dialogue.id for dialogue in reading.dialogues] == ["5"]
    found = [(error.where.split(":")[1], error.reason) for error in reading.rejects]
    reasons = ["no_file", "missing_turn", "unknown_emotion", "bad_layout"]
    assert found == [(f" dialogue {number}", reason) for number, reason in enumerate(reasons, start=1)]


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": {}}', '{"1": {"0": 3}}'])
def test_a_broken_list_is_named(content: str, tmp_path: Path) -> None:
    """A download that was cut off must not end in a traceback."""
    (tmp_path / "metadata.json").write_text(content)
    with pytest.raises(DataError, match=r"metadata.json: cannot be read .*fetch it again \[bad_json\]"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"holds no DailyTalk; expected is metadata.json beside data/"):
        read(tmp_path / "nothing")


def test_lists_are_read_like_the_release(tmp_path: Path) -> None:
    """Lines are shuffled there; a line of another form is named with its number."""
    lines = ["1_0_d23|0|{N OW1}|no.|happiness", "0_1_d23|1|{P AE1 N}|a pan.|none"]
    (tmp_path / "val_frame.txt").write_text("\n".join(lines))
    (dialogue,) = read(tmp_path).dialogues
    assert [(turn.text, turn.style.emotion) for turn in dialogue.turns] == [("a pan.", "neutral"), ("no.", "happy")]
    (tmp_path / "train_frame.txt").write_text("\n".join([*lines, "x|0|a|b"]))
    with pytest.raises(DataError, match=r"train_frame.txt: line 3 is not .*\[bad_layout\]"):
        read(tmp_path)
    (tmp_path / "train_frame.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"dialogues \[23\] stand in another list too"):
        read(tmp_path)


def test_dialogues_with_a_long_turn_in_common_are_one_script() -> None:
    """DailyTalk holds four dialogues twice and dozens of variants: over two splits they would be leaks."""
    texts = {1: ["hello", LONG], 2: ["bye"], 3: [LONG.upper() + "!", "hello"], 4: ["hello"], 5: [LONG + " x", "bye"]}
    assert shared_scripts(texts) == {1: 1, 2: 2, 3: 1, 4: 4, 5: 5}


def test_the_splits_that_ship() -> None:
    """A list that lost a line, or a dialogue in both, would change every number reported on it."""
    assert (len(listed("test")), len(listed("val"))) == (220, 128)
    assert not listed("test") & listed("val")


@needs_samples
def test_the_test_set_follows_its_rule() -> None:
    """The rule in the header of dailytalk_test.txt, applied to the real lists."""
    dialogues = {int(dialogue.id): dialogue for dialogue in read(SAMPLES).dialogues}
    val = {int(line.split("_d")[1].split("|")[0]) for line in (SAMPLES / "val_frame.txt").read_text().splitlines()}
    scripts = defaultdict(list)
    for number, dialogue in dialogues.items():
        scripts[dialogue.scene["script"]].append(number)
    drawn: list[int] = []
    for script in sorted(scripts, key=lambda script: hashlib.sha256(f"0\0{script}".encode()).hexdigest()):
        if not val & set(scripts[script]) and len(drawn) + len(scripts[script]) <= 220:
            drawn += scripts[script]
    assert listed("test") == set(drawn)
    assert listed("val") == val
    assert all(dialogue.scene["split"] == "test" for number, dialogue in dialogues.items() if number in set(drawn))


@needs_samples
def test_the_real_lists_are_read_whole() -> None:
    """Against the counts of the files themselves: 2,540 dialogues, 23,759 turns, their emotions."""
    reading = read(SAMPLES)
    assert reading.rejects == []
    turns = [turn for dialogue in reading.dialogues for turn in dialogue.turns]
    assert (len(reading.dialogues), len(turns)) == (2_540, 23_759)
    assert 100 * Counter(turn.style.emotion for turn in turns)["neutral"] / len(turns) == pytest.approx(79.3, abs=0.05)
    records = [json.loads(line) for line in (SAMPLES / "val_by_dialogue.jsonl").read_text().splitlines()]
    by_id = {dialogue.id: dialogue for dialogue in reading.dialogues}
    for record in records:
        assert [turn["text"] for turn in record["turns"]] == [
            turn.text for turn in by_id[str(record["dialog_id"])].turns
        ]

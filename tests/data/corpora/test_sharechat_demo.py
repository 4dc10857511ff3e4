"""The reader of ShareChatX's demo, on its own recordings."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from omnichat.audio import load_audio
from omnichat.data.corpora.emotions import emotion_map
from omnichat.data.corpora.reading import Choices, Reading, read_all
from omnichat.data.corpora.sharechat_demo import CORPUS
from omnichat.dialogue import DataError, Style

SAMPLES = Path(__file__).parents[4] / "shared" / "samples" / "sharechatx_demo"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the demo's recordings are not at ../shared/samples")


def read_sharechat_demo(folder: Path) -> Reading:
    return read_all(CORPUS, folder, Choices("second_speaker", emotion_map("sharechat_demo")))


def demo(folder: Path, **changes: object) -> Path:
    """A demo dialogue of three turns with one second of audio each."""
    turns = [
        {
            "speaker": "ABA"[number],
            "audio": f"{number}.wav",
            "text": f"turn {number}",
            "pitch": "High ",
            "speed": "Slow",
        }
        | {"emotion": "Happy"}
        for number in range(3)
    ]
    record = {"id": "x-1", "subset": "emotion", "turns": turns, "background_caption": None} | changes
    record |= {"derived_background": {"mode": "none"}}
    (folder / "x-1").mkdir(parents=True)
    for number in range(4):
        soundfile.write(folder / "x-1" / f"{number}.wav", np.full(16_000, number / 10), 16_000)
    (folder / "x-1" / "dialogue.json").write_text(json.dumps(record))
    return folder


def test_a_last_user_turn_without_a_known_answer_is_left_out(tmp_path: Path) -> None:
    """The page does not say what was answered: inventing it, or ending on the user, would be wrong."""
    (dialogue,) = read_sharechat_demo(demo(tmp_path)).dialogues
    assert [(turn.role, turn.text) for turn in dialogue.turns] == [("user", "turn 0"), ("assistant", "turn 1")]
    assert dialogue.turns[1].style == Style(None, "happy", "slow", "high")
    assert load_audio(dialogue.turns[1].audio)[0] == pytest.approx(0.1, abs=1e-4)


def test_an_answer_known_from_dailytalk_is_put_back(tmp_path: Path) -> None:
    """Three dialogues are DailyTalk's, whose texts are public."""
    answer = {"audio": "3.wav", "dailytalk": {"text": "glad to", "emotion": "happiness"}}
    (dialogue,) = read_sharechat_demo(demo(tmp_path, extra_audio=[answer])).dialogues
    assert len(dialogue.turns) == 4
    assert (dialogue.turns[3].role, dialogue.turns[3].text) == ("assistant", "glad to")
    assert dialogue.turns[3].style == Style(emotion="happy")


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"emotion": "Joyful"}, "unknown_emotion"),
        ({"pitch": "Highest"}, "unknown_style"),
        ({"audio": "9.wav"}, "no_file"),
        ({"audio": "../x-1/0.wav"}, "path_outside_root"),
        ({"text": None}, "wrong_type"),
        ({"speaker": "A"}, "not_two_speakers"),
    ],
)
def test_a_broken_dialogue_is_rejected_by_name(turn: dict[str, object], reason: str, tmp_path: Path) -> None:
    """One broken folder must neither stop the others nor vanish."""
    path = demo(tmp_path) / "x-1" / "dialogue.json"
    record = json.loads(path.read_text())
    record["turns"][1] |= turn
    path.write_text(json.dumps(record))
    reading = read_sharechat_demo(tmp_path)
    assert reading.dialogues == []
    assert [error.reason for error in reading.rejects] == [reason]
    assert str(path) in str(reading.rejects[0])


def test_a_folder_without_dialogues_is_named(tmp_path: Path) -> None:
    """A wrong path must not make an empty store."""
    with pytest.raises(DataError, match=r"\[no_file\]"):
        read_sharechat_demo(tmp_path)


@needs_samples
def test_the_real_demo_is_read_without_loss() -> None:
    """Every transcribed turn of the recordings at hand, their formats, and their float samples beyond one."""
    reading = read_sharechat_demo(SAMPLES)
    assert reading.rejects == []
    records = {path.parent.name: json.loads(path.read_text()) for path in SAMPLES.rglob("dialogue.json")}
    assert {dialogue.id for dialogue in reading.dialogues} == set(records)
    subtypes, peak = set(), 0.0
    for dialogue in reading.dialogues:
        for turn, record in zip(dialogue.turns, records[dialogue.id]["turns"], strict=False):
            assert turn.audio is not None
            assert turn.text == record["text"]
            assert turn.role == ("user" if record["speaker"] == "A" else "assistant")
            assert turn.style.emotion == record["emotion"].lower()
            assert turn.audio.num_samples == record["num_samples"]
            subtypes.add(record["subtype"])
            peak = max(peak, float(np.abs(load_audio(turn.audio)).max()))
        assert len(dialogue.turns) % 2 == 0
    assert subtypes == {"PCM_16", "PCM_32", "FLOAT"}
    assert peak > 1

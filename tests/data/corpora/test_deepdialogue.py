"""The reader of DeepDialogue: exact cuts, roles, and its recordings."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from omnichat.audio import load_audio
from omnichat.data.corpora.deepdialogue import CORPUS, SEGMENT, cut_at_silences
from omnichat.data.corpora.emotions import emotion_map
from omnichat.data.corpora.reading import Choices, Reading, RolePolicy, read_all
from omnichat.dialogue import DataError

SAMPLES = Path(__file__).parents[4] / "shared" / "samples" / "deepdialogue"
needs_samples = pytest.mark.skipif(
    not SAMPLES.is_dir(), reason="DeepDialogue's recordings are not at ../shared/samples"
)
RATE = 24_000


def read_deepdialogue(folder: Path, policy: RolePolicy = "last_speaker") -> Reading:
    return read_all(CORPUS, folder, Choices(policy, emotion_map("deepdialogue")))


def recording(levels: tuple[float, ...]) -> NDArray[np.float32]:
    """Half a second at each level, 0.3 s of silence between, 0.5 s at the end."""
    parts = []
    for number, level in enumerate(levels):
        silence = 0.5 if number == len(levels) - 1 else 0.3
        parts += [np.full(RATE // 2, level), np.zeros(int(silence * RATE))]
    return np.concatenate(parts).astype(np.float32)


def conversation(folder: Path, emotions: tuple[str, ...] = ("happy", "curious", "sad"), **changes: object) -> Path:
    """A conversation of these emotions in one voice."""
    spoken = [
        {"speaker": f"LLM{number % 2 + 1}", "text": f"turn {number}", "emotion": emotion}
        for number, emotion in enumerate(emotions)
    ]
    record = {"domain": "art", "model1": "a", "model2": "b", "conversation": spoken} | changes
    (folder / "1_3").mkdir(parents=True)
    (folder / "1_3" / "1_3.json").write_text(json.dumps(record))
    levels = tuple((number + 1) / 10 for number in range(len(emotions)))
    soundfile.write(folder / "1_3" / "1_3_xtts.wav", recording(levels), RATE)
    return folder


def test_cuts_fall_exactly_on_the_silences() -> None:
    """By hand: a short run of zeros within a turn is speech, a long one is a gap, also at both ends."""
    silence, speech, pause = np.zeros(100), np.ones(50), np.zeros(80)
    samples = np.concatenate([silence, speech, pause, speech, silence, speech, silence])
    assert cut_at_silences(samples, 1_000) == [(100, 280), (380, 430)]
    assert cut_at_silences(np.ones(10), 1_000) == [(0, 10)]
    assert cut_at_silences(np.zeros(200), 1_000) == []


def test_each_turn_gets_its_own_stretch(tmp_path: Path) -> None:
    """A cut that is off by one turn gives every emotion the wrong voice."""
    (dialogue,) = read_deepdialogue(conversation(tmp_path)).dialogues
    assert dialogue.id == "art/1_3/xtts"
    for number, turn in enumerate(dialogue.turns):
        assert turn.audio is not None
        assert turn.audio.num_samples == 8_000
        middle = load_audio(turn.audio)[1_000:-1_000]
        np.testing.assert_allclose(middle, (number + 1) / 10, atol=1e-3)
    assert [turn.style.emotion for turn in dialogue.turns] == ["happy", "neutral", "sad"]


def test_the_role_policy_decides_who_answers(tmp_path: Path) -> None:
    """Three turns: the last speaker is the first, so one policy keeps all turns and the other drops one."""
    conversation(tmp_path)
    roles = {
        policy: [turn.role for turn in read_deepdialogue(tmp_path, policy).dialogues[0].turns]
        for policy in ("last_speaker", "second_speaker")
    }
    assert roles == {"last_speaker": ["assistant", "user", "assistant"], "second_speaker": ["user", "assistant"]}


def test_what_cannot_be_used_is_rejected_by_name(tmp_path: Path) -> None:
    """Cuts that do not match the text, new emotions, missing recordings and broken files; an index is none of them."""
    conversation(tmp_path / "a", ("happy", "melancholy"))
    conversation(tmp_path / "b")
    soundfile.write(tmp_path / "b/1_3/1_3_xtts.wav", recording((0.1, 0.2)), RATE)
    (conversation(tmp_path / "c") / "1_3/1_3_xtts.wav").unlink()
    (conversation(tmp_path / "d") / "1_3/1_3.json").write_text("{")
    conversation(tmp_path / "e", domain=None, conversation=[{"speaker": "LLM1"}])
    (tmp_path / "index.json").write_text('{"domains": {}}')
    reading = read_deepdialogue(tmp_path)
    assert reading.dialogues == []
    reasons = ["unknown_emotion", "cut_mismatch", "no_file", "bad_layout", "bad_layout"]
    assert [error.reason for error in reading.rejects] == reasons
    assert "falls into 2 stretches at its silences, the text has 3 turns" in str(reading.rejects[1])
    with pytest.raises(DataError, match=r"\[no_file\]"):
        read_deepdialogue(tmp_path / "a" / "nothing")


@needs_samples
def test_the_real_recordings_are_cut_where_they_were_measured() -> None:
    """All recordings at hand, against boundaries measured apart from this code."""
    reading = read_deepdialogue(SAMPLES / "static")
    measured = json.loads((SAMPLES / "turn_boundaries.derived.json").read_text())
    assert {error.reason for error in reading.rejects} <= {"no_file"}
    assert len(reading.dialogues) == len(measured) > 0
    for dialogue in reading.dialogues:
        refs = [turn.audio for turn in dialogue.turns if turn.audio is not None]
        name = Path(refs[0].path).relative_to(SAMPLES).as_posix()
        expected = [(round(start * 2 / 3), round(stop * 2 / 3)) for start, stop in measured[name]["turn_samples"]]
        assert [(ref.start, ref.start + ref.num_samples) for ref in refs] == expected
        assert all(np.isfinite(load_audio(ref)).all() for ref in refs)
        assert dialogue.turns[-1].role == "assistant"


def hub(folder: Path, segments: bool = True) -> Path:
    """One conversation as the hub lays it out, with segments or the whole recording."""
    made = conversation(folder / "made")
    root = folder / "DeepDialogue-xtts" / "data" / "dialogues_gemma3-4B_phi4-14B"
    (root / "art_1_3").mkdir(parents=True)
    (made / "1_3" / "1_3.json").rename(root / "art_1_3.json")
    if segments:
        (root / "art_1_3" / "segments").mkdir()
        for number, emotion in enumerate(("happy", "calm", "sad"), start=1):
            name = f"{number:03d}_LLM{(number - 1) % 2 + 1}_{emotion}.wav"
            soundfile.write(root / "art_1_3" / "segments" / name, np.full(RATE, number / 10), RATE)
    else:
        (made / "1_3" / "1_3_xtts.wav").rename(root / "art_1_3" / "art_1_3_full.wav")
    (made / "1_3" / "1_3_xtts.wav").unlink(missing_ok=True)
    (made / "1_3").rmdir()
    return root


@pytest.mark.parametrize("segments", [True, False], ids=["segments", "whole"])
def test_the_hub_layout(segments: bool, tmp_path: Path) -> None:
    """Segments by their numbers, else the whole recording cut; corpus, domain, models and acted emotion are kept."""
    hub(tmp_path, segments)
    (dialogue,) = read_deepdialogue(tmp_path).dialogues
    assert dialogue.id == "dialogues_gemma3-4B_phi4-14B/art_1_3/xtts"
    assert dialogue.scene["script"] == "dialogues_gemma3-4B_phi4-14B/art_1_3"
    assert (dialogue.scene["domain"], dialogue.scene["voice"]) == ("art", "xtts")
    assert [turn.meta["emotion"] for turn in dialogue.turns] == ["happy", "curious", "sad"]
    acted = ["happy", "calm", "sad"] if segments else [None] * 3
    assert [turn.meta.get("acted_emotion") for turn in dialogue.turns] == acted
    for number, turn in enumerate(dialogue.turns, start=1):
        assert turn.audio is not None
        assert turn.audio.num_samples == (16_000 if segments else 8_000)
        assert np.median(load_audio(turn.audio)) == pytest.approx(number / 10, abs=0.01)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("002_LLM2_calm.wav", "004_LLM2_calm.wav", "segment_mismatch"),
        ("002_LLM2_calm.wav", "002_LLM1_calm.wav", "segment_mismatch"),
        ("002_LLM2_calm.wav", "003_LLM2_calm.wav", "bad_layout"),
        ("002_LLM2_calm.wav", "two.wav", "bad_layout"),
    ],
)
def test_segments_that_do_not_fit_the_text_are_rejected(old: str, new: str, reason: str, tmp_path: Path) -> None:
    """Half a download shifts every later turn."""
    segments = hub(tmp_path) / "art_1_3" / "segments"
    (segments / old).rename(segments / new)
    reading = read_deepdialogue(tmp_path)
    assert reading.dialogues == []
    assert [error.reason for error in reading.rejects] == [reason]


def test_one_script_in_two_voices_is_one_group(tmp_path: Path) -> None:
    """The same words in train and test, spoken by another engine, would be a leak."""
    hub(tmp_path / "a")
    hub(tmp_path / "b").parents[1].rename(tmp_path / "b" / "DeepDialogue-orpheus")
    one, other = read_deepdialogue(tmp_path).dialogues
    assert one.id != other.id
    assert CORPUS.group(one) == CORPUS.group(other)


@needs_samples
def test_real_names_of_segments_are_understood() -> None:
    """The names of the hub's segments that its authors list for emotion recognition."""
    names = [line.split(",")[0] for line in (SAMPLES / "ser/val.csv").read_text().splitlines()[1:]]
    assert len(names) > 300
    for name in names:
        _, script, folder, segment = name.rsplit("/", 3)
        assert (folder, SEGMENT.fullmatch(segment) is not None) == ("segments", True), name
        assert script.rsplit("_", 2)[0]

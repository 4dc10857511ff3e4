"""The reader of InteractSpeech: turns from two tracks, interruptions and overlaps."""

import json
from pathlib import Path

import numpy as np
import soundfile

from omnichat.audio import load_audio
from omnichat.data.corpora.interactspeech import CORPUS
from tests.corpora import SAMPLES, needs, read, reasons, roles

RATE = 22_050


def dialogue(folder: Path, text: str, a: list[list[int]], b: list[list[int]], length: int = 3 * RATE) -> Path:
    """A dialogue whose tracks hold 0.5 in A's turns, 0.25 in B's, and exact silence elsewhere."""
    folder.mkdir(parents=True)
    record = {"original_dialog_id": "", "processed_dialogue": text, "speakerA_time": a, "speakerB_time": b}
    (folder / "information.json").write_text(json.dumps(record))
    for name, times, level in (("a", a, 0.5), ("b", b, 0.25)):
        track = np.zeros(length, dtype=np.float32)
        for start, stop in times:
            track[start:stop] = level
        soundfile.write(folder / f"dialogue_speaker{name}.wav", track, RATE, subtype="FLOAT")
    return folder


def test_each_turn_is_heard_alone_though_they_overlap(tmp_path: Path) -> None:
    """From the mix, or from the other's track, a turn would hold the other's words."""
    text = "A: I was going to [interrupt] say hello.\nB: Stop!\nA: All right.\nB: Good."
    times = ([[0, 20_000], [40_000, 50_000]], [[10_000, 30_000], [50_000, 66_150]])
    dialogue(tmp_path / "one", text, *times)
    (read_dialogue,) = read(CORPUS, tmp_path).dialogues
    assert roles(read_dialogue) == "uaua"
    turns = read_dialogue.turns
    assert [turn.text for turn in turns] == ["I was going to", "Stop!", "All right.", "Good."]
    for turn, expected in zip(turns, (0.5, 0.25, 0.5, 0.25), strict=True):
        assert turn.audio is not None
        np.testing.assert_allclose(load_audio(turn.audio)[500:-500], expected, atol=1e-3)
    assert [turn.meta.get("interrupted") for turn in turns] == ["yes", None, None, None]
    assert [turn.meta.get("planned") for turn in turns] == ["say hello.", None, None, None]
    assert [turn.meta.get("overlap") for turn in turns] == [None, "10000", None, None]
    assert [(turn.meta["start"], turn.meta["stop"]) for turn in turns][1] == ("10000", "30000")


def test_what_cannot_be_used_is_rejected_by_name(tmp_path: Path) -> None:
    """A missing time would shift all later turns of a speaker by one."""
    dialogue(tmp_path / "a", "A: hi\nB: yes\nA: no", [[0, 9_000]], [[9_000, 18_000]])
    dialogue(tmp_path / "b", "A: hi\nC: yes", [[0, 9_000]], [[9_000, 18_000]])
    dialogue(tmp_path / "c", "A: hi\nB: yes", [[0, 9_000]], [[9_000, 18_000]], length=9_000)
    (dialogue(tmp_path / "d", "A: hi\nB: yes", [[0, 9_000]], [[9_000, 18_000]]) / "dialogue_speakerb.wav").unlink()
    reading = read(CORPUS, tmp_path)
    assert reading.dialogues == []
    assert [error.reason for error in reading.rejects] == ["segment_mismatch", "bad_layout", "bad_times", "no_file"]
    assert all(error.where.startswith(str(tmp_path)) for error in reading.rejects)


@needs("interactspeech")
def test_the_real_dialogue_overlaps_by_ten_thousand_samples() -> None:
    """The one at hand, against its own tracks: what is outside the turns is exact silence, so nothing is lost."""
    reading = read(CORPUS, SAMPLES / "interactspeech")
    assert reasons(reading) == {}
    (one,) = reading.dialogues
    assert [turn.meta.get("overlap") for turn in one.turns] == [None, "10000", None, None, None]
    assert [turn.meta.get("interrupted") for turn in one.turns] == ["yes", None, None, None, None]
    assert one.turns[0].text.endswith("all that you've done for")
    for name in ("a", "b"):
        (path,) = (SAMPLES / "interactspeech").rglob(f"dialogue_speaker{name}.wav")
        track, rate = soundfile.read(path)
        assert rate == RATE
        inside = np.zeros(len(track), dtype=bool)
        for turn in one.turns:
            if turn.audio is not None and turn.audio.path == str(path):
                inside[int(turn.meta["start"]) : int(turn.meta["stop"])] = True
        assert inside.any()
        assert not track[~inside].any()

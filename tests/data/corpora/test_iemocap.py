"""The reader of IEMOCAP, on files written after its documentation: order, labels, and sessions that are left out."""

from pathlib import Path

import pytest

from omnichat.data.corpora.iemocap import CORPUS, leave_out
from omnichat.dialogue import DataError
from tests.corpora import levels, read, reasons, roles, write_levels

LINES = {
    "F000": ("006.2901", "008.2357", "neu", "Excuse me."),
    "M000": ("007.5000", "011.2000", "fru", "Do you have your forms?"),
    "F001": ("012.0000", "013.0000", "xxx", "Yeah."),
    "MXX0": ("013.5000", "014.0000", None, "[LAUGHTER]"),
}


def session(folder: Path, number: int, name: str = "impro01") -> Path:
    """A dialogue of four turns, the last one without label and recording; transcriptions are not in order."""
    top = folder / "IEMOCAP_full_release" / f"Session{number}"
    dialogue = f"Ses0{number}F_{name}"
    (top / "dialog" / "transcriptions").mkdir(parents=True, exist_ok=True)
    (top / "dialog" / "EmoEvaluation").mkdir(parents=True, exist_ok=True)
    transcription, evaluation = ["M: [BREATHING]"], ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
    for place, (turn, (start, stop, emotion, words)) in enumerate(LINES.items(), start=1):
        transcription.append(f"{dialogue}_{turn} [{start}-{stop}]: {words}")
        if emotion is not None:
            evaluation.append(
                f"[{float(start)} - {float(stop)}]\t{dialogue}_{turn}\t{emotion}\t[2.5000, 2.5000, 2.5000]"
            )
            evaluation.append("C-E2:\tNeutral;\t(na\xefve)")
            write_levels(top / "sentences" / "wav" / dialogue / f"{dialogue}_{turn}.wav", [place / 10])
    (top / "dialog" / "transcriptions" / f"{dialogue}.txt").write_text("\n".join(reversed(transcription)))
    (top / "dialog" / "transcriptions" / f"._{dialogue}.txt").write_bytes(b"\x00\x05\x16\x07\xff")
    (top / "dialog" / "EmoEvaluation" / f"{dialogue}.txt").write_text("\n".join(evaluation), encoding="latin-1")
    return folder


def test_turns_are_in_the_order_of_time_with_the_evaluators_label(tmp_path: Path) -> None:
    """A label that no evaluators agreed on, or that was never given, is no target; and gender stands in the name."""
    reading = read(CORPUS, session(tmp_path, 1))
    assert reasons(reading) == {}
    (dialogue,) = reading.dialogues
    assert dialogue.id == "Ses01F_impro01"
    assert roles(dialogue) == "uaua"
    assert [turn.style.gender for turn in dialogue.turns] == ["female", "male", "female", "male"]
    assert [turn.style.emotion for turn in dialogue.turns] == ["neutral", "angry", None, None]
    assert levels(dialogue) == [0.1, 0.2, 0.3, None]
    assert [turn.meta.get("emotion") for turn in dialogue.turns] == ["neu", "fru", "xxx", None]
    assert dialogue.turns[1].meta["start"] == "007.5000"  # while the first one speaks
    assert dialogue.scene["unnamed_lines"] == "1"


def test_one_session_is_left_out(tmp_path: Path) -> None:
    """An actor who is heard in training and in the test makes the test easier than it is."""
    for number in (1, 2, 5):
        session(tmp_path, number)
        session(tmp_path, number, "script02_1") if number == 5 else None
    whole = read(CORPUS, tmp_path).dialogues
    assert [CORPUS.group(dialogue) for dialogue in whole] == ["Session1", "Session2", "Session5", "Session5"]
    assert not any("split" in dialogue.scene for dialogue in whole)
    left_out = read(leave_out(5), tmp_path).dialogues
    assert [dialogue.scene["split"] for dialogue in left_out] == ["train", "train", "test", "test"]


def test_what_cannot_be_used_is_rejected_by_name(tmp_path: Path) -> None:
    """A dialogue without its evaluations would have no labels, silently."""
    session(tmp_path, 3)
    (evaluation,) = tmp_path.rglob("EmoEvaluation/*.txt")
    evaluation.write_bytes(evaluation.read_bytes().replace(b"\tneu\t", b"\tbored\t"))
    assert reasons(read(CORPUS, tmp_path)) == {"unknown_emotion": 1}
    evaluation.unlink()
    assert reasons(read(CORPUS, tmp_path)) == {"no_file": 1}
    with pytest.raises(DataError, match=r"Session<n>/dialog/transcriptions.*\[no_file\]"):
        read(CORPUS, tmp_path / "nothing")

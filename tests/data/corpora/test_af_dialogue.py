"""The reader of AF-Dialogue, on files written after the code that reads it: the sound, and the words about it."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnichat.data.corpora.af_dialogue import CORPUS
from omnichat.dialogue import DataError
from tests.corpora import levels, read, reasons, roles, write_levels

ROUNDS = [{"user": "What is heard?", "assistant": "A dog."}, {"user": "How many?", "assistant": "Two."}]


def written(path: Path, content: Any) -> Path:
    """A list below a folder, which is returned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path.parent


def test_the_sound_is_the_first_turns_audio_where_it_is_there(tmp_path: Path) -> None:
    """Nobody speaks: on later turns the sound would be heard again and again; and what is heard are not the words."""
    records = [{"audio_id": name, "dialogue": ROUNDS} for name in ("Yabc.wav", "Ydef", "clips/Yghi.flac", "Ygone.wav")]
    written(tmp_path / "dialogues_audioset_thresholded.json", records)
    for number, name in enumerate(("Yabc.wav", "Ydef.wav", "clips/Yghi.flac"), start=1):
        write_levels(tmp_path / f"{name}.wav", [number / 10]).rename(tmp_path / name)
    reading = read(CORPUS, tmp_path)
    assert reasons(reading) == {}
    assert [levels(dialogue)[0] for dialogue in reading.dialogues] == [0.1, 0.2, 0.3, None]
    first, *_, gone = reading.dialogues
    assert roles(first) == "uaua"
    assert [turn.meta for turn in first.turns] == [{"audio": "sound"}, *[{"audio": "none"}] * 3]
    assert [turn.text for turn in gone.turns] == ["What is heard?", "A dog.", "How many?", "Two."]
    assert CORPUS.group(first) == "Yabc.wav"


def test_a_manifest_reads_too(tmp_path: Path) -> None:
    """What upstream's script writes of such a list, under other names."""
    manifest = {"dataset_path": "/x", "total_num": 1, "data": {"0": {"name": "a.wav", "dialogue": ROUNDS}}}
    written(tmp_path / "dialog_MusicCaps-Dialog" / "train.json", manifest)
    (dialogue,) = read(CORPUS, tmp_path).dialogues
    assert dialogue.scene["script"] == "a.wav"


def test_what_cannot_be_used_is_rejected_by_name(tmp_path: Path) -> None:
    """One bad dialogue must not cost the others; a clip's name that leaves the folder finds nothing."""
    write_levels(tmp_path / "outside.wav", [0.9])
    records: list[Any] = [
        {"audio_id": "../outside.wav", "dialogue": ROUNDS},
        {"audio_id": "b.wav", "dialogue": []},
        {"audio_id": "c.wav", "dialogue": [{"user": "x", "assistant": " "}]},
        {"audio_id": "d.wav"},
        "e.wav",
    ]
    reading = read(CORPUS, written(tmp_path / "corpus" / "dialogues_musiccaps_thresholded.json", records))
    assert [levels(dialogue) for dialogue in reading.dialogues] == [[None] * 4]
    assert [error.reason for error in reading.rejects] == ["no_turns", "empty_text", "bad_layout", "bad_layout"]
    with pytest.raises(DataError, match=r"\[no_file\]"):
        read(CORPUS, tmp_path / "nothing")

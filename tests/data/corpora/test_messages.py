"""Dialogues in the form of chat frameworks: each turn keeps its own recording, and nothing is left over in silence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from omnichat.data.corpora.emotions import emotion_map
from omnichat.data.corpora.messages import turns_of
from omnichat.data.corpora.reading import Choices, read_all
from omnichat.data.corpora.table import Layout, corpus
from omnichat.dialogue import DataError

ASKED = [
    ("user", "I am home.", "a.wav"),
    ("assistant", "Hello.", None),
    ("user", "", "b.wav"),
    ("assistant", "Oh", None),
]


def tagged(role: str, content: str) -> list[dict[str, Any]]:
    """The dialogue under these names of its keys."""
    names = {"user": "human", "assistant": "gpt"} if role == "from" else {}
    return [{role: "system", content: "Be kind."}] + [
        {role: names.get(who, who), content: ("<audio>" if path else "") + words} for who, words, path in ASKED
    ]


def parts(audio: str | None, words: str) -> list[dict[str, Any]]:
    """A message's content as a list."""
    heard = [{"type": "audio", "audio": audio}] if audio else []
    return [*heard, *([{"type": "text", "text": words}] if words else [])]


FORMS = {
    "swift": {"messages": tagged("role", "content"), "audios": ["a.wav", "b.wav"]},
    "sharegpt": {"id": "x", "conversations": tagged("from", "value"), "audios": ["a.wav", "b.wav"]},
    "qwen": {"messages": [{"role": who, "content": parts(path, words)} for who, words, path in ASKED]},
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_say_the_same(form: str, tmp_path: Path) -> None:
    """Shifted by one, every turn would be heard with another's recording."""
    for name, value in (("a.wav", 0.25), ("b.wav", 0.5)):
        soundfile.write(tmp_path / name, np.full(16_000, value), 16_000)
    (tmp_path / "data.jsonl").write_text(json.dumps(FORMS[form]) + "\n")
    made = corpus("x", "CC0-1.0", "tests", "table", Layout())
    reading = read_all(made, tmp_path, Choices("last_speaker", emotion_map("table")))
    assert reading.rejects == []
    (dialogue,) = reading.dialogues
    assert dialogue.id == ("x" if form == "sharegpt" else "line1")
    found = [(turn.role, turn.text, turn.audio and Path(turn.audio.path).name) for turn in dialogue.turns]
    assert found == ASKED


def test_answers_without_loss_are_context(tmp_path: Path) -> None:
    """ms-swift's `loss` decides what its models learn; dropped in silence, ours would learn what was ruled out."""
    loss = [None, False, False, True, None, False]
    said = ["user", "assistant"] * 3
    messages = [
        {"role": role, "content": "x"} | ({} if one is None else {"loss": one})
        for role, one in zip(said, loss, strict=True)
    ]
    (tmp_path / "data.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    reading = read_all(corpus("x", "", "", "table", Layout()), tmp_path, Choices("last_speaker", emotion_map("table")))
    (dialogue,) = reading.dialogues
    assert [turn.learn for turn in dialogue.turns] == [True, False, True, True]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"audios": ["a.wav"]}, "more <audio> than recordings"),
        ({"audios": ["a.wav", "b.wav", "c.wav"]}, "1 recordings have no <audio>: 'c.wav'"),
        ({"messages": [{"role": "user", "content": "<audio><audio>"}]}, "a turn has 2 recordings"),
        ({"messages": [{"role": "tool", "content": "x"}], "audios": []}, "role 'tool' is none of"),
        ({"messages": [{"role": "user", "content": "x", "loss": True}], "audios": []}, "loss is true in a user turn"),
    ],
)
def test_what_does_not_match_is_named_by_its_line(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    """A recording without a place, or a place without a recording, is a dialogue that nobody meant."""
    record = FORMS["swift"] | change
    with pytest.raises(ValueError, match=said):
        turns_of(record)
    (tmp_path / "data.jsonl").write_text(json.dumps(FORMS["qwen"]) + "\n" + json.dumps(record) + "\n")
    with pytest.raises(DataError, match=rf"data\.jsonl:2: (.|\n)*{said}"):
        read_all(corpus("x", "", "", "table", Layout()), tmp_path, Choices("last_speaker", emotion_map("table")))

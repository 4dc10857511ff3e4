"""Dialogues and their JSONL form: what is written is read back, what is broken is named."""

import json
import pickle
from pathlib import Path

import pytest

from omnichat.dialogue import (
    STYLE_VALUES,
    AudioRef,
    DataError,
    Dialogue,
    Style,
    Turn,
    check_dialogue,
    dialogue_from_json,
    dialogue_to_json,
    read_dialogues,
    write_dialogues,
)

RECORD = {
    "id": "d1",
    "source": "tests",
    "scene": {"scenario": "rain"},
    "turns": [
        {
            "role": "user",
            "text": "hi",
            "audio": {"path": "audio/a.wav", "num_samples": 1600, "start": 5, "channel": 1, "sha256": "ab" * 32},
            "meta": {"emotion": "curious"},
        },
        {"role": "assistant", "text": "hello", "style": {"gender": "female", "emotion": "happy"}},
    ],
}


def line(**changes: object) -> str:
    """A sound line with some of its keys changed."""
    return json.dumps(RECORD | changes)


def with_turn(number: int, **changes: object) -> str:
    """A sound line with some keys of one turn changed."""
    turns = [dict(turn) for turn in RECORD["turns"]]
    turns[number] |= changes
    return line(turns=turns)


def test_a_dialogue_survives_the_trip_through_jsonl(tmp_path: Path) -> None:
    """A store that loses a field loses it for every run that reads it."""
    dialogue = Dialogue(
        "ü1",
        (
            Turn(
                "user",
                "早",
                Style(emotion="sad"),
                AudioRef(str(tmp_path / "audio" / "a b.wav"), 1600, 40, 1, sha256="0f" * 32),
                {"emotion": "weary"},
            ),
            Turn("assistant", "not like this", learn=False),
            Turn("assistant", "line\nbreak \u2028", Style("male", "happy", "slow", "low")),
        ),
        "tests",
        {"scenario": "rain"},
    )
    path = tmp_path / "train.jsonl"
    assert write_dialogues(path, [dialogue, dialogue]) == 2
    assert list(read_dialogues(path)) == [dialogue, dialogue]
    assert json.loads(path.read_text("utf-8").split("\n")[0])["turns"][0]["audio"]["path"] == "audio/a b.wav"
    assert len(path.read_bytes().split(b"\n")) == 3


def test_audio_is_found_beside_the_manifest(tmp_path: Path) -> None:
    """A store that was moved must still find its audio."""
    dialogue = dialogue_from_json(line(), tmp_path)
    assert dialogue.turns[0].audio == AudioRef(str(tmp_path / "audio/a.wav"), 1600, 5, 1, sha256="ab" * 32)
    assert dialogue_from_json(dialogue_to_json(dialogue, tmp_path), tmp_path) == dialogue


@pytest.mark.parametrize("field", STYLE_VALUES)
def test_a_style_value_outside_the_set_is_named_with_a_near_match(field: str) -> None:
    """A label that silently becomes another is a wrong target."""
    value = STYLE_VALUES[field][0]
    with pytest.raises(DataError, match=rf"{field} '{value.upper()}' .* did you mean '{value}'\?") as caught:
        Style(**{field: value.upper()})
    assert caught.value.reason == "unknown_style"


FAULTS = [
    ("{", "bad_json", "not JSON"),
    ("[" * 100_000, "bad_json", "not JSON"),
    ('{"id": ' + "9" * 5_000 + "}", "bad_json", "not JSON"),
    ("[]", "wrong_type", "id .string. and turns"),
    (line(id=3), "wrong_type", "id .string. and turns"),
    (line(turns={}), "wrong_type", "id .string. and turns"),
    (line(speaker="x"), "unknown_key", "unknown key.s. speaker"),
    (line(scene={"a": 1}), "wrong_type", "object of strings"),
    (line(scene=None), "wrong_type", "object of strings"),
    (line(source=None), "wrong_type", "source must be a string"),
    (line(turns=[3]), "wrong_type", "turn 0: a turn must be an object, got int"),
    (line(turns=[]), "no_turns", "has no turns"),
    (line(turns=RECORD["turns"][:1]), "no_assistant_turn", "nothing to learn; give one turn"),
    (line(turns=RECORD["turns"][1:]), "no_user_turn", "nothing to hear"),
    (line(turns=RECORD["turns"][::-1]), "last_turn_not_assistant", "drop the last user turn"),
    (with_turn(0, role="User"), "unknown_role", "turn 0: role 'User'"),
    (with_turn(0, role=["user"]), "unknown_role", "turn 0: role"),
    (with_turn(1, text=" \n"), "empty_text", "turn 1: this assistant turn needs words"),
    (with_turn(0, text="", audio=None), "empty_text", "turn 0: this user turn needs audio or words"),
    (with_turn(1, text=None), "wrong_type", "turn 1: text must be a string"),
    (with_turn(1, text="\ud800"), "bad_encoding", "half a surrogate pair"),
    (with_turn(1, mood="sad"), "unknown_key", "turn 1: unknown key.s. mood"),
    (with_turn(1, style={"emotion": "joyful"}), "unknown_style", "turn 1: emotion 'joyful' is not one of neutral"),
    (with_turn(1, style={"emotion": ["sad"]}), "unknown_style", "turn 1: emotion"),
    (with_turn(1, style={"mood": "sad"}), "unknown_style", "turn 1: style must be an object with keys among"),
    (with_turn(1, style="sad"), "unknown_style", "turn 1: style must be an object"),
    (with_turn(1, style=""), "unknown_style", "turn 1: style must be an object"),
    (with_turn(0, audio="a.wav"), "wrong_type", "turn 0: audio must be an object.*data_prep.table"),
    (with_turn(0, audio={"path": 3, "num_samples": 1}), "wrong_type", "turn 0: audio.path"),
    (with_turn(0, audio={"path": "a\0.wav", "num_samples": 1}), "wrong_type", "turn 0: audio.path"),
    (
        with_turn(0, audio={"path": "a.wav"}),
        "wrong_type",
        "turn 0: audio.num_samples .* got None; python -m data_prep.table",
    ),
    (with_turn(0, audio={"path": "a.wav", "num_samples": 1.5}), "wrong_type", "turn 0: audio.num_samples"),
    (with_turn(0, audio={"path": "a.wav", "num_samples": True}), "wrong_type", "turn 0: audio.num_samples"),
    (with_turn(0, audio={"path": "a.wav", "num_samples": -1}), "wrong_type", "turn 0: audio.num_samples"),
    (with_turn(0, audio={"path": "a.wav", "num_samples": 10**30}), "wrong_type", "turn 0: audio.num_samples"),
    (with_turn(0, audio={"path": "a.wav", "num_samples": 1, "begin": 2}), "wrong_type", "sha256, start only"),
    (with_turn(0, audio={"path": "a.wav", "num_samples": 1, "channel": -1}), "wrong_type", "audio.channel"),
    (with_turn(0, audio={"path": "a.wav", "num_samples": 1, "sha256": "F" * 64}), "wrong_type", "audio.sha256"),
    (with_turn(0, meta={"start": 1.5}), "wrong_type", "meta must be an object of strings"),
    (with_turn(1, learn="false"), "wrong_type", "turn 1: learn must be true or false, got 'false'"),
    (with_turn(1, learn=0), "wrong_type", "turn 1: learn must be true or false, got 0"),
    (with_turn(0, learn=True), "wrong_type", "turn 0: learn is true, but user turns are heard and never learnt"),
    (with_turn(1, learn=False), "no_target", "no assistant turn is learnt .* leave the dialogue out"),
    (
        line(turns=[*RECORD["turns"], *json.loads(with_turn(1, learn=False))["turns"]]),
        "last_turn_not_learnt",
        "the last turn is not learnt .* drop what follows turn 1,",
    ),
]


@pytest.mark.parametrize(("text", "reason", "message"), FAULTS, ids=[f"{f[1]}-{n}" for n, f in enumerate(FAULTS)])
def test_a_broken_line_is_named(text: str, reason: str, message: str, tmp_path: Path) -> None:
    """A traceback, or a default for what is missing, would leave the fault in the data."""
    with pytest.raises(DataError, match=message) as caught:
        dialogue_from_json(text, tmp_path)
    assert caught.value.reason == reason


@pytest.mark.parametrize("path", ["../a.wav", "/etc/passwd", "audio/../../a.wav", "link/a.wav", ".", "audio/.."])
def test_a_manifest_cannot_reach_outside_its_folder(path: str, tmp_path: Path) -> None:
    """A downloaded manifest must not make training read, and publish, other files."""
    root = tmp_path / "store"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(DataError) as caught:
        dialogue_from_json(with_turn(0, audio={"path": path, "num_samples": 1}), root)
    assert caught.value.reason == "path_outside_root"


def test_paths_that_stay_inside_are_kept(tmp_path: Path) -> None:
    """Links within the store are fine; one that runs in circles is merely a file that is not there."""
    (tmp_path / "here").symlink_to(tmp_path / "audio")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in ("here/a.wav", "audio/../audio/a.wav", "..a.wav", "loop/a.wav", "x" * 300):
        dialogue = dialogue_from_json(with_turn(0, audio={"path": path, "num_samples": 1}), tmp_path)
        assert dialogue.turns[0].audio == AudioRef(str(tmp_path / path), 1)


def test_a_file_names_the_line_of_its_first_fault(tmp_path: Path) -> None:
    """Among 80,000 lines the number is what mends it; blank lines, CRLF and a BOM are no faults."""
    path = tmp_path / "train.jsonl"
    good = line().encode()
    path.write_bytes(b"\xef\xbb\xbf" + good + b"\r\n\n" + good + b"\n" + with_turn(1, text="").encode() + b"\n")
    with pytest.raises(DataError, match=r"train.jsonl:4: dialogue 'd1': turn 1: .*\[empty_text\]"):
        list(read_dialogues(path))
    path.write_bytes(good + b"\n\xff\n")
    with pytest.raises(DataError, match=r"train.jsonl:2: .*\[bad_encoding\]"):
        list(read_dialogues(path))


def test_a_missing_or_empty_file_is_named(tmp_path: Path) -> None:
    """Zero dialogues would be a run that learns nothing."""
    with pytest.raises(DataError, match=r"no.jsonl: no such file.*\[no_file\]"):
        list(read_dialogues(tmp_path / "no.jsonl"))
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match=r"empty.jsonl: holds no dialogue \[empty_file\]"):
        list(read_dialogues(tmp_path / "empty.jsonl"))


def test_an_error_keeps_its_reason_and_place_between_processes() -> None:
    """Data workers send errors to the main process by pickle."""
    error = pickle.loads(pickle.dumps(DataError("too_short", "is short", "turn 2").at("a.jsonl:3")))
    assert (error.reason, error.where, str(error)) == (
        "too_short",
        "a.jsonl:3: turn 2",
        "a.jsonl:3: turn 2: is short [too_short]",
    )


def test_a_turn_is_learnt_unless_it_says_otherwise() -> None:
    """Stores of before the key existed mean what they meant; a user's turn never is, so false says nothing there."""
    assert [turn.learn for turn in dialogue_from_json(line()).turns] == [True, True]
    assert dialogue_from_json(with_turn(0, learn=False)) == dialogue_from_json(line())
    assert dialogue_from_json(with_turn(1, learn=None)) == dialogue_from_json(with_turn(1, learn=True))
    assert "learn" not in dialogue_to_json(dialogue_from_json(line()))


def test_a_dialogue_that_opens_with_the_assistant_is_allowed() -> None:
    """DailyTalk's role policy gives half of its dialogues this form."""
    turns = (Turn("assistant", "hi"), Turn("user", "hello"), Turn("assistant", "well"))
    check_dialogue(Dialogue("d", turns))

"""Replies on disk: nothing lost, nothing broken taken for whole."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from omnichat.dialogue import AudioRef, DataError
from omnichat.evaluation.replies import (
    Answer,
    answer_from_json,
    answer_to_json,
    appending,
    mend,
    read_answers,
    read_lines,
    replace_file,
    writing_alone,
)
from omnichat.recipes import ROOT
from omnichat.run_folder import REPLIES
from tests.disk import files_up_to


def test_round_trip(answers: list[Answer]) -> None:
    """What is written is what is read, unreadable styles and audio included."""
    assert [answer_from_json(answer_to_json(answer)) for answer in answers] == answers


def test_line_has_the_fields_that_others_read(answers: list[Answer]) -> None:
    """The format is a contract: style null where none could be read, audio as a path."""
    record = json.loads(answer_to_json(answers[3]))
    assert set(record) >= {"id", "split", "scene", "history", "reference", "reply", "gates", "seconds"}
    assert record["reply"] == {"style": None, "text": "oh oh oh", "raw": "oh oh oh"}
    assert record["reference"]["style"] == {"gender": "female", "emotion": "happy", "speed": "fast", "pitch": "high"}
    assert isinstance(record["history"][0]["audio"], str)
    assert record["gates"]["beats"] == 0.9


def test_audio_inside_the_repository_is_relative(answers: list[Answer]) -> None:
    """So that a run folder can move with its repository."""
    turn = answers[0].history[0]
    assert turn.audio is not None
    inside = type(turn)(turn.role, turn.text, turn.style, type(turn.audio)(str(ROOT / "corpora" / "a.flac"), 8000, 160))
    record = json.loads(answer_to_json(type(answers[0])(**{**_fields(answers[0]), "history": (inside,)})))
    assert record["history"][0] == {
        "role": "user",
        "text": "good morning.",
        "style": {},
        "audio": "corpora/a.flac",
        "num_samples": 8000,
        "start": 160,
    }


def test_audio_in_a_shard_keeps_its_place(answers: list[Answer]) -> None:
    """The report plays it; without its place it would play the start of the shard, or nothing."""
    turn = answers[0].history[0]
    audio = AudioRef("train/data-00000-of-00001.arrow", 8_000, 160, 0, 4_096, 20_000)
    changed = replace(answers[0], history=(replace(turn, audio=audio),))
    assert answer_from_json(answer_to_json(changed)).history[0].audio == audio


def _fields(answer: Answer) -> dict[str, object]:
    return {name: getattr(answer, name) for name in Answer.__slots__}


def test_order_in_the_file_does_not_matter(run_dir: Path) -> None:
    """Scores are drawn from the order read; a resumed run writes another order."""
    path = run_dir / REPLIES
    first = read_answers(path)
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert read_answers(path) == first


def break_file(path: Path, how: str) -> None:
    """Damage a replies file in one way."""
    lines = path.read_text().splitlines(keepends=True)
    record = json.loads(lines[1])
    if how == "no_file":
        path.unlink()
    elif how == "empty_file":
        path.write_text("\n")
    elif how == "truncated":
        path.write_text("".join(lines)[:-20])
    elif how == "bad_json":
        path.write_text(lines[0] + "{broken\n" + lines[2])
    elif how == "bad_encoding":
        path.write_bytes(lines[0].encode() + b"\xff\xfe\n")
    elif how == "duplicate_id":
        path.write_text("".join([*lines, lines[1]]))
    else:
        changes = {
            "no_reference": {"reference": None},
            "unknown_style": {"reply": {**record["reply"], "style": {"emotion": "hapy"}}},
            "wrong_type": {"gates": [0.5]},
            "mixed_models": {"model": "another"},
        }
        path.write_text(lines[0] + json.dumps(record | changes[how]) + "\n")


@pytest.mark.parametrize(
    ("how", "place"),
    [
        ("no_file", ""),
        ("empty_file", ""),
        ("truncated", ":6"),
        ("bad_json", ":2"),
        ("bad_encoding", ":2"),
        ("duplicate_id", ":7"),
        ("no_reference", ":2"),
        ("unknown_style", ":2"),
        ("wrong_type", ":2"),
        ("mixed_models", ""),
    ],
)
def test_broken_file_is_refused_by_line(run_dir: Path, how: str, place: str) -> None:
    """A score over half a file would be taken for the score."""
    path = run_dir / REPLIES
    break_file(path, how)
    with pytest.raises(DataError) as error:
        read_answers(path)
    assert error.value.reason == how
    assert f"{path}{place}: " in str(error.value)


def test_empty_reference_text_is_no_reference(run_dir: Path) -> None:
    """An empty string compares as zero with everything."""
    path = run_dir / REPLIES
    record = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps(record | {"reference": {"style": {}, "text": " "}}) + "\n")
    with pytest.raises(DataError, match="no_reference"):
        read_answers(path)


def test_mend_takes_out_the_line_that_a_kill_cut_short(run_dir: Path, answers: list[Answer]) -> None:
    """The others are kept, so that a resumed run makes one reply again, not all."""
    path = run_dir / REPLIES
    path.write_bytes(path.read_bytes()[:-30])
    assert mend(path) == answers[:-1]
    assert read_answers(path) == sorted(answers[:-1], key=lambda answer: (answer.split, answer.id))
    assert mend(path) == answers[:-1]


def test_mend_of_a_first_line_cut_short_leaves_an_empty_file(tmp_path: Path) -> None:
    """A kill within the very first reply."""
    path = tmp_path / REPLIES
    path.write_text('{"id": "a", "spl')
    assert mend(path) == []
    assert path.read_bytes() == b""
    assert mend(tmp_path / "absent.jsonl") == []


def test_mend_refuses_damage_in_the_middle(run_dir: Path) -> None:
    """That was no kill; throwing replies away in silence is not mending."""
    path = run_dir / REPLIES
    break_file(path, "bad_json")
    with pytest.raises(DataError, match="bad_json"):
        mend(path)


def test_bytes_that_are_no_text_are_not_mended(run_dir: Path) -> None:
    """Read with marks in their place the reply would stay as it is, and scoring refuse it, after every generation."""
    path = run_dir / REPLIES
    path.write_bytes(path.read_bytes().replace(b"enjoy the beach", b"enjoy the b\xffach", 1))
    for read in (read_answers, mend):
        with pytest.raises(DataError, match=rf"{REPLIES}:2: .*delete the line and make the replies again") as error:
            read(path)
        assert error.value.reason == "bad_encoding"


@pytest.mark.parametrize("how", ["bad_json", "no_reference", "unknown_style", "wrong_type"])
def test_the_cure_of_a_broken_line_cures_it(run_dir: Path, answers: list[Answer], how: str) -> None:
    """What scoring advises must not be refused by generation for the same line."""
    path = run_dir / REPLIES
    break_file(path, how)
    with pytest.raises(DataError, match=r":2: .*delete the line and make the replies again"):
        read_answers(path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], *lines[2:]]))
    assert mend(path)[0] == answers[0]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """With the file, and what becomes of it: lines that were whole stay, a file that is replaced stays as it was."""
    path = tmp_path / "lines.jsonl"

    def fill() -> None:
        with files_up_to(3000), appending(path) as add:
            for _ in range(100):
                add("x" * 100)

    with pytest.raises(OSError, match=r"lines before stay.*lines\.jsonl"):
        fill()
    assert len(read_lines(path)) == 29
    with pytest.raises(OSError, match=r"stays as it was.*lines\.jsonl"), files_up_to(1000):
        replace_file(path, b"y" * 2000)
    assert len(read_lines(path)) == 29
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    """Each would take the other's replies out of the file when it mends it."""
    with writing_alone(tmp_path), pytest.raises(DataError, match="another process"), writing_alone(tmp_path):
        pass
    with writing_alone(tmp_path):
        pass

"""What readers share: rejects, layouts, paths, roles."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from omnichat.data.corpora.reading import Reading, assign_roles, audio_below, find_layout, give_roles, said
from omnichat.dialogue import AudioRef, DataError, Turn


@pytest.mark.parametrize(
    "fault", [ValueError("x"), KeyError("x"), TypeError("x"), OverflowError(), RecursionError(), OSError("x")]
)
def test_one_broken_file_does_not_stop_a_corpus(fault: Exception) -> None:
    """It is named instead; what the reader's author did not think of is named too."""
    reading = Reading()
    with reading.rejecting("a/b.json"):
        raise fault
    assert str(reading.rejects[0]).startswith("a/b.json: ")
    assert reading.rejects[0].reason == ("no_file" if isinstance(fault, OSError) else "bad_layout")


def test_a_stop_is_not_a_reject() -> None:
    """Ctrl-C within a file must stop the conversion."""
    with pytest.raises(KeyboardInterrupt), Reading().rejecting("a"):
        raise KeyboardInterrupt


def test_a_layout_is_found_below_the_folders_of_an_archive(tmp_path: Path) -> None:
    """The nearest one: a copy further down is another corpus."""
    with pytest.raises(DataError, match=r"holds no list.csv; expected is list.csv beside x \[no_file\]"):
        find_layout(tmp_path, "list.csv", "list.csv beside x")
    for folder in ("a/b", "c"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "list.csv").touch()
    assert find_layout(tmp_path, "list.csv", "") == tmp_path / "c"


@pytest.mark.parametrize("name", ["../a.wav", "/etc/passwd", "x/../../a.wav", "", "a\0.wav"])
def test_a_list_cannot_reach_outside_its_folder(name: str, tmp_path: Path) -> None:
    """The file must not even be opened."""
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    with pytest.raises(DataError, match=r"\[path_outside_root\]"):
        audio_below(tmp_path / "in", name)
    assert audio_below(tmp_path, "a.wav").num_samples == 16_000


def test_roles_by_policy() -> None:
    """By hand: three turns, A first."""
    turns = [Turn("user", text) for text in "abc"]
    assert [turn.role for turn in assign_roles(turns, "ABA", "last_speaker")] == ["assistant", "user", "assistant"]
    assert [turn.text for turn in assign_roles(turns, "ABA", "second_speaker")] == ["a", "b"]
    for speakers in ("AAA", "ABC"):
        with pytest.raises(DataError, match=r"\[not_two_speakers\]"):
            assign_roles(turns, speakers, "last_speaker")


def test_utterances_in_a_row_stay_turns_of_their_own() -> None:
    """Joined, their audio would have to be joined too, and one of two styles would be lost."""
    turns = [Turn("user", text) for text in "abcde"]
    given = give_roles(turns, "SUUSU", "S")
    assert [(turn.role, turn.text) for turn in given] == [
        ("assistant", "a"),
        ("user", "b"),
        ("user", "c"),
        ("assistant", "d"),
    ]
    with pytest.raises(DataError, match=r"X, who would be the assistant, says nothing \[no_assistant_turn\]"):
        give_roles(turns, "SUUSU", "X")


def test_a_turn_without_audio_says_so() -> None:
    """Whoever finds it must see that the corpus has none there, not wonder who lost it."""
    assert said("a").meta == {"audio": "none"}
    assert said("a", meta={"emotion": "sad", "act": "", "age": None}).meta == {"audio": "none", "emotion": "sad"}
    assert said("a", AudioRef("a.wav", 16_000), meta={"emotion": "sad"}).meta == {"emotion": "sad"}
    assert said("a", AudioRef("a.wav", 16_000)).meta == {}

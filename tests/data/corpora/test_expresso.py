"""The reader of Expresso, on files written after its documentation: a speaker a channel, and no words."""

from pathlib import Path

import pytest

from omnichat.data.corpora.expresso import CORPUS
from omnichat.dialogue import DataError
from tests.corpora import levels, read, reasons, roles, write_levels

FILE = "ex04-ex01_animal-animaldir_005"
SEGMENTS = ["(0.0, 0.5) (1.0, 1.5)", "(0.45, 1.0) (1.5, 1.9)"]
WORDS = ["(0.0, 0.5)\twoof\n{0}\t(1.0, 1.5)\twoof woof", "(0.45, 1.0)\tgood dog\n{0}\t(1.5, 1.9)\tsit"]


def corpus(folder: Path, name: str = FILE, words: list[str] | None = None) -> Path:
    """A dialogue in two channels of four levels each, and a folder of read sentences."""
    folder.mkdir(parents=True, exist_ok=True)
    vad = ["#VAD segments of Expresso long files", "#MODEL: x"]
    vad += [f"{name}/channel{channel}\t{SEGMENTS[channel - 1]}" for channel in (1, 2)]
    (folder / "VAD_segments.txt").write_text("\n".join(vad))
    pair, styles, _ = name.split("_")
    path = folder / "audio_48khz" / "conversational" / pair / styles / f"{name}.wav"
    write_levels(path, [0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8], rate=48_000)
    write_levels(folder / "audio_48khz" / "read" / "ex01" / "happy" / "base" / "ex01_happy_00001.wav", [0.9])
    if words is not None:
        lines = [f"{name}/channel{channel}\t{line}" for channel, line in enumerate(words, start=1)]
        shown = "\n".join(line.format(line.partition("\t")[0]) for line in lines)
        (folder / "conversational_transcriptions.txt").write_text(shown)
    return folder


def test_the_release_alone_gives_no_dialogue_and_says_why(tmp_path: Path) -> None:
    """Answers without words, or read sentences with an invented question, would be made-up data."""
    reading = read(CORPUS, corpus(tmp_path / "expresso"))
    assert reading.dialogues == []
    assert reasons(reading) == {"no_transcript": 1, "no_answer": 1}
    assert "1 sentences read by one speaker" in str(reading.rejects[1])
    with pytest.raises(DataError, match=r"\[no_file\]"):
        read(CORPUS, tmp_path / "nothing")


def test_with_words_each_segment_is_heard_in_its_speakers_channel(tmp_path: Path) -> None:
    """Channel 1 is the first speaker's with the first style; exchanged, each would have the other's words."""
    (dialogue,) = read(CORPUS, corpus(tmp_path, words=WORDS)).dialogues
    assert [turn.text for turn in dialogue.turns] == ["woof", "good dog", "woof woof", "sit"]
    assert levels(dialogue) == [0.1, 0.6, 0.3, 0.8]
    assert roles(dialogue) == "uaua"
    assert [turn.meta["emotion"] for turn in dialogue.turns] == ["animal", "animaldir"] * 2
    assert {turn.style.emotion for turn in dialogue.turns} == {None}
    assert dialogue.turns[0].meta["text"] == "not the corpus's own"


def test_one_style_is_both_speakers(tmp_path: Path) -> None:
    """The name holds it once."""
    (dialogue,) = read(CORPUS, corpus(tmp_path / "a", "ex01-ex02_fast_001", WORDS)).dialogues
    assert {(turn.style.emotion, turn.style.speed) for turn in dialogue.turns} == {("neutral", "fast")}
    (dialogue,) = read(CORPUS, corpus(tmp_path / "b", "ex01-ex02_sad-sympathetic_001", WORDS)).dialogues
    assert [turn.style.emotion for turn in dialogue.turns] == ["sad", None, "sad", None]


def test_words_that_belong_to_no_segment_are_an_error(tmp_path: Path) -> None:
    """Of another segmentation the words would be given to other stretches; an answer without words is no answer."""
    corpus(tmp_path / "a", words=[WORDS[0].replace("(0.0, 0.5)", "(0.0, 0.6)"), WORDS[1]])
    assert reasons(read(CORPUS, tmp_path / "a"))["segment_mismatch"] == 1
    corpus(tmp_path / "b", words=[WORDS[0], "(0.45, 1.0)\tgood dog"])
    assert reasons(read(CORPUS, tmp_path / "b"))["empty_text"] == 1

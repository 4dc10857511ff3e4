"""Any table of turns: columns by option, times, roles, and what is wrong with it."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from omnichat.audio import load_audio
from omnichat.data.corpora.emotions import emotion_map
from omnichat.data.corpora.reading import Choices, Reading, read_all
from omnichat.data.corpora.table import Layout, corpus
from omnichat.dialogue import DataError, Style

COLUMNS = {"dialogue": "call", "speaker": "who", "text": "said", "audio": "file", "start": "from", "end": "to"}
CALLS = 'call,who,said,file,from,to,channel,emotion\n1,cust,hi,a.wav,0,2,0,Happy\n1,agent,"yes, I do",a.wav,2,4.5,1,\n'


LAYOUT = Layout(COLUMNS, audio_folder="wavs")


def read(folder: Path, layout: Layout = LAYOUT) -> Reading:
    made = corpus("calls", "CC0-1.0", "tests", "table", layout)
    return read_all(made, folder, Choices("last_speaker", emotion_map("table")))


def calls(folder: Path, text: str = CALLS, name: str = "calls.csv") -> Path:
    """Six seconds of a stereo call at 8 kHz; its left channel holds 0.25, its right 0.5."""
    (folder / "wavs").mkdir()
    soundfile.write(folder / "wavs" / "a.wav", np.tile([0.25, 0.5], (48_000, 1)), 8_000)
    (folder / name).write_text(text)
    return folder


def test_columns_times_and_channels(tmp_path: Path) -> None:
    """A turn must be heard from its own stretch and its own side of the telephone."""
    (dialogue,) = read(calls(tmp_path)).dialogues
    first, second = dialogue.turns
    assert (first.text, first.role, first.style) == ("hi", "user", Style(emotion="happy"))
    assert (second.text, second.role, second.style) == ("yes, I do", "assistant", Style())
    assert first.audio is not None
    assert second.audio is not None
    assert (first.audio.start, first.audio.num_samples, second.audio.start) == (0, 32_000, 32_000)
    assert second.audio.num_samples == 40_000
    assert np.median(load_audio(first.audio)) == pytest.approx(0.25, abs=1e-3)
    assert np.median(load_audio(second.audio)) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("form", ["csv", "tsv", "flat jsonl", "nested jsonl"])
def test_all_forms_say_the_same(form: str, tmp_path: Path) -> None:
    """One corpus, four ways to write it down; turns are ordered by their number where there is one."""
    rows = [
        {
            "dialogue": "d",
            "turn": 10,
            "role": "assistant",
            "text": "b",
            "gender": "Female",
            "group": "s",
            "split": "val",
        },
        {"dialogue": "d", "turn": 9, "role": "user", "text": "a", "gender": "", "group": "s", "split": "val"},
        {"dialogue": "d", "turn": 11, "role": "user", "text": "no answer", "gender": "", "group": "s", "split": "val"},
    ]
    if form == "nested jsonl":
        (tmp_path / "x.jsonl").write_text(json.dumps({"dialogue": "d", "group": "s", "split": "val", "turns": rows}))
    elif form == "flat jsonl":
        (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        delimiter = "\t" if form == "tsv" else ","
        lines = [delimiter.join(map(str, row.values())) for row in rows]
        (tmp_path / f"x.{form}").write_text("\n".join([delimiter.join(rows[0]), *lines]))
    (dialogue,) = read(tmp_path, Layout()).dialogues
    assert [(turn.role, turn.text, turn.meta) for turn in dialogue.turns] == [
        ("user", "a", {"audio": "none"}),
        ("assistant", "b", {"audio": "none"}),
    ]
    assert dialogue.turns[1].style == Style(gender="female")
    assert dialogue.scene == {"script": "s", "split": "val"}


def test_our_own_jsonl_needs_no_lengths(tmp_path: Path) -> None:
    """What README.md shows was read without its styles, in silence; the lengths are in the files."""
    calls(tmp_path, "", "empty.csv")
    style, scene = {"gender": "female", "emotion": "happy"}, {"script": "s", "group": "g", "scenario": "emotion"}
    answer = {"role": "assistant", "text": "b", "style": style}
    asked = [
        {"role": "user", "text": "a", "audio": "a.wav"},
        {"role": "user", "text": "a", "audio": {"path": "a.wav", "channel": 1}},
        {"role": "user", "text": "a", "audio": {"path": "a.wav", "start": 8_000, "num_samples": 16_000, "channel": 0}},
    ]
    lines = [
        {"id": f"d{number}", "scene": scene, "turns": [{"id": "t0", **turn}, answer]}
        for number, turn in enumerate(asked)
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, lines)))
    reading = read(tmp_path, Layout(table="mine.jsonl", audio_folder="wavs"))
    assert reading.rejects == []
    assert [dialogue.id for dialogue in reading.dialogues] == ["d0", "d1", "d2"]
    for dialogue in reading.dialogues:
        assert dialogue.turns[1].style == Style(**style)
        assert dialogue.scene == scene
    heard = [dialogue.turns[0].audio for dialogue in reading.dialogues]
    assert [(ref.start, ref.num_samples, ref.channel) for ref in heard if ref is not None] == [
        (0, 96_000, None), (0, 96_000, 1), (8_000, 16_000, 0),
    ]  # fmt: skip


def test_the_assistant_by_name(tmp_path: Path) -> None:
    """Who answers calls need not speak last; what follows the last answer has none and is left out."""
    calls(tmp_path, CALLS + "1,cust,bye,a.wav,5,6,0,\n")
    (named,) = read(tmp_path, Layout(COLUMNS, audio_folder="wavs", assistant="agent")).dialogues
    assert [turn.role for turn in named.turns] == ["user", "assistant"]
    (last,) = read(tmp_path).dialogues
    assert [turn.role for turn in last.turns] == ["assistant", "user", "assistant"]
    (nobody,) = read(tmp_path, Layout(COLUMNS, audio_folder="wavs", assistant="boss")).rejects
    assert nobody.reason == "no_assistant_turn"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("2,a,x,../calls.csv,0,1,0,", "path_outside_root"),
        ("2,a,x,b.wav,0,1,0,", "no_file"),
        ("2,a,x,a.wav,5,7,0,", "bad_times"),
        ("2,a,x,a.wav,3,2,0,", "bad_times"),
        ("2,a,x,a.wav,-1,2,0,", "bad_times"),
        ("2,a,x,a.wav,soon,2,0,", "bad_layout"),
        ("2,a,x,a.wav,nan,2,0,", "bad_layout"),
        ("2,a,x,a.wav,0,inf,0,", "bad_layout"),
        ("2,a,x,a.wav,0,1,left,", "bad_layout"),
        ("2,a,x,a.wav,0,1,0,melancholy", "unknown_emotion"),
        ("2,,x,a.wav,0,1,0,", "bad_layout"),
    ],
)
def test_a_dialogue_that_cannot_be_used_is_rejected_by_name(row: str, reason: str, tmp_path: Path) -> None:
    """With the line; the other dialogue stays."""
    reading = read(calls(tmp_path, f"{CALLS}{row}\n2,b,y,,,,,\n"))
    assert len(reading.dialogues) == 1
    assert [(error.reason, error.where.startswith(f"{tmp_path}/calls.csv:4")) for error in reading.rejects] == [
        (reason, True)
    ]


@pytest.mark.parametrize(
    ("text", "reason", "words"),
    [
        ("call,who,said\n1,a,b\n", "missing_column", r"no column for audio \('file'\), start \('from'\), end \('to'\)"),
        ("call,said,file,from,to\n", "empty_file", "holds no turn"),
        (
            CALLS + "1,a,b\n2,a,b,c,d,e,f,g,h\n,a,b,,,,,\n",
            "bad_layout",
            r"3 rows cannot be read(.|\n)*:4: (.|\n)*:5: (.|\n)*:6: ",
        ),
        (CALLS + '1,"a\n', "bad_layout", "not a sound CSV"),
        ("", "empty_file", "holds no turn"),
    ],
)
def test_a_broken_table_is_named_with_all_its_faults(text: str, reason: str, words: str, tmp_path: Path) -> None:
    """A row that is left out would leave a hole in a dialogue."""
    with pytest.raises(DataError, match=words) as caught:
        read(calls(tmp_path, text))
    assert caught.value.reason == reason


def test_which_table_is_asked_where_there_are_several(tmp_path: Path) -> None:
    """Taking the first would read half a corpus."""
    calls(tmp_path)
    (tmp_path / "b.tsv").touch()
    with pytest.raises(DataError, match=r"there is b.tsv, calls.csv; use --table"):
        read(tmp_path)
    assert len(read(tmp_path, Layout(COLUMNS, "calls.csv", "wavs")).dialogues) == 1
    for name in ("c.csv", "../x.csv"):
        with pytest.raises(DataError, match=r"\[no_file\]"):
            read(tmp_path, Layout(COLUMNS, name))
    (tmp_path / "b.tsv").write_bytes(b"call\twho\tsaid\n1\t\xff\tx")
    with pytest.raises(DataError, match=r"\[bad_encoding\]"):
        read(tmp_path / "b.tsv")


@pytest.mark.parametrize("by", ["role", "who"])
def test_a_column_says_which_answers_are_learnt(by: str, tmp_path: Path) -> None:
    """A spreadsheet marks the answers that were bad; behind the last good one there is nothing to learn."""
    names = {"user": "cust", "assistant": "agent"} if by == "who" else {}
    said = [("user", ""), ("assistant", "FALSE"), ("user", "0"), ("assistant", "1"), ("user", ""), ("assistant", "0")]
    rows = [f"1,{names.get(role, role)},x,{learn}" for role, learn in said]
    (tmp_path / "x.csv").write_text("\n".join([f"dialogue,{by},text,learn", *rows]) + "\n")
    layout = Layout({"speaker": "who"} if by == "who" else {})
    (dialogue,) = read(tmp_path, layout).dialogues
    assert [turn.learn for turn in dialogue.turns] == [True, False, True, True]
    (tmp_path / "x.csv").write_text(f"dialogue,{by},text,learn\n1,user,x,\n1,assistant,x,maybe\n")
    (fault,) = read(tmp_path, layout).rejects
    assert "line 3: learn is 'maybe'; it is true or false [wrong_type]" in str(fault)

"""`python -m data_prep.check`: exit codes, one line a fault, the table, the JSON; the same with one worker or two."""

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE

from data_prep.check import MAX_SHOWN, check, main
from omnichat.data.store_check import Options, parts_of
from tests.data.bad_input import CASES, Draft, sound_record, turn_is

ROOT = Path(__file__).parents[2]


def broken_store(root: Path) -> Path:
    """Two faults, two oddities, and many lines."""
    draft = Draft(root)
    draft.lines += [sound_record(3) | {"id": f"e{number}"} for number in range(500)]
    draft.file.unlink()
    turn_is(1, text="<|eot_id|>")(draft)
    draft.lines[302] = b"{\x1b[31m\xe2\x80\xa8"
    return draft.write()


def test_faults_are_printed_a_line_each_then_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A person reads the lines, a script the exit code and the JSON; control characters must not reach a terminal."""
    path = broken_store(tmp_path / "store")
    assert main([str(path), "--json", str(tmp_path / "found.json"), "--workers", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{path}:2: dialogue 'd2': turn 2: {path.parent}/audio/2-1.wav: no such audio file")
    assert lines[0].endswith("[no_file]")
    assert lines[1].startswith(f"{path}:303: not JSON")
    assert lines[2].split() == ["dialogues", "turns", "with", "audio", "hours"]
    assert lines[3].split() == ["train", "502", "2008", "1004", "0.28"]
    assert [line.split()[:2] for line in lines[4:]] == [
        ["faults:", "2"],
        ["bad_json", "1"],
        ["no_file", "1"],
        ["kept,", "but"],
        ["control_token", "1"],
    ]
    found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
    assert (found["sound"], found["reasons"], found["odd"]) == (
        False,
        {"bad_json": 1, "no_file": 1},
        {"control_token": 1},
    )
    assert [(fault["line"], fault["turn"]) for fault in found["faults"]] == [(2, 2), (303, None)]
    assert found["splits"]["train"]["dialogues"] == 502


def test_ids_of_one_part_at_a_time_are_kept(tmp_path: Path) -> None:
    """All ids of a large store together would fill the memory; a duplicate is found without, parts away."""
    draft = Draft(tmp_path / "store")
    turns = [{"role": "user", "text": "I am home."}, {"role": "assistant", "text": "Hm."}]
    draft.lines = [{"id": f"{row:04000d}", "source": "x", "turns": turns} for row in range(2_000)]
    draft.lines[1_900]["id"] = draft.lines[100]["id"]
    parts, faults = parts_of(draft.write())
    tracemalloc.start()
    check(parts, Options(decode=False), 1, faults)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(fault["reason"], fault["line"]) for fault in faults] == [("duplicate_id", 1_901)]
    assert ".jsonl:101 too" in faults[0]["message"]
    assert peak < 2_000 * 4_000  # a part, in several copies


def test_any_number_of_processes_finds_the_same(tmp_path: Path) -> None:
    """The order of the lines must not hang on who was quicker; nor may anything but the report be left behind."""
    path = broken_store(tmp_path / "store")
    before = sorted(path.parent.rglob("*"))
    command = [sys.executable, "-m", "data_prep.check", str(path), "--json"]
    results = [
        subprocess.run(
            [*command, str(tmp_path / f"{workers}.json"), "--workers", str(workers)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        for workers in (1, 2)
    ]
    assert [result.returncode for result in results] == [1, 1]
    assert results[0].stdout == results[1].stdout
    assert (tmp_path / "1.json").read_text() == (tmp_path / "2.json").read_text()
    assert sorted(path.parent.rglob("*")) == before


def test_a_sound_store_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A script goes on from there."""
    Draft(tmp_path / "store").write()
    assert main([str(tmp_path / "store"), "--workers", "1", "--no-decode"]) == 0
    assert "faults: 0\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [[], ["{}/nowhere"], ["{}"], ["{}/store", "--workers", "0"], ["{}/store", "--max-tokens", "5"], ["{}/store", "x"]],
)
def test_wrong_usage_ends_with_2(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path that is mistyped is no broken store."""
    Draft(tmp_path / "store").write()
    with pytest.raises(SystemExit) as caught:
        main([argument.format(tmp_path) for argument in arguments])
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"), [("{", "cannot be read as a tokenizer"), (None, "the tokenizer is of no chat format")]
)
def test_a_tokenizer_that_cannot_be_used_is_wrong_usage(
    content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no fault of any dialogue; and it ended in a traceback, for a tokenizer of another model too."""
    Draft(tmp_path / "store").write()
    (tmp_path / "tokenizer.json").write_text(Tokenizer(BPE()).to_str() if content is None else content)
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "store"), "--tokenizer", str(tmp_path), "--max-tokens", "500"])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_whatever_is_broken_takes_one_line_of_bounded_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten megabytes on a line, or a hundred lines for one fault, would hide all others."""
    for case in CASES:
        draft = Draft(tmp_path / case.name)
        case.make(draft)
        assert main([str(draft.write()), "--workers", "1", "--no-decode"]) in (0, 1)
        lines = capsys.readouterr().out.splitlines()
        at = next(number for number, line in enumerate(lines) if line.split()[0] == "dialogues")
        assert at <= 1
        assert all(len(line) <= MAX_SHOWN + 40 for line in lines)


def test_a_reader_that_has_enough_gets_no_traceback(tmp_path: Path) -> None:
    """`check STORE | head` is the usual way to look at a bad store; the JSON is written all the same."""
    path = tmp_path / "bad.jsonl"
    path.write_text('{"id": 1}\n' * 20_000)  # more than a pipe holds
    found = tmp_path / "found.json"
    command = (
        f"{sys.executable} -m data_prep.check {path} --workers 1 --json {found} | head -1; exit ${{PIPESTATUS[0]}}"
    )
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1
    assert result.stdout.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert json.loads(found.read_text())["reasons"] == {"wrong_type": 20_000}

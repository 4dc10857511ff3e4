"""The command."""

import json
from pathlib import Path

import pytest

from data_prep.quickstart.__main__ import main
from data_prep.synthesis.backends.embedded.espeak import Espeak

FEW = ["--train-scripts", "1", "--val-scripts", "1", "--test-scripts", "1"]


def test_makes_then_leaves_then_replaces(espeak: Espeak, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run must not make it all again, and one with other options must not throw a corpus away unasked."""
    out = tmp_path / "store"
    assert main([str(out), *FEW]) == 0
    assert "train 7, val 7, test_scripts 7, test_voices 7 dialogues" in capsys.readouterr().out
    made = (out / "store.json").stat().st_mtime_ns
    assert main([str(out), *FEW]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert (out / "store.json").stat().st_mtime_ns == made
    with pytest.raises(SystemExit) as refused:
        main([str(out), *FEW, "--seed", "1"])
    assert refused.value.code == 2
    assert "a corpus of other options, seed; --overwrite replaces it" in capsys.readouterr().err
    assert main([str(out), *FEW, "--seed", "1", "--overwrite"]) == 0
    assert json.loads((out / "store.json").read_text())["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_other_peoples_files_are_never_replaced(
    espeak: Espeak, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--overwrite on a mistyped folder must not delete it."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit) as refused:
        main([str(tmp_path), *FEW, "--overwrite"])
    assert refused.value.code == 2
    assert "is no quickstart corpus" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: OUT"),
        (["out", "--seed", "-1"], "whole number"),
        (["out", "--engine", "festival"], "invalid choice: 'festival'"),
        (["out", "--workers", "0"], "--workers must be at least 1"),
        (["out", "--test-scripts", "99"], "--test-scripts must be 1 to 36"),
    ],
)
def test_wrong_usage_is_told_and_makes_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Wrong usage ends with code 2 and a reason, and before anything is written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("engine", "cure"), [("espeak", "pip install espeakng-loader"), ("flite", "install the system package flite")]
)
def test_a_missing_engine_ends_with_code_1(
    engine: str, cure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its engine the command must say what to install, in one line, and make nothing."""
    assert main([str(tmp_path / "out"), "--engine", engine, "--engine-file", "/nowhere/engine"]) == 1
    told = capsys.readouterr().err
    assert cure in told
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    """--help without an example leaves a newcomer guessing."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "python -m data_prep.quickstart data/quickstart --seed 0" in capsys.readouterr().out

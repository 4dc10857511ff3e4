"""What the readers' commands write holds what was read of the corpora."""

import importlib
import pickle
import pkgutil
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest

import omnichat.data.corpora
from omnichat.audio import load_audio
from omnichat.data.corpora.iemocap import leave_out
from omnichat.data.corpora.reading import Corpus
from omnichat.data.store import Store
from tests.corpora import SAMPLES, needs, read
from tests.data.corpora.test_expresso import corpus as expresso
from tests.data.corpora.test_iemocap import session
from tests.data.corpora.test_spokenwoz import LOG
from tests.data.corpora.test_spokenwoz import corpus as spokenwoz
from tests.data_prep.test_command import command

ROOT = Path(__file__).parents[2]
READERS = sorted(
    name
    for _, name, _ in pkgutil.iter_modules(omnichat.data.corpora.__path__)
    if hasattr(importlib.import_module(f"omnichat.data.corpora.{name}"), "CORPUS")
)


def corpus_of(name: str) -> Corpus:
    """The corpus that a module reads."""
    corpus: Corpus = importlib.import_module(f"omnichat.data.corpora.{name}").CORPUS
    return corpus


def parts_of(corpus: Corpus) -> dict[str, object]:
    """Its fields; functions with arguments, which Python never calls equal, as what they are made of."""
    values = {field.name: getattr(corpus, field.name) for field in fields(corpus)}
    return {k: (v.func, v.args, v.keywords) if isinstance(v, partial) else v for k, v in values.items()}


@pytest.mark.parametrize("name", READERS)
def test_readers_go_to_other_processes(name: str) -> None:
    """A conversion sends them there."""
    corpus = corpus_of(name)
    assert parts_of(pickle.loads(pickle.dumps(corpus))) == parts_of(corpus)
    assert pickle.loads(pickle.dumps(leave_out(3))).parts.keywords == {"test_session": 3}


def test_one_channel_of_a_recording_is_stored_as_it_was(tmp_path: Path) -> None:
    """A store must hold what the reader points to: this channel, from here to there, at the corpus's own rate."""
    spokenwoz(tmp_path / "in", "test", {"MUL0001": LOG})
    assert command("spokenwoz", tmp_path / "in", tmp_path / "out") == 0
    (source,) = read(corpus_of("spokenwoz"), tmp_path / "in").dialogues
    stored = Store(tmp_path / "out" / "test")[0]
    assert [turn.text for turn in stored.turns] == [turn.text for turn in source.turns]
    for ours, theirs in zip(stored.turns, source.turns, strict=True):
        assert (ours.audio is None) == (theirs.audio is None)
        if ours.audio is not None and theirs.audio is not None:
            assert (load_audio(ours.audio) == load_audio(theirs.audio)).all()


def test_a_session_is_left_out_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Drawn instead, the test session would be another than the one that was asked for."""
    for number in (1, 2, 4):
        session(tmp_path / "in", number)
    assert command("iemocap", tmp_path / "in", tmp_path / "out", "--test-session", 2) == 0
    assert (tmp_path / "out" / "splits" / "test.txt").read_text() == "Ses02F_impro01\n"
    assert (tmp_path / "out" / "splits" / "train.txt").read_text() == "Ses01F_impro01\nSes04F_impro01\n"
    assert not (tmp_path / "out" / "splits" / "val.txt").exists()
    assert "fru        3" in capsys.readouterr().out


def test_expresso_as_released_is_refused_with_its_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty store would be found out in training."""
    assert command("expresso", expresso(tmp_path / "in"), tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "no dialogue is usable" in error
    assert "transcribe its segments first [no_transcript]" in error


@needs("interactspeech")
def test_the_real_interactspeech_dialogue_becomes_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """22.05 kHz in floats, cut at the corpus's own times: what is stored is what was read."""
    assert command("interactspeech", SAMPLES / "interactspeech", tmp_path / "out", "--workers", 1) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["train", "1", "5", "5.00", "5", "0.01"]
    (source,) = read(corpus_of("interactspeech"), SAMPLES / "interactspeech").dialogues
    stored = Store(tmp_path / "out" / "train")[0]
    for ours, theirs in zip(stored.turns, source.turns, strict=True):
        assert ours.meta == theirs.meta
        assert ours.audio is not None
        assert theirs.audio is not None
        assert (load_audio(ours.audio) == load_audio(theirs.audio)).all()

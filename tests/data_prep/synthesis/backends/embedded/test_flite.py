"""flite as an engine. Programs that stand in for it show what a machine without it, or with a poor one, is told."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from data_prep.synthesis.backends.embedded.engine import EngineError
from data_prep.synthesis.backends.embedded.flite import MARGIN, Flite
from data_prep.synthesis.backends.embedded.prosody import PROSODIES, Prosody
from data_prep.synthesis.contracts import Voice

WORDS = "we are going to the market."
VERSION = "echo '  version: flite-2.2-current Sep 2018 (http://cmuflite.org)'; exit 1"


def program(folder: Path, *, version: str = VERSION, voices: str = "kal awb kal16 slt", speech: str = "exit 0") -> str:
    """A shell script that takes flite's place."""
    path = folder / "flite"
    cases = f'--version) {version};;\n-lv) echo "Voices available: {voices} ";;\n*) {speech};;'
    path.write_text(f'#!/bin/sh\ncase "$1" in\n{cases}\nesac\n')
    path.chmod(0o755)
    return str(path)


def test_phones_cover_the_words_in_order(flite: Flite) -> None:
    """Wrong phone times, or silences left around the speech, would spoil labels and the emotion's swell."""
    utterance = flite.say(WORDS, flite.train_voices[0], PROSODIES["neutral"])
    names = [name for name, _, _ in utterance.phones]
    assert names[0] == names[-1] == "_"
    assert names[1:3] == ["w", "iy"]
    assert [name for name in names if name in "mkt"][-4:] == ["t", "m", "k", "t"]
    bounds = [(start, end) for _, start, end in utterance.phones]
    assert all(before[1] == after[0] for before, after in itertools.pairwise(bounds))
    assert bounds[0] == (0, round(MARGIN * 16_000))
    assert bounds[-1][1] == len(utterance.pcm)
    level = {name: np.abs(utterance.pcm[start:end]).mean() for name, start, end in utterance.phones}
    assert level["aa"] > 3 * level["k"]
    assert level["aa"] > 10 * level["_"]


def test_a_gap_between_words_takes_as_long(flite: Flite) -> None:
    """flite knows no such gap; dropped, the emotion that has one would be spoken too fast."""
    lengths = [
        len(flite.say(WORDS, flite.train_voices[0], prosody).pcm)
        for prosody in (Prosody(), Prosody(word_gap=10), Prosody(rate=82.5))
    ]
    assert lengths[1] / lengths[0] == pytest.approx(1 + 0.1 * 165 / 60, abs=0.03)
    assert lengths[2] / lengths[0] == pytest.approx(2, abs=0.1)


def test_a_refused_request_is_named(flite: Flite) -> None:
    """flite speaks an unknown voice with its default one, and nothing with silence."""
    with pytest.raises(EngineError, match=r"no voice 'rms'; it has kal16-deep"):
        flite.say(WORDS, Voice(name="rms", gender="male"), PROSODIES["neutral"])
    with pytest.raises(EngineError, match="no sound"):
        flite.say("", flite.train_voices[0], PROSODIES["neutral"])
    assert len(flite.say(WORDS, flite.train_voices[0], PROSODIES["neutral"]).pcm) > 10_000


def test_a_missing_program_is_told_with_the_cure() -> None:
    """A machine without flite must say what to install."""
    with pytest.raises(EngineError, match=r"^/nowhere/flite: cannot be started .* install the system package flite"):
        Flite("/nowhere/flite")


def test_another_program_is_refused() -> None:
    """Any program would be taken for a flite that makes no sound."""
    with pytest.raises(EngineError, match="is not flite; install"):
        Flite(sys.executable)


def test_a_flite_without_our_speakers_is_refused(tmp_path: Path) -> None:
    """Builds differ in their voices; flite would speak a missing one with another."""
    with pytest.raises(EngineError, match="lacks the voices awb, slt"):
        Flite(program(tmp_path, voices="kal16 rms"))


@pytest.mark.parametrize(
    ("speech", "message"),
    [
        ("kill -9 $$", "status -9 .*no message"),
        ("echo out of memory; exit 3", "status 3 .*out of memory"),
        ("echo pau:0.2 w:0.3 pau:0.5", "wrote no speech for 'we are going to the market.' with voice kal16-deep"),
    ],
)
def test_a_crash_is_told(tmp_path: Path, speech: str, message: str) -> None:
    """A flite that dies or cannot write must not leave the speech of the utterance before."""
    with Flite(program(tmp_path, speech=speech)) as engine:
        assert engine.version == "flite 2.2-current"
        with pytest.raises(EngineError, match=message):
            engine.say(WORDS, engine.train_voices[0], PROSODIES["neutral"])

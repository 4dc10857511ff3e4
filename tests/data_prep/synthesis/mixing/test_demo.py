"""Our mixes beside the published dialogues: the same structure, found in both by the same measurement."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from data_prep.synthesis.blobs import read_audio
from data_prep.synthesis.contracts import Sound
from data_prep.synthesis.mixing.mixer import lay_under, mix_plainly
from tests.data_prep.synthesis.mixing.making import plan, run, stage, to_mix, voiced

DEMO = Path(__file__).parents[5] / "shared" / "samples" / "sharechatx_demo" / "res"
TEN_SECONDS = 160_000
needs_demo = pytest.mark.skipif(not DEMO.is_dir(), reason="needs ../shared/samples/sharechatx_demo")


def period(turns: list[NDArray[np.float32]]) -> int:
    """The lag at which the turns, one after the other, are most like themselves: the loop's period where one runs on.

    The spectrum is whitened, so that a faint broadband background counts as much as a voice.
    """
    wave = np.diff(np.concatenate(turns))
    size = 1 << (2 * len(wave) - 1).bit_length()
    power = np.abs(np.fft.rfft(wave, size)) ** 2
    white = power / (np.convolve(power, np.ones(2001) / 2001, "same") + 1e-12)
    likeness = np.abs(np.fft.irfft(white, size)[: len(wave)])
    return 8000 + int(likeness[8000:].argmax())


def published(name: str) -> list[NDArray[np.float32]]:
    """The turns of a published dialogue."""
    turns = json.loads((DEMO / name / "dialogue.json").read_text())["turns"]
    return [soundfile.read(DEMO / name / turn["audio"], dtype="float32")[0] for turn in turns]


@needs_demo
@pytest.mark.parametrize("name", ["a-2-1", "a-3-1"])
def test_the_published_loop_runs_on_across_turns(name: str) -> None:
    """What `paper_demo` imitates is a measurement; if it were not in the recordings, the mode would be an invention."""
    assert period(published(name)) == TEN_SECONDS


@needs_demo
def test_the_published_sound_before_the_words_lasts_ten_seconds() -> None:
    """The other form: the first file is longer than the others by the clip, and the words follow at once."""
    first, *others = published("a-2-2")
    assert len(first) > TEN_SECONDS
    assert max(map(len, others)) < TEN_SECONDS


def test_our_loop_runs_on_as_theirs_does(tmp_path: Path) -> None:
    """A loop that started anew with each turn would tell the model where turns begin."""
    rng = np.random.default_rng(0)
    item = to_mix(plan(Sound(kind="audio", caption="rain"), turns=8), tmp_path, rng, seconds=(3, 4), assistant=True)
    mixed = run(stage(mode="paper_demo"), item, tmp_path)
    assert mixed.placement == "under"
    assert period([read_audio(tmp_path, piece.blob) for piece in mixed.pieces if piece is not None]) == TEN_SECONDS


def test_the_measurement_would_notice_a_loop_that_starts_anew() -> None:
    """Without this the test above might pass whatever the mixer does."""
    rng = np.random.default_rng(0)
    clip = (0.05 * rng.standard_normal(TEN_SECONDS)).astype(np.float32)
    turns = [voiced(seconds, rng) for seconds in (3.1, 4.7, 3.9, 4.4)]
    anew = [mix_plainly(lay_under(["user"], [turn], clip))[0].wave for turn in turns]
    onward = [turn.wave for turn in mix_plainly(lay_under(["user"] * 4, turns, clip))]
    assert period(onward) == TEN_SECONDS
    assert period(anew) != TEN_SECONDS


def test_our_sound_before_the_words_is_theirs(tmp_path: Path) -> None:
    """Ten seconds of sound, then at once the words, untouched; all other turns clean."""
    item = to_mix(plan(Sound(kind="audio", caption="bell")), tmp_path, np.random.default_rng(0), assistant=True)
    mixed = run(stage(mode="paper_demo"), item, tmp_path)
    assert mixed.placement == "before"
    waves = [read_audio(tmp_path, piece.blob) for piece in mixed.pieces if piece is not None]
    clean = [read_audio(tmp_path, speech.blob) for speech in item.speech if speech is not None]
    assert np.array_equal(waves[0][TEN_SECONDS:], clean[0])
    assert waves[0][:TEN_SECONDS].any()
    assert all(np.array_equal(wave, speech) for wave, speech in zip(waves[1:], clean[1:], strict=True))

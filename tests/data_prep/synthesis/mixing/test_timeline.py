"""Turns that overlap, and their two tracks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_prep.synthesis.blobs import read_audio, write_audio
from data_prep.synthesis.contracts import Line, Mixed, Speaker, Speech, ToMix
from data_prep.synthesis.mixing.pack import pack, to_dialogue
from data_prep.synthesis.mixing.timeline import break_off, spoken_words, starts
from data_prep.synthesis.mixing.tracks import main, write_two_tracks
from omnichat.audio import SAMPLE_RATE, load_audio
from omnichat.data.corpora.interactspeech import CORPUS, RATE
from omnichat.data.corpora.reading import Choices, read_all
from omnichat.dialogue import DataError, Style
from tests.data_prep.synthesis.mixing.making import plan, run, stage, to_mix, voiced


def line(speaker: Speaker, text: str = "Yes.", **options: object) -> Line:
    """A line of a two-track script."""
    return Line.model_validate({"speaker": speaker, "text": text, "style": Style()} | options)


LINES = (
    line("user", "Are you going to the market tomorrow, or do you think that it will rain?", cut=0.5),
    line("assistant", "Sorry, but I am.", kind="interruption", gap=-0.45),
    line("user", "I have a long list of things that I need.", gap=0.3),
    line("assistant", "Mhm.", kind="backchannel", gap=-0.9),
    line("assistant", "Give it to me.", gap=0.2),
)
SECONDS = (3.0, 1.5, 2.0, 0.4, 1.0)


def mixed(blobs: Path) -> Mixed:
    """The conversation above, spoken and placed."""
    rng = np.random.default_rng(0)
    waves = [voiced(seconds, rng) for seconds in SECONDS]
    speech = tuple(Speech(blob=write_audio(blobs, wave), num_samples=len(wave)) for wave in waves)
    item = ToMix(plan=plan().model_copy(update={"lines": LINES}), speech=speech)
    return run(stage(), item, blobs)


def test_times_are_those_of_the_script(tmp_path: Path) -> None:
    """An interruption that does not overlap by what was planned is another kind of turn."""
    pieces = [piece for piece in mixed(tmp_path).pieces if piece is not None]
    begins = [piece.start for piece in pieces]
    ends = [piece.start + piece.num_samples / SAMPLE_RATE for piece in pieces]
    assert ends[0] == 1.5, "broken off at half of its 3 s"
    assert begins[1] == pytest.approx(ends[0] - 0.45, abs=1e-4)
    assert begins[2] == pytest.approx(ends[1] + 0.3, abs=1e-4)
    assert begins[3] == pytest.approx(ends[2] - 0.9, abs=1e-4)
    assert begins[4] == pytest.approx(ends[2] + 0.2, abs=1e-4), "from the end of the turn, not of the backchannel"


def test_nobody_talks_over_himself_or_before_he_is_asked() -> None:
    """A gap longer than the line before it would put an answer before its question."""
    lines = [line("user"), line("assistant", kind="interruption", gap=-5.0), line("assistant", gap=-5.0)]
    assert starts(lines, [16_000, 8_000, 8_000]) == [0, 0, 8_000]
    heard = [line("user"), line("assistant", kind="backchannel", gap=-0.1), line("assistant", gap=0.1)]
    assert starts(heard, [16_000, 8_000, 8_000]) == [0, 14_400, 22_400], "after his own backchannel"
    later = [line("user"), line("assistant"), line("user", kind="interruption", gap=-2.0)]
    assert starts(later, [16_000, 8_000, 8_000]) == [0, 16_000, 16_000]
    assert starts(later, [16_000, None, 8_000]) == [0, 16_000, 16_000], "a line that is not spoken takes no time"


def test_a_voice_breaks_off_without_a_click() -> None:
    """A step in the wave is a click that no speaker makes, and would give interruptions away."""
    wave = np.ones(16_000, np.float32)
    cut = break_off(wave, 0.25)
    assert len(cut) == 4_000
    assert cut[-1] == 0
    assert np.abs(np.diff(cut)).max() < 0.01
    assert break_off(wave, 1.0) is wave


def test_words_that_were_not_said_are_known() -> None:
    """A transcript with words that nobody hears would be learnt as heard."""
    assert spoken_words(LINES[0]) == "Are you going to the market"
    assert spoken_words(LINES[1]) == LINES[1].text
    assert spoken_words(line("user", "Extraordinary weather", cut=0.1)) == "Extraordinary"


def test_the_reader_of_interactspeech_reads_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two tracks are of use only where the corpus's own reader finds each turn's words, times and samples again."""
    made = mixed(tmp_path / "blobs")
    about = {"name": "two", "licence": "Apache-2.0", "source": "tests"}
    pack([made], tmp_path / "blobs", tmp_path / "store", **about)
    monkeypatch.setattr("sys.argv", ["tracks", str(tmp_path / "store"), str(tmp_path / "corpus")])
    assert main() == 0
    assert "train: 1 dialogues" in capsys.readouterr().out
    reading = read_all(CORPUS, tmp_path / "corpus", Choices())
    assert not reading.rejects
    (dialogue,) = reading.dialogues
    assert dialogue.id == made.plan.id
    assert [turn.role for turn in dialogue.turns] == [one.speaker for one in LINES]
    assert [turn.text for turn in dialogue.turns] == [spoken_words(one) for one in LINES]
    assert dialogue.turns[0].meta["interrupted"] == "yes"
    assert dialogue.turns[0].meta["planned"] == "tomorrow, or do you think that it will rain?"
    assert int(dialogue.turns[1].meta["overlap"]) == pytest.approx(0.45 * RATE, abs=1)
    assert "overlap" not in dialogue.turns[2].meta
    for turn, piece in zip(dialogue.turns, made.pieces, strict=True):
        assert turn.audio is not None
        assert piece is not None
        assert np.array_equal(load_audio(turn.audio), read_audio(tmp_path / "blobs", piece.blob))


def test_what_makes_no_two_tracks_is_told(tmp_path: Path) -> None:
    """Half of a conversation on two tracks is none, and turns without times would all begin at once."""
    rng = np.random.default_rng(0)
    silent = to_dialogue(run(stage(), to_mix(plan(), tmp_path, rng), tmp_path), tmp_path, "")
    with pytest.raises(DataError, match="turn 0: has no start"):
        write_two_tracks(silent, tmp_path / "corpus")
    timed = replace(silent, turns=tuple(replace(turn, meta={"start": "0"}) for turn in silent.turns))
    with pytest.raises(DataError, match=r"turn 1: .*speak_assistant"):
        write_two_tracks(timed, tmp_path / "corpus")

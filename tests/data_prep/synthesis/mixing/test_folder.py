"""A folder of recordings as a catalogue."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_prep.synthesis.contracts import Sound
from data_prep.synthesis.mixing.folder import FolderCatalogue
from data_prep.synthesis.mixing.scan import main, scan
from data_prep.synthesis.mixing.settings import ClipSettings
from data_prep.synthesis.stage import Reject
from omnichat.audio import SAMPLE_RATE
from omnichat.dialogue import DataError
from tests.data_prep.synthesis.mixing.making import plan, run, stage, to_mix

REAL = Path(__file__).parents[5] / "shared" / "samples" / "backgrounds"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Clips with everything that can be wrong with one, and three that are right, at three rates."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "clips"
    folder.mkdir()
    seconds = {"good": (3, 44_100), "Ygood2": (2, 22_050), "good3_30": (12, 8_000), "short": (0.1, 16_000)}
    for name, (length, rate) in seconds.items():
        soundfile.write(folder / f"{name}.wav", 0.1 * rng.standard_normal((int(length * rate), 2)), rate)
    soundfile.write(folder / "silent.wav", np.zeros(16_000), 16_000)
    soundfile.write(folder / "talk.wav", 0.1 * rng.standard_normal(16_000), 16_000)
    soundfile.write(folder / "unnamed.wav", 0.1 * rng.standard_normal(16_000), 16_000)
    (folder / "broken.wav").write_bytes(b"not audio")
    names = ("good", "good2", "good3", "short", "silent", "talk", "unnamed", "broken", "gone")
    rows = [{"id": name, "caption": "" if name == "unnamed" else f"{name} wind", "licence": "CC0"} for name in names]
    rows[5]["voice"] = 0.9
    (folder / "captions.json").write_text(json.dumps(rows))
    return folder


def test_recordings_are_found_and_brought_to_16_khz(folder: Path) -> None:
    """Downloaders name files by id, by id and start, or with a Y before; rates and channels differ."""
    catalogue = FolderCatalogue(ClipSettings(folder=str(folder)))
    lengths = [len(catalogue.wave(catalogue.clips[name])) for name in ("good", "good2", "good3")]
    assert lengths == [3 * SAMPLE_RATE, 2 * SAMPLE_RATE, 10 * SAMPLE_RATE], "the last one is cut to max_seconds"
    assert catalogue.clips["good"].licence == "CC0"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("short", "clip_short"),
        ("silent", "clip_silent"),
        ("talk", "clip_voice"),
        ("unnamed", "caption_missing"),
        ("broken", "clip_missing"),
        ("gone", "clip_missing"),
    ],
)
def test_bad_clips_are_refused_by_reason(folder: Path, name: str, reason: str) -> None:
    """Each of them would be a dialogue about a sound that nobody hears, or with a third speaker."""
    catalogue = FolderCatalogue(ClipSettings(folder=str(folder)))
    with pytest.raises(Reject, match=name) as error:
        catalogue.wave(catalogue.clips[name])
    assert error.value.reason == reason


def test_the_scan_writes_a_table_of_the_good_ones(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad clips are to be found before scripts are paid for; the table that remains is a catalogue like any other."""
    out = folder / "usable.json"
    monkeypatch.setattr("sys.argv", ["scan", str(folder), "--captions", "captions.json", "--out", str(out)])
    assert main() == 0
    told = capsys.readouterr().out
    assert "3 of 9 clips" in told
    assert "voices in the clips were not looked for" in told
    for reason in ("clip_short", "clip_silent", "clip_voice", "caption_missing", "clip_missing"):
        assert f"refused: {reason}" in told
    settings = ClipSettings(folder=str(folder), captions="usable.json")
    catalogue = FolderCatalogue(settings)
    assert list(catalogue.clips) == ["good", "good2", "good3"]
    assert {clip.pool for clip in catalogue.clips.values()} == {"train", "val", "test"}
    for clip in catalogue.clips.values():
        catalogue.wave(clip)
    kept, refused = scan(settings)
    assert (len(kept), refused) == (3, [])


def test_a_scan_without_a_usable_clip_fails_with_words(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scripts in a shell go by the exit code; a folder that is not there is told, not raised."""
    monkeypatch.setattr("sys.argv", ["scan", str(folder / "no"), "--out", str(folder / "x.json")])
    assert main() == 1
    assert "no such folder of clips" in capsys.readouterr().err


def test_commercial_use_is_not_lost_unseen(folder: Path) -> None:
    """One non-commercial clip makes the store non-commercial: somebody has to decide that."""
    rows = json.loads((folder / "captions.json").read_text())
    for licence in ("CC-BY-NC-4.0", "CC BY-NC 3.0", "Sampling+, noncommercial", "for research only"):
        rows[0]["licence"] = licence
        (folder / "captions.json").write_text(json.dumps(rows))
        with pytest.raises(DataError, match="1 clip") as error:
            FolderCatalogue(ClipSettings(folder=str(folder)))
        assert error.value.reason == "noncommercial"
        FolderCatalogue(ClipSettings(folder=str(folder), allow_noncommercial=True))


def test_which_table_is_asked_where_there_are_two(folder: Path) -> None:
    """Guessing would take the wrong captions in silence."""
    (folder / "other.csv").write_text("clip,caption\ngood,a\n")
    with pytest.raises(DataError, match=r"2 tables \(captions.json, other.csv\)"):
        FolderCatalogue(ClipSettings(folder=str(folder)))
    with pytest.raises(DataError, match=r"no table 'none\.csv'"):
        FolderCatalogue(ClipSettings(folder=str(folder), captions="none.csv"))
    assert len(FolderCatalogue(ClipSettings(folder=str(folder), captions="other.csv")).clips) == 1


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/samples/backgrounds")
def test_real_recordings_are_mixed(tmp_path: Path) -> None:
    """FLAC, OGG and WAV at three rates, mono and stereo: each of 21 free clips must end in a dialogue."""
    mixer = stage(clips={"folder": str(REAL)}, levels={"jitter": 0})
    rng = np.random.default_rng(0)
    placements = set()
    for clip in mixer.catalogue.clips.values():
        sound = Sound(kind=clip.kind, caption=clip.caption, clip=clip.id)
        mixed = run(mixer, to_mix(plan(sound, split=clip.pool), tmp_path, rng), tmp_path)
        assert mixed.clip == clip.id
        assert mixed.licence == clip.licence != ""
        assert mixed.credit == clip.credit != ""
        assert all(piece.peak_db <= -0.499 for piece in mixed.pieces if piece is not None)
        placements.add((clip.event_class, mixed.placement))
    assert {("temporary", "before"), ("continuous", "under")} <= placements
    assert not {("temporary", "under"), ("continuous", "before")} & placements

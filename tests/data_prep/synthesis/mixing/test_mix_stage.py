"""One dialogue through the stage."""

import pickle
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from data_prep.synthesis.blobs import blob_path, read_audio
from data_prep.synthesis.contracts import Sound
from data_prep.synthesis.mixing.clips import pool_of
from data_prep.synthesis.stage import Reject
from data_prep.synthesis.writing.template import sound_name
from data_prep.synthesis.writing.topics import read_sounds
from omnichat.audio import SAMPLE_RATE
from tests.data_prep.synthesis.mixing.making import plan, run, stage, to_mix

RAIN, BELL, PIANO = (
    Sound(kind="audio", caption="rain"),
    Sound(kind="audio", caption="bell"),
    Sound(kind="music", caption="piano"),
)


def test_same_seed_same_bytes_another_seed_others(tmp_path: Path) -> None:
    """A store that cannot be made again cannot be compared; draws that don't depend on the seed are no draws."""
    item = to_mix(plan(PIANO), tmp_path, np.random.default_rng(0))
    first, again, other = (run(stage(), item, tmp_path, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.pieces != other.pieces


def test_mixing_anew_needs_the_clean_turns_alone(tmp_path: Path) -> None:
    """Other levels for a corpus must not cost its speech again: the clean turns are still there, unchanged."""
    item = to_mix(plan(RAIN), tmp_path, np.random.default_rng(0))
    clean = {speech.blob: blob_path(tmp_path, speech.blob).read_bytes() for speech in item.speech if speech}
    mixed = run(stage(), item, tmp_path)
    louder = run(stage(levels={"under": -20}), item, tmp_path)
    assert {name: blob_path(tmp_path, name).read_bytes() for name in clean} == clean
    gains = [one.pieces[0].sound_gain_db - one.pieces[0].gain_db for one in (mixed, louder)]
    assert gains[1] - gains[0] == pytest.approx(9, abs=0.01)


def test_classes_are_placed_as_the_paper_says(tmp_path: Path) -> None:
    """Temporary events before the first words, continuous ones under all turns, music either way."""
    item = {sound.caption: to_mix(plan(sound), tmp_path, np.random.default_rng(0)) for sound in (RAIN, BELL, PIANO)}
    rain, bell = run(stage(), item["rain"], tmp_path), run(stage(), item["bell"], tmp_path)
    assert rain.placement == "under"
    assert all(piece.sound_gain_db is not None for piece in rain.pieces if piece is not None)
    assert bell.placement == "before"
    pairs = zip(bell.pieces, item["bell"].speech, strict=True)
    heard = [piece.num_samples - speech.num_samples for piece, speech in pairs if piece]
    assert heard == [10 * SAMPLE_RATE, 0]
    placements = [run(stage(), item["piano"], tmp_path, seed).placement for seed in range(40)]
    assert 10 <= placements.count("under") <= 30


def test_where_and_how_long(tmp_path: Path) -> None:
    """For small models a noisy history and ten seconds of bell are too much: the sound in the current turn alone."""
    options = {"where": "current_turn", "placement": "either", "before_seconds": [0.6, 0.9], "before_gap": 0.05}
    item = to_mix(plan(RAIN, turns=6), tmp_path, np.random.default_rng(0))
    seen = set()
    for seed in range(12):
        mixed = run(stage(**options), item, tmp_path, seed)
        pieces = [piece for piece in mixed.pieces if piece is not None]
        assert [piece.sound_gain_db is None for piece in pieces] == [True, True, False]
        longer = pieces[-1].num_samples - item.speech[4].num_samples
        assert longer == 0 if mixed.placement == "under" else 0.65 <= longer / SAMPLE_RATE <= 0.95
        seen.add(mixed.placement)
    assert seen == {"under", "before"}


def test_without_a_sound_clean_turns_stay_as_they_are(tmp_path: Path) -> None:
    """A copy of every clean turn would double the disk, and branches would no longer share their history."""
    item = to_mix(plan(None), tmp_path, np.random.default_rng(0), assistant=True)
    mixed = run(stage(), item, tmp_path)
    assert [piece.blob for piece in mixed.pieces] == [speech.blob for speech in item.speech]
    assert (mixed.placement, mixed.clip) == ("none", "")
    levelled = run(stage(level_all=True), item, tmp_path)
    assert all(piece.blob != speech.blob for piece, speech in zip(levelled.pieces, item.speech, strict=True))


def test_the_demo_mode_adds_what_is_there(tmp_path: Path) -> None:
    """`paper_demo` is the published way: no gains, the whole clip before the first word or the loop under all turns."""
    demo = stage(mode="paper_demo")
    item = to_mix(plan(RAIN), tmp_path, np.random.default_rng(0))
    mixed = run(demo, item, tmp_path)
    clip = demo.catalogue.wave(demo.catalogue.clips[mixed.clip])
    start = 0
    for piece, speech in zip(mixed.pieces, item.speech, strict=True):
        if piece is None or speech is None:
            continue
        sound = read_audio(tmp_path, piece.blob) - read_audio(tmp_path, speech.blob)
        assert np.abs(sound - np.take(clip, np.arange(start, start + len(sound)), mode="wrap")).max() < 2 / 32768
        start += len(sound)


@pytest.mark.parametrize("kind", ["audio", "music"])
def test_every_caption_of_the_templates_has_its_clip(kind: Literal["audio", "music"]) -> None:
    """A caption that the catalogue does not know loses every script about it."""
    catalogue = stage().catalogue
    for split in ("train", "val", "test"):
        for sound in read_sounds(kind, None, split):
            clip = catalogue.choose(sound, split, np.random.default_rng(0))
            assert clip.caption == sound_name(sound)


def test_no_clip_is_heard_in_two_splits(tmp_path: Path) -> None:
    """A clip of the training set in the test set measures memory, not hearing."""
    clips = {split: set() for split in ("train", "val", "test_voices")}
    for seed in range(30):
        for split, seen in clips.items():
            item = to_mix(plan(RAIN, split=split), tmp_path, np.random.default_rng(seed), seconds=(0.4, 0.5))
            mixed = run(stage(), item, tmp_path, seed)
            seen.add(mixed.clip)
            assert mixed.licence
    assert all(len(seen) > 1 for seen in clips.values())
    assert not clips["train"] & clips["val"]
    assert not clips["train"] & clips["test_voices"]
    assert not clips["val"] & clips["test_voices"]
    named = RAIN.model_copy(update={"clip": min(clips["train"])})
    with pytest.raises(Reject, match="belongs to train") as error:
        run(stage(), to_mix(plan(named, split="test"), tmp_path, np.random.default_rng(0)), tmp_path)
    assert error.value.reason == "clip_missing"
    assert [pool_of(name) for name in ("train", "train_more", "trains", "val", "test")] == [
        *("train", "train", "test", "val", "test")
    ]


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    """A dialogue without a turn or a clip must be a row in the report, not a crash and not a gap."""
    item = to_mix(plan(RAIN), tmp_path, np.random.default_rng(0))
    without = item.model_copy(update={"speech": (item.speech[0], None, None, None)})
    unknown = to_mix(plan(Sound(kind="audio", caption="a volcano")), tmp_path, np.random.default_rng(0))
    for broken, reason, words in (
        (without, "turn_missing", r"user turn\(s\) \[2\]"),
        (item.model_copy(update={"speech": item.speech[:2]}), "turn_missing", "4 lines, 2 recordings"),
        (unknown, "clip_missing", "a volcano"),
    ):
        with pytest.raises(Reject, match=words) as error:
            run(stage(), broken, tmp_path)
        assert error.value.reason == reason


def test_turns_stand_end_to_end(tmp_path: Path) -> None:
    """Starts are what a player and the manifest go by."""
    item = to_mix(plan(BELL), tmp_path, np.random.default_rng(0), assistant=True)
    pieces = run(stage(), item, tmp_path).pieces
    for before, after in pairwise(pieces):
        assert after.start == pytest.approx(before.start + before.num_samples / SAMPLE_RATE)


def test_identity_holds_what_the_bytes_depend_on() -> None:
    """A changed level or another number of variants must make dialogues anew; the stage travels to workers."""
    assert stage().identity() == pickle.loads(pickle.dumps(stage())).identity()
    others = [stage(levels={"speech": -18}), stage(clips={"variants": 30}), stage(mode="paper_demo")]
    assert all(other.identity() != stage().identity() for other in others)


@pytest.mark.parametrize(
    "settings",
    [
        {"before_seconds": [0.9, 0.6]},
        {"crossfade": 0.5},
        {"mode": "paper_demo", "level_all": True},
        {"levels": {"loudest": 3}},
        {"clips": {"min_seconds": 11}},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    """They would fail at the first dialogue, after all speech was paid for."""
    with pytest.raises(ValueError, match=r"before_seconds|crossfade|level_all|loudest|min_seconds"):
        stage(**settings)

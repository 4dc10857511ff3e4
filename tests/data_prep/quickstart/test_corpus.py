"""The corpus: what it holds, that it leaks nothing, that it is the same again."""

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_prep.quickstart.corpus import Options, branches, make, mix, plan
from data_prep.quickstart.scripts import CONTENT_WORDS
from data_prep.synthesis.backends.embedded.espeak import TRAIN_VOICES, UNSEEN_VOICES, Espeak
from data_prep.synthesis.backends.embedded.flite import Flite
from data_prep.synthesis.backends.embedded.prosody import LEVEL, PEAK
from omnichat.audio import SAMPLE_RATE, load_audio
from omnichat.dialogue import EMOTIONS, Dialogue, read_dialogues

SPLITS = ("train", "val", "test_scripts", "test_voices")
SMALL = Options(seed=3, train_scripts=6, val_scripts=1, test_scripts=3)


def digests(root: Path) -> dict[str, str]:
    """sha256 of every file below `root`."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def corpus(espeak: Espeak, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus on disk."""
    out = tmp_path_factory.mktemp("quickstart") / "store"
    make(out, SMALL, workers=2)
    return out


@pytest.fixture(scope="module")
def planned() -> dict[str, list[Dialogue]]:
    """All dialogues of the default corpus, in words."""
    return {split: [each for scene in scenes for each in branches(scene)] for split, scenes in plan(Options()).items()}


def test_sizes_and_balance(planned: dict[str, list[Dialogue]]) -> None:
    """A test set under 200, or one where an emotion prevails, would give scores that say little."""
    assert set(planned) == set(SPLITS)
    for split, dialogues in planned.items():
        counts = Counter(dialogue.scene["emotion"] for dialogue in dialogues)
        assert set(counts) == set(EMOTIONS)
        assert len(set(counts.values())) == 1
        assert len(dialogues) >= (60 if split == "val" else 200)
        assert len({dialogue.id for dialogue in dialogues}) == len(dialogues)
    assert {dialogue.scene["content"] for dialogue in planned["train"]} == set(CONTENT_WORDS)


def test_splits_share_no_script_and_unseen_voices_are_unseen(planned: dict[str, list[Dialogue]]) -> None:
    """A script or voice on both sides would make the held-out scores scores on training data."""
    scripts = {split: {each.scene["script"] for each in dialogues} for split, dialogues in planned.items()}
    words = {split: {each.turns[-2].text for each in dialogues} for split, dialogues in planned.items()}
    voices = {split: {each.scene["voice"] for each in dialogues} for split, dialogues in planned.items()}
    for number, split in enumerate(SPLITS):
        for other in SPLITS[number + 1 :]:
            assert not scripts[split] & scripts[other]
            assert not words[split] & words[other]
    assert voices["train"] == voices["test_scripts"] == {voice.name for voice in TRAIN_VOICES}
    assert voices["test_voices"] == {voice.name for voice in UNSEEN_VOICES}


def test_text_cannot_know_the_emotion(planned: dict[str, list[Dialogue]]) -> None:
    """All text before the reply (history, current words, who answers) goes with every emotion equally often."""
    for dialogues in planned.values():
        emotions = defaultdict(Counter)
        for dialogue in dialogues:
            emotions[tuple((turn.text, turn.style) for turn in dialogue.turns[:-1])][dialogue.scene["emotion"]] += 1
        assert all(set(counts) == set(EMOTIONS) and len(set(counts.values())) == 1 for counts in emotions.values())


def test_sounds_do_not_tell_the_emotion(planned: dict[str, list[Dialogue]]) -> None:
    """A sound that went with one emotion would let a model name the emotion without hearing the voice."""
    for dialogues in planned.values():
        counts = Counter((each.scene["emotion"], each.scene["sound"]) for each in dialogues)
        for sound in {sound for _, sound in counts}:
            of_emotion = [counts[emotion, sound] for emotion in EMOTIONS]
            assert max(of_emotion) - min(of_emotion) <= 1
        for scenario in ("emotion", "audio", "music"):
            share = np.mean([each.scene["scenario"] == scenario for each in dialogues])
            assert share == pytest.approx(1 / 3, abs=0.02)
    placements = Counter(each.scene["placement"] for each in planned["train"] if each.scene["sound"])
    assert abs(placements["before"] - placements["under"]) <= 1


def test_history_is_the_same_audio_for_every_emotion(corpus: Path) -> None:
    """History audio that differed with the target emotion would give it away before the current turn is heard."""
    for split in SPLITS:
        emotions = defaultdict(list)
        for dialogue in read_dialogues(corpus / f"{split}.jsonl"):
            users = [turn for turn in dialogue.turns if turn.role == "user"]
            emotions[tuple(turn.audio.path for turn in users[:-1])].append(dialogue.scene["emotion"])
            assert users[:-1]
        assert all(sorted(found) == sorted(EMOTIONS) for found in emotions.values())


def test_files_hold_what_the_manifest_says(corpus: Path) -> None:
    """Clipped, silent or over-long audio, or a wrong length, would surface only as a bad score."""
    store = json.loads((corpus / "store.json").read_text())
    assert store["engine"].startswith("espeak-ng ")
    listed = set()
    for split in SPLITS:
        dialogues = list(read_dialogues(corpus / f"{split}.jsonl"))
        assert store["splits"][split] == len(dialogues)
        for turn in (turn for dialogue in dialogues for turn in dialogue.turns if turn.role == "user"):
            listed.add(Path(turn.audio.path))
            info = soundfile.info(turn.audio.path)
            assert (info.samplerate, info.subtype, info.frames) == (SAMPLE_RATE, "PCM_16", turn.audio.num_samples)
            wave = load_audio(turn.audio)
            assert 0.5 < len(wave) / SAMPLE_RATE < 5
            assert 0.02 < np.sqrt(np.mean(wave**2)) < 0.4
            assert np.abs(wave).max() <= PEAK + 1e-3
    assert listed == set((corpus / "audio").iterdir())


def test_same_seed_same_bytes_and_another_seed_another_corpus(corpus: Path, tmp_path: Path) -> None:
    """A corpus that depended on the number of workers or on time could not be reproduced."""
    make(tmp_path / "again", SMALL, workers=1)
    assert digests(tmp_path / "again") == digests(corpus)
    tiny = Options(seed=4, train_scripts=1, val_scripts=1, test_scripts=1)
    make(tmp_path / "other", tiny)
    audio = {value for name, value in digests(tmp_path / "other").items() if name.startswith("audio")}
    assert not audio & set(digests(corpus).values())


def test_flite_speaks_the_same_scripts(flite: Flite, tmp_path: Path) -> None:
    """An engine that changed what is said, or whose work depended on the order, could not be compared."""
    few = Options(seed=3, engine="flite", train_scripts=2, val_scripts=1, test_scripts=1)
    for workers in (1, 2):
        make(tmp_path / str(workers), few, workers)
    assert digests(tmp_path / "1") == digests(tmp_path / "2")
    store = json.loads((tmp_path / "1" / "store.json").read_text())
    assert store["engine"] == flite.version
    assert flite.version in store["licence"]
    for split, scenes in plan(replace(few, engine="espeak")).items():
        dialogues = list(read_dialogues(tmp_path / "1" / f"{split}.jsonl"))
        expected = [dialogue for scene in scenes for dialogue in branches(scene)]
        assert [[turn.text for turn in each.turns] for each in dialogues] == [
            [turn.text for turn in each.turns] for each in expected
        ]
        voices = flite.unseen_voices if split == "test_voices" else flite.train_voices
        assert {each.scene["voice"] for each in dialogues} <= {voice.name for voice in voices}


@pytest.mark.parametrize(
    ("kind", "sound", "placement", "distance"),
    [("audio", "rain", "before", 4), ("audio", "dog", "under", 12), ("music", "flute", "under", 9)],
)
def test_mix_keeps_the_levels_apart(kind: str, sound: str, placement: str, distance: float) -> None:
    """A sound as loud as the words hides them; one too soft cannot be named."""
    speech = np.float32(LEVEL) * np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    mixed = mix(speech, kind, sound, placement, np.random.default_rng(1))
    if placement == "under":
        assert len(mixed) == len(speech)
        heard = mixed - speech
    else:
        assert np.array_equal(mixed[-len(speech) :], speech)
        heard = mixed[: -len(speech) - SAMPLE_RATE // 20]
        assert 0.6 <= len(heard) / SAMPLE_RATE <= 0.9
    assert 20 * np.log10(np.sqrt(np.mean(heard**2)) / LEVEL) == pytest.approx(-distance, abs=2.1)


def test_mix_lowers_what_would_clip() -> None:
    """Samples beyond full scale would wrap when they become 16-bit numbers."""
    speech = np.full(16_000, PEAK, dtype=np.float32)
    assert np.abs(mix(speech, "music", "drums", "under", np.random.default_rng(0))).max() <= PEAK + 1e-6


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (Options(train_scripts=0), "--train-scripts must be 1 to 207"),
        (Options(train_scripts=208), "--train-scripts must be 1 to 207"),
        (Options(val_scripts=0), "--val-scripts"),
        (Options(test_scripts=37), "--test-scripts must be 1 to 36"),
    ],
)
def test_more_scripts_than_there_are_is_refused(options: Options, name: str) -> None:
    """Silently fewer, or the same ones in two splits, would falsify the counts."""
    with pytest.raises(ValueError, match=name):
        plan(options)

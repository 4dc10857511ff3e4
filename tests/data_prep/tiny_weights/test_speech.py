"""The experts' utterances and their labels."""

import itertools

import numpy as np
import pytest

from data_prep.synthesis.backends.embedded.engine import speak
from data_prep.synthesis.backends.embedded.espeak import TRAIN_VOICES, UNSEEN_VOICES, Espeak
from data_prep.synthesis.backends.embedded.prosody import LEVEL, PEAK
from data_prep.synthesis.mixing.sounds import SOUND_NAMES
from data_prep.synthesis.writing.quickstart_grammar import CONTENT_WORDS, TEMPLATES
from data_prep.tiny_weights.speech import (
    EMOTIONS,
    VOICES,
    Spoken,
    align,
    draw_words,
    mix,
    pronunciations,
    speak_randomly,
)
from omnichat.audio import SAMPLE_RATE, num_frames
from omnichat.dialogue import Style


@pytest.fixture(scope="module")
def clips(espeak: Espeak) -> list[Spoken]:
    pronounced, rng = pronunciations(espeak), np.random.default_rng(0)
    return [speak_randomly(espeak, pronounced, VOICES, rng) for _ in range(12)]


def test_unseen_voices_stay_unseen(espeak: Espeak) -> None:
    """Would catch an expert trained on the voices it is tested with, and a voice that espeak-ng does not have."""
    assert not {voice.name for voice in VOICES} & {voice.name for voice in UNSEEN_VOICES}
    assert set(TRAIN_VOICES) <= set(VOICES)
    assert len({voice.name for voice in VOICES}) == len(VOICES) > 60
    for voice in VOICES:
        assert len(speak(espeak, "go", voice, Style(emotion="neutral")).pcm) > 1000


def test_no_sentence_of_the_corpus_is_heard() -> None:
    """Would catch experts that know the sentences of the tests."""
    scripts = {template.format(word).rstrip(".") for template, word in itertools.product(TEMPLATES, CONTENT_WORDS)}
    rng = np.random.default_rng(0)
    drawn = {" ".join(draw_words(rng)) for _ in range(3000)}
    assert not drawn & scripts
    assert len(drawn) > 2000


def test_labels_lie_where_things_are_heard(clips: list[Spoken]) -> None:
    """Would catch labels of another length than the frames, shifted by a sound before the speech, or out of order."""
    for clip in clips:
        assert len(clip.phones) == len(clip.words) == len(clip.sounds) == num_frames(len(clip.pcm))
        spoken = [bool(word) for word in clip.words]
        assert spoken == [bool(phone) for phone in clip.phones]
        assert sum(spoken) > 0.5 * (len(spoken) - spoken.index(True))
        assert clip.emotion in EMOTIONS
        assert {sound for sound in clip.sounds if sound} <= set(SOUND_NAMES)
    ahead = [clip for clip in clips if clip.sounds[0] and not clip.sounds[-1]]
    assert ahead, "no utterance with a sound before it was drawn"
    for clip in ahead:
        first_word = [bool(word) for word in clip.words].index(True)
        assert clip.sounds[first_word] == ""
        assert clip.sounds.index("") * 320 > 0.55 * 16_000


def test_the_same_seed_speaks_the_same(espeak: Espeak, clips: list[Spoken]) -> None:
    """Would catch a pool that differs from run to run, so that scores could not be compared."""
    again = speak_randomly(espeak, pronunciations(espeak), VOICES, np.random.default_rng(0))
    np.testing.assert_array_equal(again.pcm, clips[0].pcm)
    assert again.words == clips[0].words


@pytest.mark.parametrize(
    ("phones", "words", "owners"),
    [
        ("abcd", ["ab", "cd"], [0, 0, 1, 1]),
        ("abxcd", ["ab", "cd"], [0, 0, 0, 1, 1]),  # a linking phone goes to the word before it
        ("acd", ["ab", "cd"], [0, 1, 1]),  # a swallowed phone
        ("xbcd", ["ab", "cd"], [0, 0, 1, 1]),  # another phone
        ("cd", ["ab", "cd"], [1, 1]),  # a swallowed word
        ("", ["ab"], []),
    ],
)
def test_align(phones: str, words: list[str], owners: list[int]) -> None:
    """Would catch phones given to a neighbouring word wherever a sentence reduces its words."""
    assert align(list(phones), [list(word) for word in words]) == owners


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

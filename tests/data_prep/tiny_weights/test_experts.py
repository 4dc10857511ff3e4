"""The experts' training: labels, what is regressed on, and that each of the three learns."""

import numpy as np
import pytest
import torch

from data_prep.synthesis.mixing.sounds import render
from data_prep.tiny_weights.experts import (
    EMOTION_CLASSES,
    SOUND_LABELS,
    Expert,
    FeelingExpert,
    Labels,
    SoundExpert,
    WordExpert,
    batches,
    learn,
    pitches,
    score,
    spectra,
)
from data_prep.tiny_weights.speech import EMOTIONS, Spoken
from omnichat.audio import num_frames
from omnichat.models.tiny import EMOTION2VEC_LABELS
from omnichat.prompt import IGNORE


def tone(hertz: float, samples: int = 8000) -> np.ndarray:
    phase = 2 * np.pi * hertz * np.arange(samples) / 16_000
    return np.sin(phase) + 0.5 * np.sin(2 * phase)


def clip(number: int, samples: int = 8000) -> Spoken:
    """A tone for each word and emotion, and a sound in the second half of every other clip."""
    size, sound = num_frames(samples), ("rain", "bell")[number // 2 % 2] if number % 2 else ""
    wave = tone(120 + 60 * (number % 4), samples)
    if sound:
        wave[samples // 2 :] += render(sound, samples - samples // 2, np.random.default_rng(number))
    sounds = ("",) * (size // 2) + (sound,) * (size - size // 2)
    word = "abcd"[number % 4]
    pcm = np.round(wave / np.abs(wave).max() * 20_000).astype(np.int16)
    return Spoken(pcm, (word.upper(),) * size, (word,) * size, sounds, EMOTIONS[number % 4])


def test_collate() -> None:
    """Would catch labels in the wrong place, targets on padding, and names of another pool numbered as others."""
    labels = Labels([clip(0), clip(1)])
    batch = labels.collate([clip(1, 8000), clip(0, 4000), clip(2, 4000)])
    assert batch.waves.shape == (3, 8000)
    assert batch.waves.abs().max() < 1
    assert batch.lengths.tolist() == [8000, 4000, 4000]
    assert (batch.words[1, num_frames(4000) :] == IGNORE).all()
    assert (batch.words[1, : num_frames(4000)] == labels.words["a"]).all()
    assert (batch.words[2] == IGNORE).all()  # its word was never heard
    assert labels.words[""] == labels.phones[""] == 0
    half = num_frames(8000) // 2
    rain = batch.sounds[0, :, SOUND_LABELS.index("rain")]
    assert rain[:half].sum() == 0
    assert rain[half:].all()
    assert batch.sounds[0, :, -1].all()
    assert batch.sounds[1, num_frames(4000) :].sum() == 0
    assert batch.emotions.tolist() == [EMOTION_CLASSES[1], EMOTION_CLASSES[0], EMOTION_CLASSES[2]]


def test_emotions_are_upstreams_classes() -> None:
    """Would catch a classifier whose "sad" is upstream's "angry"."""
    names = [EMOTION2VEC_LABELS[number].split("/")[1] for number in EMOTION_CLASSES]
    assert tuple(names) == EMOTIONS


@pytest.mark.parametrize("hertz", [80.0, 150.0, 330.0])
def test_pitches(hertz: float) -> None:
    """Would catch an octave error, or silence and noise taken for voice."""
    wave = torch.from_numpy(tone(hertz)).float()
    noise = torch.randn(8000, generator=torch.Generator().manual_seed(0))
    heights, voiced = pitches(torch.stack([wave, noise, torch.zeros(8000)]), 24)
    torch.testing.assert_close(heights[0, 2:-3], torch.full((19,), 3 * float(np.log2(hertz / 150))), atol=0.1, rtol=0)
    assert voiced[0, 2:-3].all()
    assert not voiced[1:].any()


def test_spectra_do_not_hang_on_loudness_or_padding() -> None:
    """Would catch targets that a normalised waveform cannot know."""
    wave = torch.from_numpy(tone(200.0)).float()
    padded = torch.zeros(1, 16_000)
    padded[0, :8000] = 0.1 * wave
    alone = spectra(wave[None], torch.tensor([8000]), 25)
    torch.testing.assert_close(spectra(padded, torch.tensor([8000]), 50)[:, :25], alone, atol=1e-3, rtol=0)


def test_batches_hold_every_clip_once() -> None:
    """Would catch clips lost at the end of a pass, and a shuffle that mixes long with short."""
    clips = [clip(number, 4000 + 400 * number) for number in range(10)]
    for rng in (None, np.random.default_rng(0)):
        groups = list(batches(clips, 4, rng))
        assert sorted(len(group) for group in groups) == [2, 4, 4]
        assert {id(one) for group in groups for one in group} == {id(one) for one in clips}
        assert all(max(len(c.pcm) for c in group) < 1.8 * min(len(c.pcm) for c in group) for group in groups)


@pytest.mark.parametrize("kind", ["whisper", "emotion2vec", "beats"])
def test_an_expert_learns(kind: str) -> None:
    """Would catch a loss whose targets have nothing to do with what the score asks for."""
    torch.manual_seed(0)
    clips = [clip(number) for number in range(8)]
    labels = Labels(clips)
    experts: dict[str, Expert] = {
        "whisper": WordExpert(32, 2, 1, labels),
        "emotion2vec": FeelingExpert(32, 2, 1, 1),
        "beats": SoundExpert(32, 2, 1),
    }
    expert = experts[kind]
    lines: list[str] = []
    learn(expert, clips, labels, 60, 4e-3, np.random.default_rng(0), lines.append, kind)
    assert lines[-1].startswith(f"{kind}: step 60 of 60, loss ")
    assert all(share > 0.9 for share in score(expert, clips, labels).values())

"""The three tiny experts: upstream's nets, trained on what the synthesiser knows.

Shapes: A clips, S samples, N frames, D width, C classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_prep.synthesis.mixing.sounds import SOUND_NAMES
from data_prep.tiny_weights.optimise import Report, optimise
from data_prep.tiny_weights.speech import EMOTIONS, FRAME, Spoken
from omnichat.audio import SAMPLE_RATE, num_frames
from omnichat.models.encoders.base import EncoderNet, valid_positions
from omnichat.models.encoders.beats import BeatsNet
from omnichat.models.encoders.emotion2vec import Emotion2vecNet
from omnichat.models.encoders.log_mel import log_mel
from omnichat.models.encoders.whisper import WhisperDims, WhisperEncoderNet
from omnichat.models.tiny import EMOTION2VEC_LABELS, beats_config, emotion2vec_config
from omnichat.prompt import IGNORE

# emotion2vec's kernels and strides, but fewer channels where there are more samples: those layers cost most.
CONV_LAYERS = ((24, 10, 5), (32, 3, 2), (48, 3, 2), (64, 3, 2), (64, 3, 2), (64, 2, 2), (64, 2, 2))
SOUND_LABELS = (*SOUND_NAMES, "speech")
# FunASR's label of each of our emotions, by number.
EMOTION_CLASSES = tuple(
    next(number for number, label in enumerate(EMOTION2VEC_LABELS) if label.endswith(f"/{emotion}"))
    for emotion in EMOTIONS
)
NUM_MELS, BANDS = 80, 40
PITCH_FRAME, LOWEST_LAG, HIGHEST_LAG = 1024, 32, 320  # samples: pitch between 50 and 500 Hz
MIDDLE_PITCH = 150.0  # Hz
OCTAVE_COST = 0.03  # of correlation; ours, the idea is Boersma's


class Clips(NamedTuple):
    """A batch: waves (A, S) float32, lengths (A,), and labels.

    phones, words: (A, N) numbers, IGNORE beyond a clip. sounds: (A, N, C), 1 where one of `SOUND_LABELS` is heard.
    emotions: (A,) numbers of emotion2vec's labels.
    """

    waves: Tensor
    lengths: Tensor
    phones: Tensor
    words: Tensor
    sounds: Tensor
    emotions: Tensor


class Labels:
    """The numbers of phones and words; 0 is silence."""

    def __init__(self, clips: Sequence[Spoken]) -> None:
        self.phones = _numbered(name for clip in clips for name in clip.phones)
        self.words = _numbered(name for clip in clips for name in clip.words)

    def collate(self, clips: Sequence[Spoken]) -> Clips:
        """A batch; names that were not in the clips the labels were made from are ignored."""
        lengths = [len(clip.pcm) for clip in clips]
        size = num_frames(max(lengths))
        waves = torch.zeros(len(clips), max(lengths))
        phones, words = torch.full((2, len(clips), size), IGNORE)
        sounds = torch.zeros(len(clips), size, len(SOUND_LABELS))
        for row, clip in enumerate(clips):
            count = len(clip.phones)
            waves[row, : len(clip.pcm)] = torch.from_numpy(clip.pcm.astype(np.float32) / 32768)
            phones[row, :count] = torch.tensor([self.phones.get(name, IGNORE) for name in clip.phones])
            words[row, :count] = torch.tensor([self.words.get(name, IGNORE) for name in clip.words])
            sounds[row, :count, -1] = torch.tensor([float(bool(name)) for name in clip.phones])
            for number, name in enumerate(SOUND_NAMES):
                if name in clip.sounds:
                    sounds[row, :count, number] = torch.tensor([float(sound == name) for sound in clip.sounds])
        emotions = torch.tensor([EMOTION_CLASSES[EMOTIONS.index(clip.emotion)] for clip in clips])
        return Clips(waves, torch.tensor(lengths), phones, words, sounds, emotions)


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(sorted({"", *names}))}


class Expert(nn.Module, ABC):
    """A net with the heads it is trained through."""

    net: EncoderNet

    @abstractmethod
    def loss(self, clips: Clips) -> Tensor:
        """What is minimised."""

    @abstractmethod
    def hits(self, clips: Clips) -> dict[str, Tensor]:
        """What was right (1-dimensional bool), by what was asked."""


class WordExpert(Expert):
    """Whisper's encoder: the phone that each frame is part of, and the word."""

    def __init__(self, width: int, heads: int, layers: int, labels: Labels) -> None:
        super().__init__()
        self.net: WhisperEncoderNet = WhisperEncoderNet(WhisperDims(NUM_MELS, width, heads, layers), context="trim")
        self.phones = nn.Linear(width, len(labels.phones))
        self.words = nn.Linear(width, len(labels.words))

    def loss(self, clips: Clips) -> Tensor:
        """Cross entropy of both, over all frames."""
        frames, _ = self.net(clips.waves, clips.lengths)
        phones = F.cross_entropy(self.phones(frames).transpose(1, 2), clips.phones, ignore_index=IGNORE)
        words = F.cross_entropy(self.words(frames).transpose(1, 2), clips.words, ignore_index=IGNORE)
        return phones + words

    def hits(self, clips: Clips) -> dict[str, Tensor]:
        """Phones over all frames, words over the spoken ones."""
        frames, _ = self.net(clips.waves, clips.lengths)
        phones, words = self.phones(frames).argmax(-1), self.words(frames).argmax(-1)
        return {
            "phone of a frame": (phones == clips.phones)[clips.phones >= 0],
            "word of a frame": (words == clips.words)[clips.words > 0],
        }


class FeelingExpert(Expert):
    """emotion2vec: the emotion, from the mean frame through upstream's `proj`.

    Each frame's emotion, spectrum and pitch are asked for too: without them a net on the raw waveform learns in many
    times the steps.
    """

    def __init__(self, width: int, heads: int, prenet_depth: int, depth: int) -> None:
        super().__init__()
        self.net: Emotion2vecNet = Emotion2vecNet(emotion2vec_config(width, heads, prenet_depth, depth, CONV_LAYERS))
        self.proj = nn.Linear(width, len(EMOTION2VEC_LABELS))
        self.frame_emotion = nn.Linear(width, len(EMOTION2VEC_LABELS))
        self.spectrum = nn.Linear(width, BANDS)
        self.pitch = nn.Linear(width, 2)

    def loss(self, clips: Clips) -> Tensor:
        """Cross entropy of the clip's emotion, and what its frames must know besides."""
        frames, counts = self.net(clips.waves, clips.lengths)
        valid = valid_positions(counts, frames.shape[1])
        whole = F.cross_entropy(self.proj(_mean(frames, counts)), clips.emotions)
        each = F.cross_entropy(self.frame_emotion(frames)[valid], clips.emotions[:, None].expand(valid.shape)[valid])
        size = frames.shape[1]
        spectrum = (self.spectrum(frames) - spectra(clips.waves, clips.lengths, size))[valid].square().mean()
        heights, voiced = pitches(clips.waves, size)
        height, voice = self.pitch(frames).unbind(-1)
        pitch = (height - heights)[valid & voiced].abs().mean()
        voicing = F.binary_cross_entropy_with_logits(voice[valid], voiced[valid].float())
        return whole + 0.3 * each + spectrum + pitch + voicing

    def hits(self, clips: Clips) -> dict[str, Tensor]:
        """The emotions of the clips."""
        frames, counts = self.net(clips.waves, clips.lengths)
        return {"emotion": self.proj(_mean(frames, counts)).argmax(-1) == clips.emotions}


class SoundExpert(Expert):
    """BEATs, fine-tuned: the sounds in each patch, speech among them."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.net: BeatsNet = BeatsNet(beats_config(width, heads, layers, len(SOUND_LABELS)))

    def loss(self, clips: Clips) -> Tensor:
        """Binary cross entropy summed over the classes, over all patches."""
        frames, counts = self.net(clips.waves, clips.lengths)
        valid = valid_positions(counts, frames.shape[1])
        heard = clips.sounds[:, : frames.shape[1]][valid]
        return len(SOUND_LABELS) * F.binary_cross_entropy_with_logits(self.net.predictor(frames)[valid], heard)

    def hits(self, clips: Clips) -> dict[str, Tensor]:
        """The sounds of the clips that have one, from the mean over patches as upstream's predictor takes it."""
        logits = self.net.logits(clips.waves, clips.lengths)[:, :-1]
        sounds = clips.sounds[..., :-1].amax(1)
        return {"sound": (logits.argmax(-1) == sounds.argmax(-1))[sounds.amax(-1) > 0]}


def _mean(frames: Tensor, counts: Tensor) -> Tensor:
    return frames.sum(1) / counts[:, None]


def spectra(waves: Tensor, lengths: Tensor, size: int) -> Tensor:
    """(A, size, 40) log-mel bands at 50 frames a second, about each clip's mean, in units of about their spread."""
    mel, _ = log_mel(waves, lengths, NUM_MELS)
    mel = F.pad(mel, (0, max(0, 2 * size - mel.shape[2])))[..., : 2 * size]
    bands = mel.unflatten(2, (size, 2)).unflatten(1, (BANDS, 2)).mean((2, 4)).transpose(1, 2)
    valid = valid_positions(lengths // FRAME, size)[..., None]
    mean = (bands * valid).sum((1, 2), keepdim=True) / (BANDS * valid.sum((1, 2), keepdim=True).clamp(min=1))
    return 3 * (bands - mean)


def pitches(waves: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(A, size) pitch in thirds of an octave above 150 Hz, and (A, size) whether there is one, by autocorrelation."""
    window = torch.hann_window(PITCH_FRAME)
    centred = F.pad(waves, (PITCH_FRAME // 2 - 200, PITCH_FRAME))  # 200: the middle of an emotion2vec frame
    frames = centred.unfold(1, PITCH_FRAME, FRAME)[:, :size]
    frames = (frames - frames.mean(-1, keepdim=True)) * window

    def correlation(signal: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(signal, 2 * PITCH_FRAME).abs().square())[..., :HIGHEST_LAG]

    # Divided by the window's own, so that a long lag is no weaker than a short one (Boersma 1993).
    alike = correlation(frames) * (correlation(window)[0] / correlation(window))
    strength = (alike / (alike[..., :1] + 1e-6))[..., LOWEST_LAG:]
    # Every multiple of the period is as much alike: the shortest wins by a small cost per octave.
    lags = torch.arange(LOWEST_LAG, HIGHEST_LAG)
    strength, best = (strength - OCTAVE_COST * torch.log2(lags / LOWEST_LAG)).max(-1)
    lag = lags[best]
    return 3 * torch.log2(SAMPLE_RATE / lag / MIDDLE_PITCH), strength > 0.6


def batches(clips: Sequence[Spoken], size: int, rng: np.random.Generator | None = None) -> Iterator[list[Spoken]]:
    """All clips once, in batches of similar length; shuffled with `rng`."""
    noise = np.ones(len(clips)) if rng is None else rng.uniform(0.85, 1.15, len(clips))
    order = np.argsort([len(clip.pcm) * factor for clip, factor in zip(clips, noise, strict=True)])
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    for number in range(len(groups)) if rng is None else rng.permutation(len(groups)):
        yield [clips[index] for index in groups[number]]


def learn(
    expert: Expert,
    clips: Sequence[Spoken],
    labels: Labels,
    steps: int,
    peak: float,
    rng: np.random.Generator,
    report: Report,
    title: str,
) -> None:
    """Train `expert` in place, 24 clips a step."""

    def endless() -> Iterator[list[Spoken]]:
        while True:
            yield from batches(clips, 24, rng)

    stream = endless()
    optimise(expert, lambda step: expert.loss(labels.collate(next(stream))), steps, peak, report, title)


@torch.no_grad()
def score(expert: Expert, clips: Sequence[Spoken], labels: Labels) -> dict[str, float]:
    """Shares of right answers, by what was asked."""
    hits: dict[str, list[Tensor]] = {}
    for group in batches(clips, 32):
        for name, right in expert.hits(labels.collate(group)).items():
            hits.setdefault(name, []).append(right)
    return {name: round(float(torch.cat(rights).float().mean()), 3) for name, rights in hits.items()}

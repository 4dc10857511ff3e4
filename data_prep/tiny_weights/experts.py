"""The three tiny experts: upstream's nets, trained on what the synthesiser knows.

Shapes: A clips, S samples, N frames, D width, C classes.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_prep.quickstart.sounds import SOUND_NAMES
from data_prep.tiny_weights.speech import EMOTIONS, FRAME, Spoken
from omnichat.audio import SAMPLE_RATE, num_frames
from omnichat.models.encoders.base import EncoderNet, valid_positions
from omnichat.models.encoders.beats import BeatsNet
from omnichat.models.encoders.emotion2vec import Emotion2vecNet
from omnichat.models.encoders.log_mel import log_mel
from omnichat.models.encoders.whisper import WhisperDims, WhisperEncoderNet
from omnichat.models.tiny import EMOTION2VEC_LABELS, beats_config, emotion2vec_config
from omnichat.prompt import IGNORE

# Fewer channels where there are more samples: the first layers cost most.
CHANNELS = (24, 32, 48, 64, 64, 64, 64)
CONV_LAYERS = tuple(zip(CHANNELS, (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True))
SPEECH = "speech"
SOUND_LABELS = (*SOUND_NAMES, SPEECH)


class Clips(NamedTuple):
    """A batch: waves (A, S) float32, lengths (A,), and labels; IGNORE beyond a clip.

    phones, words: (A, N) indices. sounds: (A, N, C) in {0, 1}, whether each of `SOUND_LABELS` is heard.
    emotions: (A,) indices.
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
        lengths = [len(clip.pcm) for clip in clips]
        size = num_frames(max(lengths))
        waves = torch.zeros(len(clips), max(lengths))
        phones, words = torch.full((2, len(clips), size), IGNORE)
        sounds = torch.zeros(len(clips), size, len(SOUND_LABELS))
        for row, clip in enumerate(clips):
            waves[row, : len(clip.pcm)] = torch.from_numpy(clip.pcm.astype(np.float32) / 32768)
            count = len(clip.phones)
            phones[row, :count] = torch.tensor([self.phones.get(name, IGNORE) for name in clip.phones])
            words[row, :count] = torch.tensor([self.words.get(name, IGNORE) for name in clip.words])
            for frame, (phone, sound) in enumerate(zip(clip.phones, clip.sounds, strict=True)):
                if sound:
                    sounds[row, frame, SOUND_LABELS.index(sound)] = 1
                if phone:
                    sounds[row, frame, -1] = 1
        emotions = torch.tensor([EMOTIONS.index(clip.emotion) for clip in clips])
        return Clips(waves, torch.tensor(lengths), phones, words, sounds, emotions)


def _numbered(names: Iterator[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(sorted({"", *names}))}


class Expert(nn.Module, ABC):
    """A net with the heads it is trained through."""

    net: EncoderNet

    @abstractmethod
    def loss(self, clips: Clips) -> Tensor:
        """What is minimised."""

    @abstractmethod
    def hits(self, clips: Clips) -> dict[str, Tensor]:
        """Right or wrong, by kind of answer."""


class WordExpert(Expert):
    """Whisper's encoder: which phone of which word each frame is part of."""

    def __init__(self, width: int, heads: int, layers: int, labels: Labels) -> None:
        super().__init__()
        self.net = WhisperEncoderNet(WhisperDims(80, width, heads, layers), context="trim")
        self.phones = nn.Linear(width, len(labels.phones))
        self.words = nn.Linear(width, len(labels.words))

    def loss(self, clips: Clips) -> Tensor:
        frames, _ = self.net(clips.waves, clips.lengths)
        phones = F.cross_entropy(self.phones(frames).transpose(1, 2), clips.phones, ignore_index=IGNORE)
        words = F.cross_entropy(self.words(frames).transpose(1, 2), clips.words, ignore_index=IGNORE)
        return phones + words

    def hits(self, clips: Clips) -> dict[str, Tensor]:
        frames, _ = self.net(clips.waves, clips.lengths)
        said = clips.words > 0
        return {
            "phone frames": (self.phones(frames).argmax(-1) == clips.phones)[clips.phones >= 0],
            "word frames": (self.words(frames).argmax(-1) == clips.words)[said],
        }


class FeelingExpert(Expert):
    """emotion2vec: the emotion of the clip, from the mean frame as upstream's `proj`; and, as a start, pitch and spectrum."""

    def __init__(self, width: int, heads: int, prenet_depth: int, depth: int) -> None:
        super().__init__()
        self.net = Emotion2vecNet(emotion2vec_config(width, heads, prenet_depth, depth, CONV_LAYERS))
        self.proj = nn.Linear(width, len(EMOTION2VEC_LABELS))
        self.frame_emotion = nn.Linear(width, len(EMOTION2VEC_LABELS))
        self.spectrum = nn.Linear(width, 40)
        self.pitch = nn.Linear(width, 2)
        order = [next(n for n, label in enumerate(EMOTION2VEC_LABELS) if label.endswith(name)) for name in EMOTIONS]
        self.register_buffer("classes", torch.tensor(order))

    def loss(self, clips: Clips) -> Tensor:
        frames, counts = self.net(clips.waves, clips.lengths)
        valid = valid_positions(counts, frames.shape[1])
        wanted = self.classes[clips.emotions]
        whole = F.cross_entropy(self.proj(_mean(frames, counts)), wanted)
        each = F.cross_entropy(self.frame_emotion(frames)[valid], wanted[:, None].expand(valid.shape)[valid])
        spectrum, log_pitch, voiced = acoustics(clips.waves, clips.lengths, frames.shape[1])
        shape = (self.spectrum(frames) - spectrum)[valid].square().mean()
        pitch = self.pitch(frames)
        height = (pitch[..., 0] - log_pitch)[valid & voiced].abs().mean()
        is_voiced = F.binary_cross_entropy_with_logits(pitch[..., 1][valid], voiced[valid].float())
        return whole + 0.3 * each + shape + height + is_voiced

    def hits(self, clips: Clips) -> dict[str, Tensor]:
        frames, counts = self.net(clips.waves, clips.lengths)
        return {"emotion": self.proj(_mean(frames, counts)).argmax(-1) == self.classes[clips.emotions]}


class SoundExpert(Expert):
    """BEATs, fine-tuned: the sounds in each patch, and speech."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.net = BeatsNet(beats_config(width, heads, layers, len(SOUND_LABELS)))

    def loss(self, clips: Clips) -> Tensor:
        frames, counts = self.net(clips.waves, clips.lengths)
        valid = valid_positions(counts, frames.shape[1])
        logits = self.net.predictor(frames)
        return 13 * F.binary_cross_entropy_with_logits(logits[valid], clips.sounds[:, : frames.shape[1]][valid])

    def hits(self, clips: Clips) -> dict[str, Tensor]:
        logits = self.net.logits(clips.waves, clips.lengths)[:, :-1]
        sounds = clips.sounds[..., :-1].amax(1)
        heard = sounds.amax(-1) > 0
        return {"sound": logits.argmax(-1)[heard] == sounds.argmax(-1)[heard]}


def _mean(frames: Tensor, counts: Tensor) -> Tensor:
    return frames.sum(1) / counts[:, None]


def acoustics(waves: Tensor, lengths: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """(A, size, 40) log-mel about the clip's mean, (A, size) pitch in units of a third of an octave about 150 Hz, (A, size) whether voiced."""
    mel, _ = log_mel(waves, lengths, 80)
    mel = F.pad(mel, (0, max(0, 2 * size - mel.shape[2])))[..., : 2 * size].unflatten(2, (size, 2)).unflatten(1, (40, 2)).mean((2, 4)).transpose(1, 2)
    valid = valid_positions(lengths // FRAME, size)[..., None]
    mean = (mel * valid).sum((1, 2), keepdim=True) / (40 * valid.sum((1, 2), keepdim=True))
    window = torch.hann_window(1024)
    frames = F.pad(waves, (312, 1024)).unfold(1, 1024, FRAME)[:, :size]
    frames = (frames - frames.mean(-1, keepdim=True)) * window
    correlation = torch.fft.irfft(torch.fft.rfft(frames, 2048).abs().square())[..., :320]
    own = torch.fft.irfft(torch.fft.rfft(window, 2048).abs().square())[:320]
    correlation = correlation / (correlation[..., :1] + 1e-6) / (own / own[0])
    strength, lag = correlation[..., 32:].max(-1)
    return 3 * (mel - mean), 3 * torch.log2(SAMPLE_RATE / (lag + 32) / 150), strength > 0.6


def batches(clips: Sequence[Spoken], size: int, rng: np.random.Generator | None = None) -> Iterator[list[Spoken]]:
    """All clips once in batches of similar length; shuffled with `rng`."""
    noise = np.ones(len(clips)) if rng is None else rng.uniform(0.85, 1.15, len(clips))
    order = np.argsort([len(clip.pcm) * factor for clip, factor in zip(clips, noise, strict=True)])
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    if rng is not None:
        rng.shuffle(groups)
    for group in groups:
        yield [clips[number] for number in group]


def endless(clips: Sequence[Spoken], size: int, rng: np.random.Generator) -> Iterator[list[Spoken]]:
    while True:
        yield from batches(clips, size, rng)


def train(expert: Expert, clips: Sequence[Spoken], labels: Labels, steps: int, batch: int, lr: float, rng: np.random.Generator, report: Callable[[str], None], check=None) -> None:
    optimizer = torch.optim.AdamW(expert.parameters(), lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    started, total = time.process_time(), 0.0
    for step, group in zip(range(1, steps + 1), endless(clips, batch, rng)):
        loss = expert.loss(labels.collate(group))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(expert.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % 100 == 0:
            report(f"step {step} loss {total / 100:.3f} {time.process_time() - started:.0f} s " + (check() if check and step % 400 == 0 else ""))
            total = 0.0


@torch.no_grad()
def score(expert: Expert, clips: Sequence[Spoken], labels: Labels) -> dict[str, float]:
    hits: dict[str, list[Tensor]] = {}
    for group in batches(clips, 32):
        for name, right in expert.hits(labels.collate(group)).items():
            hits.setdefault(name, []).append(right)
    return {name: float(torch.cat(rights).float().mean()) for name, rights in hits.items()}

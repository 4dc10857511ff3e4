"""Kaldi's log-mel filterbank as torchaudio.compliance.kaldi.fbank computes it, batched, in float32 torch."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from omnichat.audio import HOP, SAMPLE_RATE

FRAME = 400  # samples: 25 ms
FFT_SIZE = 512  # the frame, rounded up to a power of two
NUM_BINS = 128
LOW_HZ = 20.0
PREEMPHASIS = 0.97
FLOOR = 1.1920929e-07  # float32 epsilon, Kaldi's floor before the logarithm


def kaldi_fbank(waves: Tensor) -> Tensor:
    """(A, S) float32 waveforms in +-1, S >= 400 -> (A, 1 + (S - 400) // 160, 128) log filterbank energies.

    Kaldi's defaults without dither: frames inside the clip only, each freed of its mean, pre-emphasised and
    weighted with the Povey window. Frames do not see each other, so padding at the end changes none before it.
    """
    with torch.autocast(waves.device.type, enabled=False):
        frames = (waves.float() * 2**15).unfold(1, FRAME, HOP)  # Kaldi's scale is that of 16-bit integers
        frames = frames - frames.mean(dim=-1, keepdim=True)
        previous = F.pad(frames, (1, 0), mode="replicate")[..., :-1]
        frames = (frames - PREEMPHASIS * previous) * _window(waves.device)
        power = torch.fft.rfft(frames, FFT_SIZE).abs().square()
        energies: Tensor = power @ _filters(waves.device)
        return energies.clamp(min=FLOOR).log()


@lru_cache(maxsize=8)
def _window(device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a cached inference tensor could not be used in training later
        return torch.hann_window(FRAME, periodic=False, device=device, dtype=torch.float32) ** 0.85


@lru_cache(maxsize=8)
def _filters(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.from_numpy(kaldi_filters()).to(device)


def kaldi_filters() -> NDArray[np.float32]:
    """(257, 128) filters, triangular on Kaldi's mel scale 1127 ln(1 + f / 700) from 20 Hz to 8 kHz."""

    frequencies = np.linspace(0.0, SAMPLE_RATE / 2, FFT_SIZE // 2 + 1)
    low, high = _mel(np.array([LOW_HZ, SAMPLE_RATE / 2]))
    edges = np.linspace(low, high, NUM_BINS + 2)
    bins = _mel(frequencies)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles: NDArray[np.floating] = np.maximum(0.0, np.minimum(rising, falling))
    return triangles.astype(np.float32)


def _mel(hertz: NDArray[np.floating]) -> NDArray[np.floating]:
    mel: NDArray[np.floating] = 1127.0 * np.log1p(hertz / 700.0)
    return mel

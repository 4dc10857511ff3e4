"""Whisper's log-mel spectrogram, batched and exact for each clip."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from omnichat.audio import HOP, SAMPLE_RATE
from omnichat.models.encoders.base import valid_positions

FFT_SIZE = 400  # whisper/audio.py N_FFT: 25 ms
MIN_SAMPLES = FFT_SIZE // 2 + 1  # the centred transform mirrors this much of the clip at its edges


def log_mel(waves: Tensor, lengths: Tensor, num_mels: int) -> tuple[Tensor, Tensor]:
    """(A, S) float32 waveforms and their lengths in samples -> (A, num_mels, S // 160) and lengths // 160.

    Every clip comes out as if it were alone: its right edge is mirrored at its own end, and the floor of 8 below
    the maximum (whisper/audio.py log_mel_spectrogram) is taken over its own frames. Frames beyond it are zero.
    Clips below 201 samples are zero-padded to them for the transform.
    """
    with torch.autocast(waves.device.type, enabled=False):
        waves = waves.float().masked_fill(~valid_positions(lengths, waves.shape[1]), 0.0)
        waves = F.pad(waves, (0, max(0, MIN_SAMPLES - waves.shape[1])))
        num_samples, mirror_at = waves.shape[1], lengths.clamp(min=MIN_SAMPLES)[:, None]
        positions = torch.arange(-FFT_SIZE // 2, num_samples + FFT_SIZE // 2, device=waves.device).abs()[None]
        positions = torch.where(positions < mirror_at, positions, 2 * (mirror_at - 1) - positions).clamp(min=0)
        mirrored, window = waves.gather(1, positions), _window(waves.device)
        spectrum = torch.stft(mirrored, FFT_SIZE, HOP, window=window, center=False, return_complex=True)
        power = spectrum[..., :-1].abs().square()
        mel = (_filters(num_mels, waves.device) @ power).clamp(min=1e-10).log10()
        num_frames = lengths // HOP
        valid = valid_positions(num_frames, mel.shape[-1])[:, None]
        loudest = mel.masked_fill(~valid, -torch.inf).amax(dim=(1, 2), keepdim=True)
        mel = (torch.maximum(mel, loudest - 8.0) + 4.0) / 4.0
        return mel.masked_fill(~valid, 0.0), num_frames


@lru_cache(maxsize=8)
def _window(device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a cached inference tensor could not be used in training later
        return torch.hann_window(FFT_SIZE, device=device, dtype=torch.float32)


@lru_cache(maxsize=8)
def _filters(num_mels: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.from_numpy(slaney_filters(num_mels)).to(device)


def slaney_filters(num_mels: int) -> NDArray[np.float32]:
    """(num_mels, 201) triangular filters on Slaney's mel scale, of equal area: those of whisper/assets/mel_filters.npz.

    The scale is linear below 1 kHz (200/3 Hz a mel) and logarithmic above (27 mels for a factor of 6.4).
    """
    break_hz, hz_per_mel, log_step = 1000.0, 200.0 / 3.0, np.log(6.4) / 27.0
    break_mel = break_hz / hz_per_mel
    top = break_mel + np.log(SAMPLE_RATE / 2 / break_hz) / log_step
    mels = np.linspace(0.0, top, num_mels + 2)
    edges = np.where(mels < break_mel, mels * hz_per_mel, break_hz * np.exp(log_step * (mels - break_mel)))
    frequencies = np.linspace(0.0, SAMPLE_RATE / 2, FFT_SIZE // 2 + 1)
    rising = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return (triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)

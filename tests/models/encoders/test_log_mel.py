"""Whisper's log-mel against openai-whisper's."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from omnichat.models.encoders import log_mel as module
from omnichat.models.encoders.log_mel import log_mel


@pytest.mark.parametrize("clip", ["w1_1000ms", "w4_562ms"])
@pytest.mark.parametrize("num_mels", [80, 128])
def test_matches_openai(case, waves, clip, num_mels) -> None:
    """Prevents wrong filters, a clamp over the wrong span, or padding after the transform instead of before."""
    tolerances, arrays = case(f"logmel/{clip}")
    wave = waves[clip]
    for mode, samples in (("nopad", wave), ("pad30", F.pad(wave, (0, 480_000 - len(wave))))):
        mel, counts = log_mel(samples[None], torch.tensor([len(samples)]), num_mels)
        expected = arrays[f"mel{num_mels}_{mode}"]
        assert counts.tolist() == [expected.shape[1]]
        difference = np.abs(mel[0].numpy() - expected)
        assert difference.max() <= tolerances["atol"]
        assert difference.mean() <= tolerances["mean_atol"]


@pytest.mark.parametrize("length", [160, 200, 201, 319, 320, 1000, 15_999])
def test_a_clip_in_a_batch_is_as_alone(length) -> None:
    """Prevents an edge that mirrors the padding, a maximum over the neighbours, and frames left in the padding."""
    generator = torch.Generator().manual_seed(length)
    waves = torch.randn(2, 16_000, generator=generator) * torch.tensor([[0.01], [1.0]])
    batch, counts = log_mel(waves, torch.tensor([length, 16_000]), 80)
    alone, _ = log_mel(waves[:1, :length], torch.tensor([length]), 80)
    if length <= 200:  # upstream cannot mirror so short a clip; here it is zero-padded to 201 samples
        padded = F.pad(waves[:1, :length], (0, 201 - length))
        torch.testing.assert_close(alone, log_mel(padded, torch.tensor([201]), 80)[0])
    count = length // 160
    assert counts.tolist() == [count, 100]
    torch.testing.assert_close(batch[:1, :, :count], alone, atol=1e-6, rtol=0)
    assert not batch[0, :, count:].any()


def test_the_floor_is_below_the_clip_s_own_maximum() -> None:
    """Prevents that what lies behind a clip, its first sample held, lifts the floor over what is quiet in it."""
    wave = 1e-4 * torch.randn(1, 1_600, generator=torch.Generator().manual_seed(0))
    wave[0, 0] = 1.0
    alone, _ = log_mel(wave, torch.tensor([1_600]), 80)
    batch, _ = log_mel(F.pad(wave, (0, 14_400)), torch.tensor([1_600]), 80)
    torch.testing.assert_close(batch[:, :, :10], alone, atol=1e-5, rtol=0)


def test_usable_in_training_after_inference_mode() -> None:
    """Prevents cached filters that were made as inference tensors, which no backward pass may save."""
    module._filters.cache_clear()
    module._window.cache_clear()
    lengths = torch.tensor([800])
    with torch.inference_mode():
        log_mel(torch.randn(1, 800), lengths, 80)
    waves = torch.randn(1, 800, requires_grad=True)
    log_mel(waves, lengths, 80)[0].sum().backward()
    assert waves.grad is not None
    assert waves.grad.isfinite().all()


def test_no_window_of_half_precision() -> None:
    """Prevents a Hann window of 8 bits: Lightning's bf16-true makes bfloat16 the default while the model runs."""
    waves, lengths = torch.randn(1, 800, generator=torch.Generator().manual_seed(0)), torch.tensor([800])
    expected = log_mel(waves, lengths, 80)[0]
    module._window.cache_clear()
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = log_mel(waves, lengths, 80)[0]
    finally:
        torch.set_default_dtype(torch.float32)
        module._window.cache_clear()
    assert torch.equal(found, expected)

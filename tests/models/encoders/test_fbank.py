"""Kaldi's filterbank against torchaudio's."""

import numpy as np
import pytest
import torch

from omnichat.models.encoders import fbank
from omnichat.models.encoders.fbank import kaldi_fbank, kaldi_filters


@pytest.mark.parametrize("clip", ["w1_1000ms", "w2_3370ms", "w4_562ms"])
def test_matches_torchaudio(case, waves, clip) -> None:
    """Prevents a wrong window, pre-emphasis, mel scale, power or floor: each shifts the mean (facts: 0.008 to 7)."""
    tolerances, arrays = case(f"fbank/{clip}")
    difference = np.abs(kaldi_fbank(waves[clip][None])[0].numpy() - arrays["fbank_raw"])
    # Where a band holds almost no energy its logarithm is the transform's rounding, which differs between processors.
    assert difference.max() <= tolerances["atol"]
    assert np.quantile(difference, 0.999) <= tolerances["q999_atol"]
    assert difference.mean() <= tolerances["mean_atol"]


def test_frames_do_not_see_what_follows() -> None:
    """Prevents a frame that reaches into the padding: those inside the clip are bit-equal with and without it."""
    wave = torch.randn(1, 2000, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([wave, torch.full((1, 900), 0.5)], dim=1)
    alone = kaldi_fbank(wave)
    assert alone.shape == (1, 11, 128)
    assert torch.equal(kaldi_fbank(padded)[:, :11], alone)


def test_silence_and_offset() -> None:
    """Prevents a missing floor or mean removal: silence is Kaldi's floor, and a constant is silence too."""
    silence, offset = kaldi_fbank(torch.zeros(1, 400)), kaldi_fbank(torch.full((1, 400), 0.25))
    torch.testing.assert_close(silence, torch.full((1, 1, 128), -15.9424), atol=1e-4, rtol=0)
    torch.testing.assert_close(offset, silence)


def test_filters_cover_20_hz_to_8_khz() -> None:
    """Prevents filters shifted by a bin: none sees the bins at 0 Hz and 8 kHz, and the peaks rise."""
    filters = kaldi_filters()
    assert filters[[0, 256]].max() == 0.0
    peaks = filters.argmax(axis=0)[20:]  # below, filters are narrower than a bin
    assert (np.diff(peaks) >= 0).all()
    assert 250 <= peaks[-1] <= 255


def test_no_window_of_half_precision() -> None:
    """Prevents a window of 8 bits: Lightning's bf16-true makes bfloat16 the default while the model runs."""
    wave = torch.randn(1, 2000, generator=torch.Generator().manual_seed(0))
    expected = kaldi_fbank(wave)
    fbank._window.cache_clear()
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = kaldi_fbank(wave)
    finally:
        torch.set_default_dtype(torch.float32)
        fbank._window.cache_clear()
    assert torch.equal(found, expected)

"""Loudness by ITU-R BS.1770-4, as pyloudnorm measures it, in a third of its time.

The filters are pyloudnorm's; both run in one pass, and blocks are sums of 100 ms each, which they share.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from omnichat.audio import SAMPLE_RATE

HOP = SAMPLE_RATE // 10  # 100 ms: blocks of 400 ms overlap by three quarters
BLOCK = 4 * HOP
OFFSET = -0.691  # LUFS of a mean square of 1 after the filters, in dB
ABSOLUTE_GATE = -70.0  # LUFS: quieter blocks are silence
RELATIVE_GATE = -10.0  # LU below the mean of the others: pauses do not count
SILENCE = float("-inf")


def loudness(wave: NDArray[np.float32]) -> float:
    """Integrated loudness in LUFS of (S,) samples at 16 kHz; `SILENCE` where no block is above -70 LUFS.

    A wave shorter than a block of 0.4 s is one block of its own length, as Divide-and-Remaster measures short clips.
    """
    if len(wave) == 0:
        return SILENCE
    power = _block_power(np.square(_weighted(wave)))
    heard = power[_lufs(power) >= ABSOLUTE_GATE]
    if heard.size:
        heard = heard[_lufs(heard) > _lufs(heard.mean()) + RELATIVE_GATE]
    return float(_lufs(heard.mean())) if heard.size else SILENCE


def peak(wave: NDArray[np.float32]) -> float:
    """The largest sample of (S,), without its sign; 0 for none."""
    return float(max(wave.max(), -wave.min())) if len(wave) else 0.0


def to_db(ratio: float) -> float:
    """Decibels of a ratio of amplitudes; `SILENCE` of 0."""
    return float(20 * np.log10(ratio)) if ratio > 0 else SILENCE


def from_db(decibels: float) -> float:
    """The ratio of amplitudes."""
    return float(10 ** (decibels / 20))


def _weighted(wave: NDArray[np.float32]) -> NDArray[np.float64]:
    from scipy.signal import sosfilt

    weighted: NDArray[np.float64] = sosfilt(_filters(), wave.astype(np.float64))
    return weighted


@lru_cache(maxsize=1)
def _filters() -> NDArray[np.float64]:
    """K-weighting at 16 kHz as second-order sections: pyloudnorm/meter.py's two filters, made by its own class."""
    from pyloudnorm import IIRfilter

    shelf = IIRfilter(4.0, 1 / np.sqrt(2), 1500.0, SAMPLE_RATE, "high_shelf")
    high_pass = IIRfilter(0.0, 0.5, 38.0, SAMPLE_RATE, "high_pass")
    return np.array([np.concatenate([one.b, one.a]) for one in (shelf, high_pass)])


def _block_power(squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean square of each block. Where the last one reaches beyond the end, silence follows, as in pyloudnorm."""
    if len(squares) < BLOCK:
        return squares.mean(keepdims=True)
    blocks = round((len(squares) - BLOCK) / HOP) + 1
    hops = np.zeros((blocks + 3) * HOP)
    hops[: len(squares)] = squares[: len(hops)]
    sums = hops.reshape(-1, HOP).sum(axis=1)
    power: NDArray[np.float64] = np.lib.stride_tricks.sliding_window_view(sums, 4).sum(axis=1) / BLOCK
    return power


def _lufs(power: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        decibels: NDArray[np.float64] = OFFSET + 10 * np.log10(power)
    return decibels

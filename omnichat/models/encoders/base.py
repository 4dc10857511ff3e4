"""What the three encoders share: the trainable net's interface, and the frozen encoder around it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnichat.audio import (
    FRAME_RATE,
    MIN_SAMPLES,
    PIECE,
    SAMPLE_RATE,
    num_frames,
    pieces,
)

FRAMES_PER_PIECE = num_frames(PIECE)
# Ours: a group of clips is padded by at most a quarter, and holds at most so many seconds of audio. emotion2vec's first
# convolution alone makes 200 MB of float32 out of 30 s; a GPU is busy only with more at a time.
MAX_PADDING = 0.25
MAX_SECONDS = {"cpu": 120, "cuda": 480}
CONVOLUTION_BYTES = 2**30  # windows laid out at a time for a convolution as a product
CONVOLUTION_FRAMES = 8  # that such a window gives at once


def valid_positions(lengths: Tensor, size: int) -> Tensor:
    """(A,) lengths -> (A, size) bool, True before each length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def attention_bias(valid: Tensor, dtype: torch.dtype) -> Tensor | None:
    """(A, T) bool -> (A, 1, 1, T) of 0, and -inf at what is padded; None where nothing is.

    Whether nothing is, is not asked of a GPU, which the CPU would have to wait for.
    """
    if not valid.is_cuda and bool(valid.all()):
        return None
    return aligned(torch.zeros_like(valid, dtype=dtype).masked_fill(~valid, -torch.inf)[:, None, None, :])


def aligned(bias: Tensor) -> Tensor:
    """The same (..., T), its rows at multiples of 8 numbers: else SDPA's kernel for masks copies it, in every layer.

    See `preprocess_mask` in aten/src/ATen/native/transformers/attention.cpp of PyTorch. Rows never end where the next
    begins, whatever T: what is compiled for one T serves all.
    """
    return F.pad(bias, (0, 8 - bias.shape[-1] % 8))[..., : bias.shape[-1]]


def windows_of(x: Tensor, taps: int, stride: int = 1) -> Tensor:
    """(..., N, C) -> (..., N', taps, C), a view: the frames under a kernel at each of its places."""
    return x.unfold(-2, taps, stride).transpose(-1, -2)


def grouped_conv1d(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """A convolution over time that keeps its length: (A, N, D), weights (D, D / groups, taps) -> (A, N, D)."""
    if x.is_cuda:
        return grouped_conv1d_as_products(x, weight, bias, groups)
    # On processors with AMX, torch 2.13's bfloat16 convolution is wrong for few channels in a group.
    inputs, kernel = x.transpose(1, 2).float(), weight.float()
    y = F.conv1d(inputs, kernel, bias.float(), padding=weight.shape[2] // 2, groups=groups)
    return y[..., : x.shape[1]].transpose(1, 2).to(x.dtype)  # an even kernel gives one position too many


def grouped_conv1d_as_products(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """The same as matrix products: matrix units work with few channels in a group too.

    A window gives `CONVOLUTION_FRAMES` neighbours at once: laid out for each frame alone, 128 taps would be written and
    read 128 times.
    """
    num_frames, taps, together = x.shape[1], weight.shape[2], CONVOLUTION_FRAMES
    after = taps // 2 + -num_frames % together
    padded = F.pad(x, (0, 0, taps // 2, after)).unflatten(-1, (groups, -1)).movedim(2, 0).contiguous()
    kernels = _kernels_of_neighbours(weight.unflatten(0, (groups, -1)).permute(0, 3, 2, 1), together)
    places = -(-num_frames // together)
    size = x.element_size() * x.shape[0] * places * kernels.shape[1]
    at_a_time = max(1, CONVOLUTION_BYTES // max(1, size))
    parts = []
    for some, kernel in zip(padded.split(at_a_time), kernels.split(at_a_time), strict=True):
        windows = windows_of(some, taps + together - 1, together)[:, :, :places].flatten(3).flatten(1, 2)
        parts.append(torch.bmm(windows, kernel))
    found = torch.cat(parts).view(groups, x.shape[0], places * together, -1)
    return found[:, :, :num_frames].permute(1, 2, 0, 3).flatten(2) + bias


def _kernels_of_neighbours(kernels: Tensor, count: int) -> Tensor:
    """(groups, taps, inputs, outputs) -> (groups, (taps + count - 1) x inputs, count x outputs).

    The r-th block of columns holds the kernel r taps later, zeros before and after it.
    """
    groups, taps, _, outputs = kernels.shape
    # Taps and `count` zeros, repeated and cut into rows that are one shorter: each begins a tap later than the last.
    rows = F.pad(kernels, (0, 0, 0, 0, 0, count))[:, None].expand(-1, count, -1, -1, -1).flatten(1, 2)
    shifted = rows[:, : count * (taps + count - 1)].unflatten(1, (count, -1))
    return shifted.permute(0, 2, 3, 1, 4).reshape(groups, -1, count * outputs)


class EncoderNet(nn.Module, ABC):
    """An encoder's network, trainable, with upstream's parameter names.

    Attributes:
        dim: width D of its frames.
        min_samples: what a shorter clip is zero-padded to for the computation; its frame count stays its own.
        pads_to: samples every clip is padded to whatever its length, 0 where it is not.
    """

    dim: int
    min_samples: int
    pads_to: int = 0

    @abstractmethod
    def num_frames(self, num_samples: int) -> int:
        """Frames of a clip of up to 30 s; 0 where it is too short for one."""

    @abstractmethod
    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(A, S) float32 waveforms at 16 kHz, (A,) samples -> (A, num_frames(S), D), (A,) int64 frame counts.

        Differentiable. A clip's frames do not depend on what it is batched or padded with; frames beyond a
        clip's count are zero.
        """


class _Piece(NamedTuple):
    clip: int
    start: int  # samples
    length: int


class Encoder(nn.Module):
    """A frozen net: always in evaluation mode, without gradients, for clips of any length and any batch.

    It computes in the dtype of its weights, whatever autocast says: its frames do not depend on who calls it.

    Attributes:
        name: `whisper`, `emotion2vec` or `beats`.
        dim: width D of its frames.
        frame_rate: frames a second.
        options: what it was loaded with, for those who keep its frames.
    """

    frame_rate = float(FRAME_RATE)

    def __init__(self, name: str, net: EncoderNet, options: Mapping[str, Any] | None = None) -> None:
        """Freezes `net`."""
        super().__init__()
        self.name = name
        self.dim = net.dim
        self.options = dict(options or {})
        self.net = net.requires_grad_(False).eval()

    def in_dtype(self, dtype: torch.dtype) -> Self:
        """Turn its weights, and so its arithmetic and frames, to this dtype; the spectrograms stay float32."""
        self.net.to(dtype)
        return self

    def train(self, mode: bool = True) -> Self:
        """Does nothing: a frozen encoder stays in evaluation mode whatever its surroundings do."""
        return self

    def num_frames(self, num_samples: int) -> int:
        """Frames of a clip of any length, by this encoder's own count; 30 s pieces start at multiples of 1,500."""
        whole, tail = divmod(num_samples, PIECE)
        if whole and tail < MIN_SAMPLES:
            whole, tail = whole - 1, PIECE
        return whole * FRAMES_PER_PIECE + self.net.num_frames(tail)

    def forward(self, waves: Tensor, wave_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(A, S) float32 waveforms at 16 kHz, (A,) lengths in samples -> (A, N, D), (A,) int64 frame counts.

        N is the largest count; frames beyond a clip's own count are zero. A clip beyond 30 s is encoded in pieces
        of 30 s, each placed at its multiple of 1,500 frames (what a piece lacks of them is zero).

        Raises:
            ValueError: where shapes, types or lengths do not fit, a clip is shorter than 160 samples, or a sample
                is NaN or infinite.
        """
        return self.encode(waves, self._checked(waves, wave_lengths))

    @torch.no_grad()
    def encode(self, waves: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """`forward` for waves known to be sound, with their lengths on the host: the CPU waits for no GPU."""
        counts = torch.tensor([self.num_frames(length) for length in lengths], dtype=torch.int64)
        size = int(counts.max()) if len(counts) else 0
        frames = waves.new_zeros(len(lengths), size, self.dim, dtype=next(self.net.parameters()).dtype)
        with torch.autocast(waves.device.type, enabled=False):
            for group in self.groups(lengths, waves.device):
                self._encode_group(waves, group, frames)
        return frames, counts.to(waves.device, non_blocking=True)

    def groups(self, lengths: Sequence[int], device: torch.device) -> list[list[_Piece]]:
        """The pieces of clips of these lengths in samples that are encoded together on a device."""
        all_pieces = [_Piece(clip, *piece) for clip, n in enumerate(lengths) for piece in pieces(n)]
        return list(self._groups(all_pieces, MAX_SECONDS.get(device.type, 120) * SAMPLE_RATE))

    def padding(self, lengths: Sequence[int], device: torch.device) -> float:
        """Samples that are computed for clips of these lengths, over the samples that they have."""
        computed = sum(len(group) * self._cost(group[0]) for group in self.groups(lengths, device))
        return computed / max(1, sum(lengths))

    def _encode_group(self, waves: Tensor, group: list[_Piece], frames: Tensor) -> None:
        """Put the frames of these pieces where they belong."""
        longest, device = group[0].length, waves.device
        sizes = torch.tensor([piece.length for piece in group]).to(device, non_blocking=True)
        if any(piece.start for piece in group):
            batch = waves.new_zeros(len(group), longest, dtype=torch.float32)
            for row, (clip, start, length) in enumerate(group):
                batch[row, :length] = waves[clip, start : start + length]
            encoded, _ = self.net(batch, sizes)
            for row, (clip, start, length) in enumerate(group):
                first, count = start // PIECE * FRAMES_PER_PIECE, self.net.num_frames(length)
                frames[clip, first : first + count] = encoded[row, :count]
            return
        # Whole rows at once; the net sets what lies beyond a clip to zero. A clip with more pieces gets those later.
        clips = torch.tensor([piece.clip for piece in group]).to(device, non_blocking=True)
        encoded, _ = self.net(waves[:, :longest].index_select(0, clips).float(), sizes)
        frames[clips, : encoded.shape[1]] = encoded

    def _groups(self, all_pieces: list[_Piece], most: int) -> Iterator[list[_Piece]]:
        """Pieces of similar length, longest first: a batch of unequal clips costs little more than its audio."""
        group: list[_Piece] = []
        for piece in sorted(all_pieces, key=lambda piece: -piece.length):
            if group:
                longest = self._cost(group[0])
                full = (len(group) + 1) * longest > most
                if full or self._cost(piece) < (1 - MAX_PADDING) * longest:
                    yield group
                    group = []
            group.append(piece)
        if group:
            yield group

    def _cost(self, piece: _Piece) -> int:
        """Samples that are computed for a piece alone."""
        return max(piece.length, self.net.pads_to, self.net.min_samples)

    def _checked(self, waves: Tensor, wave_lengths: Tensor) -> list[int]:
        if waves.dim() != 2 or not waves.is_floating_point():
            raise ValueError(
                f"{self.name} takes (clips, samples) float waveforms in +-1, not {tuple(waves.shape)} {waves.dtype}"
            )
        if wave_lengths.shape != waves.shape[:1] or wave_lengths.is_floating_point():
            raise ValueError(
                f"{self.name} takes one whole number of samples for each of {len(waves)} clips, "
                f"not {tuple(wave_lengths.shape)} {wave_lengths.dtype}"
            )
        lengths: list[int] = wave_lengths.tolist()
        for clip, length in enumerate(lengths):
            if not MIN_SAMPLES <= length <= waves.shape[1]:
                raise ValueError(
                    f"clip {clip} is said to have {length} samples: a clip needs at least {MIN_SAMPLES}, "
                    f"and the batch holds {waves.shape[1]}"
                )
        finite = (waves.isfinite() | ~valid_positions(wave_lengths, waves.shape[1])).all(dim=1)
        if not finite.all():
            raise ValueError(f"clips {(~finite).nonzero()[:, 0].tolist()} hold NaN or infinite samples")
        return lengths

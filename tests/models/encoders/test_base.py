"""What holds for every encoder: frozen, exact in a batch, a frame count for every length, long and short clips."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from omnichat.audio import pieces
from omnichat.models.encoders import base, load_encoder
from omnichat.models.encoders.base import _Piece

EVERY_LENGTH = np.arange(160, 480_001)


def test_batch_is_as_alone(expert, batch) -> None:
    """Prevents leaking padding (upstream: up to 1.6 at unit scale), of whatever content, inside the network too."""
    waves, lengths = batch
    together, counts = expert(waves, lengths)
    in_net, net_counts = expert.net(waves, lengths)  # a clip of 337 mel frames, odd, with padding behind it
    for row, length in enumerate(lengths.tolist()):
        alone, count = expert(waves[row : row + 1, :length], lengths[row : row + 1])
        assert count == counts[row] == net_counts[row] == expert.num_frames(length)
        torch.testing.assert_close(together[row : row + 1, : alone.shape[1]], alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(in_net[row : row + 1, : alone.shape[1]], alone, atol=1e-5, rtol=0)
        assert not together[row, count:].any()
        assert not in_net[row, count:].any()


def test_gradients_stay_with_their_clip(expert) -> None:
    """Prevents any path, however small, from a neighbour or from the padding into a clip's frames."""
    net = copy.deepcopy(expert.net).requires_grad_(True)
    waves = torch.randn(2, 8_000, generator=torch.Generator().manual_seed(0), requires_grad=True)
    frames, counts = net(waves, torch.tensor([6_000, 8_000]))
    frames[0].square().sum().backward()
    assert waves.grad is not None
    assert waves.grad[0, :6_000].any()
    assert not waves.grad[0, 6_000:].any()
    assert not waves.grad[1].any()
    assert counts[0] < counts[1]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.parameters())


def test_frozen(expert, batch) -> None:
    """Prevents an encoder that trains along: not by train(), not by its parent's, not through gradients."""
    parent = nn.ModuleDict({"encoder": expert}).train()
    expert.train(True)
    assert not any(module.training for module in expert.net.modules())
    assert not any(parameter.requires_grad for parameter in parent.parameters())
    waves = batch[0].clone().requires_grad_(True)
    frames, lengths = expert(waves, batch[1])
    assert not frames.requires_grad
    assert lengths.dtype == torch.int64
    nn.Linear(expert.dim, 2)(frames).sum().backward()  # what trains behind it can save the frames


def test_copies_and_half_precision(expert, batch) -> None:
    """Prevents buffers, masks or biases of the wrong type, spectra in half precision, and a failing deepcopy."""
    frames, counts = expert(*batch)
    for dtype, tolerance in ((torch.float16, 0.002), (torch.bfloat16, 0.012)):
        half, half_counts = copy.deepcopy(expert).to(dtype)(*batch)
        assert half.dtype == dtype
        assert torch.equal(half_counts, counts)
        assert (half.float() - frames).abs().mean() < tolerance
    with torch.autocast("cpu", torch.bfloat16):
        assert (expert(*batch)[0].float() - frames).abs().mean() < 0.012
    assert torch.equal(expert(*batch)[0], frames)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda(expert, batch) -> None:
    """Prevents tensors made on the wrong device, and other numbers there."""
    frames, counts = expert(*batch)
    on_gpu, gpu_counts = copy.deepcopy(expert).cuda()(batch[0].cuda(), batch[1].cuda())
    assert torch.equal(gpu_counts.cpu(), counts)
    torch.testing.assert_close(on_gpu.cpu(), frames, atol=5e-3, rtol=0)


@pytest.mark.parametrize(("groups", "taps"), [(4, 16), (2, 19), (1, 1), (8, 128)])
def test_convolution_as_products(monkeypatch: pytest.MonkeyPatch, groups: int, taps: int) -> None:
    """Prevents taps or channels in another order, a shifted frame, and groups lost where memory holds only some."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 21, 16), torch.randn(16, 16 // groups, taps), torch.randn(16)
    expected = F.conv1d(x.transpose(1, 2), weight, bias, padding=taps // 2, groups=groups)[..., :21].transpose(1, 2)
    for size, together in ((2**30, 8), (1, 8), (2**30, 1), (1, 5)):
        monkeypatch.setattr(base, "CONVOLUTION_BYTES", size)
        monkeypatch.setattr(base, "CONVOLUTION_FRAMES", together)
        torch.testing.assert_close(base.grouped_conv1d_as_products(x, weight, bias, groups), expected)
    torch.testing.assert_close(base.grouped_conv1d(x, weight, bias, groups), expected)


def test_attention_bias() -> None:
    """Prevents a mask that hides a frame or shows padding, and rows that a GPU's kernel would copy in every layer."""
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    assert base.attention_bias(valid[:1], torch.float32) is None
    bias = base.attention_bias(valid, torch.bfloat16)
    assert bias is not None
    assert bias.dtype == torch.bfloat16
    assert bias.shape == (2, 1, 1, 5)
    assert torch.equal(bias[:, 0, 0] == 0, valid)
    assert torch.equal(bias[:, 0, 0] == -torch.inf, ~valid)
    assert all(step % 8 == 0 for step in bias.stride()[:-1])


def test_masks_are_as_a_gpu_wants_them(expert, batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a mask that every layer copies before its attention: keys side by side, rows at multiples of 8."""
    attention, strides = F.scaled_dot_product_attention, []

    def seen(*inputs: torch.Tensor, attn_mask: torch.Tensor | None = None) -> torch.Tensor:
        if attn_mask is not None:
            assert attn_mask.dtype == inputs[0].dtype, "numbers, or every layer makes some of it"
            strides.append(attn_mask.stride())
        return attention(*inputs, attn_mask=attn_mask)

    monkeypatch.setattr(F, "scaled_dot_product_attention", seen)
    expert.net(*batch)
    assert strides or expert.net.pads_to
    for *rows, keys in strides:
        assert keys == 1
        assert all(step % 8 == 0 for step in rows)
        assert rows == sorted(rows, reverse=True)


def test_frame_counts_of_every_length(golden) -> None:
    """Prevents a closed form that is off at some length: against layer-by-layer counts, 160 samples to 30 s."""
    mel = EVERY_LENGTH // 160
    whisper = (mel + 2 * 1 - 3) // 2 + 1  # conv2: kernel 3, stride 2, padding 1
    emotion2vec = EVERY_LENGTH
    for kernel, stride in ((10, 5), *((3, 2),) * 4, *((2, 2),) * 2):
        emotion2vec = np.where(emotion2vec >= kernel, (emotion2vec - kernel) // stride + 1, 0)
    fbank = np.where(EVERY_LENGTH >= 400, 1 + (EVERY_LENGTH - 400) // 160, 0)
    beats = fbank // 16 * 8
    for name, (checkpoint, expected) in {
        "whisper": ("whisper/whisper80.pt", whisper),
        "emotion2vec": ("emotion2vec/base", emotion2vec),
        "beats": ("beats/beats_pretrained.pt", beats),
    }.items():
        encoder = load_encoder(name, golden / checkpoint)
        assert [encoder.num_frames(length) for length in EVERY_LENGTH.tolist()] == expected.tolist(), name


# Either side of each encoder's steps, and of what it needs at least.
LENGTHS = [160, 161, 200, 319, 320, 399, 400, 401, 719, 720, 2799, 2800, 5359, 5360, 15_999, 16_000]


def test_as_many_frames_as_counted(expert) -> None:
    """Prevents counts that the network does not give, and frames that are zero or not finite inside them."""
    generator = torch.Generator().manual_seed(0)
    for length in LENGTHS:
        wave = 0.1 * torch.randn(1, length, generator=generator)
        frames, counts = expert(wave, torch.tensor([length]))
        count = expert.num_frames(length)
        assert frames.shape == (1, count, expert.dim)
        assert counts.tolist() == [count]
        assert frames.isfinite().all()
        assert frames.abs().sum(dim=-1).all()


def test_too_short_for_a_frame(golden) -> None:
    """Prevents an error, or a frame out of nothing, for a clip below an encoder's minimum: BEATs needs 2,800."""
    waves = torch.randn(2, 2_800, generator=torch.Generator().manual_seed(0))
    beats, emotion2vec = (
        load_encoder(name, golden / path)
        for name, path in (("beats", "beats/beats_pretrained.pt"), ("emotion2vec", "emotion2vec/base"))
    )
    frames, counts = beats(waves, torch.tensor([500, 2_800]))
    assert frames.shape[1] == 8
    assert counts.tolist() == [0, 8]
    assert not frames[0].any()
    assert beats(waves[:1, :500], torch.tensor([500]))[0].shape == (1, 0, 32)
    assert emotion2vec(waves, torch.tensor([399, 400]))[1].tolist() == [0, 1]


def test_beyond_30_s(expert) -> None:
    """Prevents lost or shifted audio in a long clip: its pieces, encoded alone, lie at multiples of 1,500 frames."""
    length = 2 * 480_000 + 5_600
    wave = 0.1 * torch.randn(1, length, generator=torch.Generator().manual_seed(0))
    frames, counts = expert(wave, torch.tensor([length]))
    assert counts.tolist() == [frames.shape[1]] == [expert.num_frames(length)]
    used = torch.zeros(frames.shape[1], dtype=torch.bool)
    for number, (start, size) in enumerate(pieces(length)):
        alone, count = expert(wave[:, start : start + size], torch.tensor([size]))
        place = slice(1500 * number, 1500 * number + int(count))
        torch.testing.assert_close(frames[:, place], alone, atol=1e-5, rtol=0)
        used[place] = True
    assert not frames[0, ~used].any()
    assert (~used).sum() <= 2 * 4  # BEATs gives 1,496 frames for 30 s


@pytest.mark.parametrize(
    ("length", "whisper", "beats"), [(480_000, 1500, 1496), (480_159, 1500, 1496), (480_160, 1501, 1500)]
)
def test_a_tail_below_one_hop_is_no_piece(golden, length, whisper, beats) -> None:
    """Prevents counts that disagree with the pieces of omnichat.audio, which leave such a tail out."""
    assert len(pieces(length)) == (2 if length == 480_160 else 1)
    assert load_encoder("whisper", golden / "whisper/whisper80.pt").num_frames(length) == whisper
    assert load_encoder("beats", golden / "beats/beats_pretrained.pt").num_frames(length) == beats


def test_groups_hold_similar_lengths(golden) -> None:
    """Prevents a batch of unequal clips from costing its longest for each, and one too large for the memory."""
    limit = 120 * 16_000
    seconds = [30, 1, 29, 1.2, 30, 30, 30, 8, 0.1, 0.05]
    sorted_pieces = [_Piece(clip, 0, int(16_000 * length)) for clip, length in enumerate(seconds)]
    trim, pad30 = (load_encoder("whisper", golden / "whisper/whisper80.pt", context=c) for c in ("trim", "pad30"))
    assert [[seconds[piece.clip] for piece in group] for group in trim._groups(sorted_pieces, limit)] == [
        [30, 30, 30, 30], [29], [8], [1.2, 1], [0.1], [0.05],
    ]  # fmt: skip
    groups = list(pad30._groups(sorted_pieces, limit))
    assert [len(group) for group in groups] == [4, 4, 2]
    assert [len(group) for group in pad30._groups(sorted_pieces, 4 * limit)] == [10]


def test_inputs_that_do_not_fit_are_named(expert) -> None:
    """Prevents a traceback from inside torch, and NaN that spreads through the model."""
    waves = torch.zeros(2, 1_000)
    for bad_waves, lengths, message in (
        (waves[0], torch.tensor([1_000]), "float waveforms"),
        (torch.zeros(2, 1_000, dtype=torch.int16), torch.tensor([1_000, 1_000]), "float waveforms in"),
        (waves, torch.tensor([1_000]), "one whole number"),
        (waves, torch.tensor([1_000.0, 1_000.0]), "one whole number"),
        (waves, torch.tensor([1_000, 159]), "clip 1 is said to have 159 samples"),
        (waves, torch.tensor([1_001, 1_000]), "clip 0 is said to have 1001 samples"),
        (waves.index_fill(0, torch.tensor([1]), torch.nan), torch.tensor([900, 900]), r"clips \[1\] hold NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            expert(bad_waves, lengths)
    beyond = waves.clone()
    beyond[:, 900:] = torch.nan
    assert expert(beyond, torch.tensor([900, 900]))[0].isfinite().all()


def test_an_empty_batch(expert) -> None:
    """Prevents an error for a batch of dialogues without audio."""
    frames, lengths = expert(torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64))
    assert frames.shape == (0, 0, expert.dim)
    assert lengths.shape == (0,)


def test_options_are_kept(golden) -> None:
    """Prevents a feature cache that cannot tell two ways of encoding apart."""
    assert load_encoder("whisper", golden / "whisper/whisper80.pt", context="trim").options == {"context": "trim"}
    assert load_encoder("beats", golden / "beats/beats_pretrained.pt").options == {"layout": "tokens"}
    assert load_encoder("emotion2vec", golden / "emotion2vec/plus").options == {}

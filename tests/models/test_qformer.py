"""The windowed Q-Former against SALMONN's outputs, against itself cut differently, and at its edges."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from omnichat.models.qformer import WindowedQFormer

GOLDEN = Path(__file__).parents[1] / "golden" / "qformer"
ATOL = 5e-5  # the tolerance that came with the golden files: fp32 on another machine

# Upstream's parameter names inside a layer, and ours.
LAYER = {
    "attention.self.": "self_attention.",
    "attention.output.dense": "self_attention.output",
    "attention.output.LayerNorm": "self_norm",
    "crossattention.self.": "cross_attention.",
    "crossattention.output.dense": "cross_attention.output",
    "crossattention.output.LayerNorm": "cross_norm",
    "intermediate_query.dense": "up",
    "output_query.dense": "down",
    "output_query.LayerNorm": "ffn_norm",
}


def golden_qformer(name: str, stride: int = 17) -> tuple[WindowedQFormer, dict[str, Tensor]]:
    """A Q-Former with the weights of a SALMONN checkpoint, and the checkpoint."""
    weights = torch.load(GOLDEN / f"{name}.pt", weights_only=True)["model"]
    width = weights["speech_Qformer.bert.encoder.layer.0.crossattention.self.key.weight"].shape[1]
    qformer = WindowedQFormer(width, hidden=32, layers=2, heads=4, ffn=64, window=17, queries=1, stride=stride)
    state = {"queries": weights["speech_query_tokens"][0]}
    for key, tensor in weights.items():
        if match := re.fullmatch(r"speech_Qformer\.bert\.encoder\.layer\.(\d+)\.(.*)", key):
            inner = match[2]
            for theirs, ours in LAYER.items():
                if inner.startswith(theirs):
                    state[f"layers.{match[1]}.{ours}{inner.removeprefix(theirs)}"] = tensor
        elif key.startswith("speech_Qformer.bert.embeddings.LayerNorm."):
            state[f"query_norm.{key.rsplit('.', 1)[1]}"] = tensor
        elif key.startswith("ln_speech.") and name != "dual":
            state[f"norm.{key.rsplit('.', 1)[1]}"] = tensor
    # A key's bias shifts all scores of a query alike: softmax does not see it, and ours has none.
    for layer in range(2):
        del state[f"layers.{layer}.self_attention.key.bias"], state[f"layers.{layer}.cross_attention.key.bias"]
    if name == "dual":
        qformer.norm = nn.Identity()  # upstream normalises each expert apart, before they are put side by side
    qformer.load_state_dict(state)
    return qformer.eval(), weights


@pytest.mark.parametrize(("name", "stride"), [("single", 17), ("overlap", 8)])
def test_matches_salmonn(name: str, stride: int) -> None:
    """Fails when a norm, its epsilon, the order inside a layer, the activation or the cut into windows is wrong."""
    qformer, weights = golden_qformer(name, stride)
    arrays = np.load(GOLDEN / f"{name}.npz")
    cases = sorted({key.split("_")[0] for key in arrays if key.endswith("_speech")})
    assert cases[:2] == ["a", "b"]
    for case in cases:
        frames, hidden = (torch.from_numpy(arrays[f"{case}_{kind}"]) for kind in ("speech", "hidden"))
        with torch.no_grad():
            output = qformer(frames, torch.full((len(frames),), frames.shape[1])).flatten(1, 2)
            projected = output @ weights["speech_llama_proj.weight"].T + weights["speech_llama_proj.bias"]
        # Upstream drops a tail shorter than a window; ours keeps it as one window more.
        assert output.shape[1] - hidden.shape[1] in (0, 1)
        torch.testing.assert_close(output[:, : hidden.shape[1]], hidden, atol=ATOL, rtol=0)
        expected = torch.from_numpy(arrays[f"{case}_out"])
        torch.testing.assert_close(projected[:, : hidden.shape[1]], expected, atol=ATOL, rtol=0)


def test_matches_salmonn_with_two_experts_in_one() -> None:
    """Fails when zero frames beyond an expert's end, which upstream attends to, are not taken as they are."""
    qformer, weights = golden_qformer("dual")
    arrays = np.load(GOLDEN / "dual.npz")
    for case in "abc":
        parts = []
        for expert in ("speech", "audio"):
            frames = torch.from_numpy(arrays[f"{case}_{expert}"])
            scale, shift = weights[f"ln_{expert}.weight"], weights[f"ln_{expert}.bias"]
            parts.append(nn.functional.layer_norm(frames, frames.shape[-1:], scale, shift))
        length = max(part.shape[1] for part in parts)
        frames = torch.cat([nn.functional.pad(part, (0, 0, 0, length - part.shape[1])) for part in parts], dim=-1)
        with torch.no_grad():
            output = qformer(frames, torch.full((len(frames),), length)).flatten(1, 2)
        expected = torch.from_numpy(arrays[f"{case}_hidden"])
        torch.testing.assert_close(output[:, : expected.shape[1]], expected, atol=ATOL, rtol=0)


@pytest.mark.parametrize(("queries", "stride"), [(1, None), (3, None), (2, 5)])
def test_one_call_equals_a_loop_over_windows(queries: int, stride: int | None) -> None:
    """Fails when a window sees a neighbour's frames, a clip's padding or another clip."""
    torch.manual_seed(0)
    qformer = WindowedQFormer(12, hidden=16, layers=2, heads=4, ffn=32, window=7, queries=queries, stride=stride)
    lengths = torch.tensor([30, 1, 14, 0])
    frames = torch.randn(4, 31, 12)  # also beyond the lengths: what lies there must not be read
    output = qformer(frames, lengths)
    assert output.shape == (4, qformer.num_windows(31), queries, 16)
    for clip, length in enumerate(lengths.tolist()):
        for window in range(output.shape[1]):
            start = window * qformer.stride
            piece = frames[clip : clip + 1, start : min(start + 7, length)]
            if piece.shape[1] == 0:
                assert not output[clip, window].any()
            else:
                alone = qformer(piece, torch.tensor([piece.shape[1]]))[0, 0]
                torch.testing.assert_close(output[clip, window], alone, atol=1e-5, rtol=0)


def test_a_window_beyond_an_expert_s_frames_is_nothing() -> None:
    """Fails when an expert that ends before its clip does, as BEATs, says something of a window it has no frame of."""
    torch.manual_seed(0)
    qformer = WindowedQFormer(6, hidden=8, layers=2, heads=2, ffn=8, window=4, queries=2)
    frames, lengths = torch.randn(3, 9, 6), torch.tensor([9, 4, 0])
    alone = qformer(frames, lengths)
    output = qformer(frames, lengths, torch.tensor([13, 5, 1]))
    assert output.shape == (3, 4, 2, 8)
    torch.testing.assert_close(output[:, :3], alone)
    for clip, heard in enumerate((3, 1, 0)):
        assert output[clip, :heard].abs().sum((1, 2)).all()
        assert not output[clip, heard:].any()
    none = qformer(frames[:, :0], torch.tensor([0, 0, 0]), torch.tensor([13, 5, 1]))
    assert none.shape == (3, 4, 2, 8)
    assert not none.any()


def test_fresh_weights_are_bert_s() -> None:
    """Fails when training starts from other weights than BERT's (normal of 0.02, no bias), or its norms are others.

    A query of 0.02 is small: with torch's own epsilon its norm would be another.
    """
    torch.manual_seed(0)
    qformer = WindowedQFormer(64, hidden=96, layers=2, heads=4, ffn=128, queries=32)
    matrices = {name: p.detach() for name, p in qformer.named_parameters() if p.ndim == 2}
    assert len(matrices) == 1 + 2 * 10
    for name, matrix in matrices.items():
        assert abs(float(matrix.mean())) < 0.002, name
        assert float(matrix.std()) == pytest.approx(0.02, rel=0.05), name
    assert not any(p.any() for name, p in qformer.named_parameters() if name.endswith("bias"))
    norms = {name: module.eps for name, module in qformer.named_modules() if isinstance(module, nn.LayerNorm)}
    assert norms.pop("norm") == 1e-5  # of the frames: SALMONN's ln_speech is torch's own
    assert set(norms.values()) == {1e-12}
    assert len(norms) == 1 + 2 * 3


def test_every_frame_is_in_a_window() -> None:
    """Fails when the tail of a clip is lost: the last partial window must be kept at every length."""
    for window, stride in ((17, 17), (17, 8), (5, 5), (1, 1)):
        qformer = WindowedQFormer(4, hidden=4, layers=1, heads=1, ffn=4, window=window, stride=stride)
        for length in range(1, 120):
            covered = (qformer.num_windows(length) - 1) * stride + window
            assert covered >= length
            assert covered - stride < length or qformer.num_windows(length) == 1
        assert stride != window or qformer.num_windows(100) == -(-100 // window)


def test_gradients_are_finite_where_nothing_was_heard() -> None:
    """Fails when a softmax runs over a window without a valid frame: its NaN would poison every weight."""
    torch.manual_seed(0)
    qformer = WindowedQFormer(6, hidden=8, layers=2, heads=2, ffn=8, window=4, queries=2)
    frames = torch.randn(3, 9, 6, requires_grad=True)
    for lengths in ([9, 4, 0], [0, 0, 0]):
        qformer.zero_grad()
        output = qformer(frames, torch.tensor(lengths))
        assert not output[2].any()
        output.square().sum().backward()
        for name, parameter in qformer.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert qformer(frames[:0], torch.zeros(0, dtype=torch.int64)).shape == (0, 3, 2, 8)


def test_sizes_that_cannot_be_are_named() -> None:
    """Fails when a wrong config key ends in a shape error deep inside torch."""
    with pytest.raises(ValueError, match="heads=5 must divide hidden=16"):
        WindowedQFormer(8, hidden=16, heads=5)
    with pytest.raises(ValueError, match="window=0, queries=0"):
        WindowedQFormer(8, window=0, queries=0)

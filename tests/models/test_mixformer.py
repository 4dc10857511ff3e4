"""The Mix-Former: experts on one clock, gates, any subset of experts."""

import pytest
import torch

from omnichat.models.mixformer import MixFormer

SMALL = {"hidden": 8, "layers": 1, "heads": 2, "ffn": 16, "window": 5, "queries": 2}
LENGTHS = {"a": torch.tensor([11, 3]), "b": torch.tensor([10, 3]), "c": torch.tensor([8, 0])}
WIDTHS = {"a": 4, "b": 6, "c": 3}
FRAMES = torch.tensor([11, 3])


def features(seed: int = 0) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Frames of three experts whose counts differ, as Whisper's, emotion2vec's and BEATs' do."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(2, int(LENGTHS[name].max()), width, generator=generator), LENGTHS[name])
        for name, width in WIDTHS.items()
    }


@pytest.mark.parametrize("gate", ["scalar", "channel", "none"])
@pytest.mark.parametrize("names", [("a",), ("b", "c"), ("a", "b", "c")])
def test_any_experts_any_gate(gate: str, names: tuple[str, ...]) -> None:
    """Fails when shapes depend on the gate, or window counts differ between experts of different frame counts."""
    torch.manual_seed(0)
    mixformer = MixFormer({name: WIDTHS[name] for name in names}, 7, gate=gate, **SMALL)
    embeds, gates, _ = mixformer(features(), FRAMES)
    assert embeds.shape == (2, 3, 2, 7)
    assert gates.shape == (2, 3, len(names))
    assert ((gates == 1) if gate == "none" else (gates > 0) & (gates < 1)).all()
    embeds.sum().backward()
    for name, parameter in mixformer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("gate", ["scalar", "channel"])
def test_a_gate_weighs_its_own_expert_only(gate: str) -> None:
    """Fails when a gate is not applied, or to a neighbour: closing one must equal hearing nothing there."""
    torch.manual_seed(0)
    mixformer = MixFormer(WIDTHS, 7, gate=gate, **SMALL)
    with torch.no_grad():
        mixformer.gates["b"].weight.zero_()
        mixformer.gates["b"].bias.fill_(-100.0)
        closed, gates, _ = mixformer(features(), FRAMES)
        deaf, _, _ = mixformer(features() | {"b": (features()["b"][0], torch.zeros(2, dtype=torch.int64))}, FRAMES)
    torch.testing.assert_close(closed, deaf)
    assert (gates[..., 1] < 1e-6).all()
    assert (gates[..., [0, 2]] > 0.1).all()


def test_gate_is_a_sigmoid_of_the_mean_over_queries() -> None:
    """Fails when the scalar gate is not one weight per window and expert."""
    torch.manual_seed(0)
    mixformer = MixFormer({"a": 4}, 16, gate="scalar", **SMALL)
    frames, lengths = features()["a"]
    hidden = mixformer.experts["a"](frames, lengths)
    linear = mixformer.gates["a"]
    expected = 1 / (1 + torch.exp(-(hidden.mean(2) @ linear.weight[0] + linear.bias)))
    embeds, gates, _ = mixformer({"a": (frames, lengths)}, FRAMES)
    torch.testing.assert_close(gates[..., 0], expected)
    torch.testing.assert_close(embeds, mixformer.project(hidden * expected[..., None, None]))


def test_what_is_reported_of_each_expert_by_hand() -> None:
    """Fails when gates or norms are another expert's, are sums, or are taken over the wrong axis."""
    torch.manual_seed(0)
    mixformer = MixFormer(WIDTHS, 7, gate="channel", **SMALL)
    _, gates, norms = mixformer(features(), FRAMES)
    assert gates.shape == norms.shape == (2, 3, 3)
    assert norms.dtype == torch.float32
    assert not norms.requires_grad
    for place, name in enumerate(WIDTHS):
        hidden = mixformer.experts[name](*features()[name], FRAMES)
        weight = torch.sigmoid(hidden @ mixformer.gates[name].weight.T + mixformer.gates[name].bias)
        for clip in range(2):
            for window in range(3):
                queries = hidden[clip, window]
                expected = sum(query.square().sum().sqrt() for query in queries) / len(queries)
                torch.testing.assert_close(norms[clip, window, place], expected)
                mean = weight[clip, window].sum() / (SMALL["queries"] * SMALL["hidden"])
                torch.testing.assert_close(gates[clip, window, place], mean)
    assert norms[0, 2, 2] == 0, "the third expert has no frame there"


def test_a_clip_does_not_depend_on_its_batch() -> None:
    """Fails when padding to the longest clip changes a shorter one, or frames beyond the clip's own count are heard."""
    torch.manual_seed(0)
    mixformer = MixFormer(WIDTHS, 7, **SMALL)
    together, _, _ = mixformer(features(), FRAMES)
    alone, _, _ = mixformer({name: (x[1:], n[1:]) for name, (x, n) in features().items()}, FRAMES[1:])
    torch.testing.assert_close(together[1:, :1], alone)
    longer = {name: (x, n + 2) for name, (x, n) in features().items()}  # an expert that claims more than the clip has
    longer |= {"a": (torch.nn.functional.pad(features()["a"][0], (0, 0, 0, 2), value=9.0), LENGTHS["a"] + 2)}
    torch.testing.assert_close(mixformer({"a": longer["a"]} | {n: features()[n] for n in "bc"}, FRAMES)[0], together)


def test_wrong_features_are_named() -> None:
    """Fails when a missing expert or another checkpoint's width ends in an error without a name."""
    mixformer = MixFormer(WIDTHS, 7, **SMALL)
    given = features()
    with pytest.raises(ValueError, match="no frames of c were given"):
        mixformer({"a": given["a"], "b": given["b"]}, FRAMES)
    with pytest.raises(ValueError, match=r"b: frames of width 4 .* made for 6"):
        mixformer(given | {"b": given["a"]}, FRAMES)
    with pytest.raises(ValueError, match="gate 'soft' is not one of scalar, channel, none"):
        MixFormer(WIDTHS, 7, gate="soft")
    with pytest.raises(ValueError, match="at least one expert"):
        MixFormer({}, 7)

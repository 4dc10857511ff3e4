"""Layers that are compiled compute what they do as they are, and are compiled once for all lengths."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from omnichat.models import layers
from omnichat.models.encoders import load_encoder
from omnichat.models.layers import Layers, compile_layers
from omnichat.models.mixformer import MixFormer

GOLDEN = Path(__file__).parents[1] / "golden"
EXPERTS = {
    "whisper": ("whisper/whisper80.pt", {"context": "trim"}),
    "emotion2vec": ("emotion2vec/base", {}),
    "beats": ("beats/beats_pretrained.pt", {}),
}
LENGTHS = ([9_000, 7_000, 8_000], [12_800, 11_111, 9_600], [16_000, 15_000], [5_555, 5_000, 4_800, 4_700])


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> CompileCounterWithBackend:
    """Counts what torch.compile is asked to compile; without a C++ compiler's minute."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    found: dict[type[nn.Module], Callable[..., Tensor]] = {}

    def compiled(kind: type[nn.Module]) -> Callable[..., Tensor]:
        return found.setdefault(kind, torch.compile(kind.forward, dynamic=True, backend=counter))

    monkeypatch.setattr(layers, "compiled_forward", compiled)
    return counter


@pytest.mark.parametrize("name", EXPERTS)
def test_experts(name: str, counter: CompileCounterWithBackend) -> None:
    """Fails when compiling changes frames, leaves layers out, or is done anew for another layer or other lengths."""
    checkpoint, options = EXPERTS[name]
    expert, frames = load_encoder(name, GOLDEN / checkpoint, **options), []
    assert sum(isinstance(part, Layers) for part in expert.modules()) == (2 if name == "emotion2vec" else 1)
    for lengths in LENGTHS:
        waves = 0.1 * torch.randn(len(lengths), max(lengths), generator=torch.Generator().manual_seed(0))
        compile_layers(expert, False)
        expected, _ = expert.encode(waves, lengths)
        compile_layers(expert)
        torch.testing.assert_close(expert.encode(waves, lengths)[0], expected, atol=1e-5, rtol=1e-5)
        frames.append(counter.frame_count)
    assert frames[0] > 0
    assert frames[1] == frames[-1], "compiled anew for other lengths"


def test_q_formers(counter: CompileCounterWithBackend) -> None:
    """Fails when compiling changes embeddings, gates or gradients, or is done anew for other clips."""
    torch.manual_seed(0)
    sizes = {"hidden": 32, "layers": 2, "heads": 2, "ffn": 64, "window": 17, "queries": 1}
    mixformer, frames = MixFormer({"whisper": 24}, 40, **sizes), []
    for counts in ([100, 51, 20], [33, 90], [64, 18, 18, 77]):
        num_frames = torch.tensor(counts)
        features = {"whisper": (torch.randn(len(counts), max(counts), 24), num_frames)}
        outcomes = []
        for choice in (False, True):
            compile_layers(mixformer, choice)
            mixed, gates, _ = mixformer(features, num_frames)
            outcomes.append((mixed, gates, *torch.autograd.grad(mixed.square().sum(), [*mixformer.parameters()])))
        for one, other in zip(*outcomes, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        frames.append(counter.frame_count)
    assert frames[0] > 0
    assert frames[1] == frames[2], "compiled anew for other clips"


@pytest.mark.full
def test_experts_by_the_compiler_itself() -> None:
    """Fails when what torch's own compiler makes of the layers is another function."""
    torch._dynamo.reset()
    layers.compiled_forward.cache_clear()
    for name, (checkpoint, options) in EXPERTS.items():
        expert = load_encoder(name, GOLDEN / checkpoint, **options)
        waves = 0.1 * torch.randn(3, 9_000, generator=torch.Generator().manual_seed(0))
        expected, _ = expert.encode(waves, LENGTHS[0])
        compile_layers(expert)
        torch.testing.assert_close(expert.encode(waves, LENGTHS[0])[0], expected, atol=1e-5, rtol=1e-5)

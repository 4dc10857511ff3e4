"""What is counted as kept for the backward, against what autograd keeps."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from omnichat.config import load_config
from omnichat.models.llm import add_lora
from omnichat.models.mixformer import MixFormer
from omnichat.models.omnichat import OmniChat
from omnichat.models.packed import PACKED, packed_hidden, with_last_layer
from omnichat.training.memory import MicroBatch, estimate_memory, layer_bytes, window_bytes
from omnichat.training.optim import build_optimizer
from tests.spoken import make_model

WIDTH = 128


def saved_bytes(weights: nn.Module, forward: Callable[[], Tensor], autocast: bool) -> int:
    """Bytes that the forward keeps for the backward, weights left out, shared storage once."""
    kept, own = {}, {parameter.untyped_storage().data_ptr() for parameter in weights.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor too, so that no address is used twice
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        forward()
    return sum(size for size, _ in kept.values())


def llama(layers: int, dtype: torch.dtype, targets: tuple[str, ...]) -> LlamaForCausalLM:
    """With the proportions of Llama-3.1-8B."""
    config = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=7 * WIDTH // 2,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=1,
        vocab_size=64,
    )
    llm = LlamaForCausalLM(config).to(dtype)
    llm.set_attn_implementation(PACKED)
    llm.requires_grad_(False).eval()
    add_lora(llm, 1, 8, targets=targets)
    return llm


def model_of(llm: LlamaForCausalLM) -> OmniChat:
    """Around this language model."""
    return OmniChat({}, MixFormer({"whisper": 8}, WIDTH, hidden=8, heads=1, ffn=8, layers=1), llm, 17, 1)


def layer_saves(llm_of: Callable[[int], LlamaForCausalLM], autocast: bool, compiled: bool) -> float:
    """Bytes per token that a layer adds."""
    tokens, found = 256, []
    for layers in (2, 4):
        llm = llm_of(layers)
        embeds = torch.randn(tokens, WIDTH, dtype=llm.dtype, requires_grad=True)
        starts = torch.tensor([0, tokens], dtype=torch.int32)

        def forward(llm: LlamaForCausalLM = llm, embeds: Tensor = embeds, starts: Tensor = starts) -> Tensor:
            return packed_hidden(llm, embeds, torch.arange(tokens), starts, tokens, compiled)

        found.append(saved_bytes(llm, forward, autocast))
    return (found[1] - found[0]) / 2 / tokens


@pytest.mark.parametrize(
    ("dtype", "targets", "compiled"),
    [
        (torch.bfloat16, ("q_proj", "v_proj"), False),
        (torch.bfloat16, ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj"), False),
        (torch.float32, ("q_proj", "v_proj"), False),
        pytest.param(torch.bfloat16, ("q_proj", "v_proj"), True, marks=pytest.mark.full),
    ],
    ids=str,
)
def test_a_layer_keeps_what_is_counted(dtype: torch.dtype, targets: tuple[str, ...], compiled: bool) -> None:
    """Activations are most of the memory: a tensor left out would be gigabytes at full size."""
    half = dtype == torch.bfloat16
    found = layer_saves(lambda layers: llama(layers, dtype, targets), half, compiled)
    counted = sum(layer_bytes(model_of(llama(2, dtype, targets)), 2 if half else 4, compiled))
    assert counted == pytest.approx(found, rel=0.05)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("q_proj", "up_proj", "down_proj")], ids=str)
def test_the_last_layer_keeps_targets_from_its_second_norm_on(targets: tuple[str, ...], half: bool) -> None:
    """Fails when what is left out for all other tokens is kept all the same, or counted as if it were."""
    dtype, number = (torch.bfloat16, 2) if half else (torch.float32, 4)
    llm = with_last_layer(llama(2, dtype, targets))
    tokens, picked = 256, torch.arange(0, 256, 4)
    embeds = torch.randn(tokens, WIDTH, dtype=dtype, requires_grad=True)
    starts = torch.tensor([0, tokens], dtype=torch.int32)

    def forward(picked: Tensor | None) -> Tensor:
        return packed_hidden(llm, embeds, torch.arange(tokens), starts, tokens, picked=picked)

    every, some = (saved_bytes(llm, lambda which=which: forward(which), half) for which in (None, picked))
    _, feed_forward = layer_bytes(model_of(llm), number, False)
    last_norm = 4 * WIDTH
    assert every - some == pytest.approx((tokens - len(picked)) * (feed_forward + last_norm), rel=0.02)


def test_a_window_keeps_what_is_counted() -> None:
    """The Mix-Former's share, for experts of several widths and a few layers."""
    mixformer = MixFormer({"whisper": 160, "beats": 96}, WIDTH, hidden=96, heads=4, ffn=384, layers=2)

    def forward(clips: int) -> Tensor:
        features = {
            name: (torch.randn(clips, 170, width, dtype=torch.bfloat16), torch.full((clips,), 170))
            for name, width in mixformer.widths.items()
        }
        return mixformer(features, torch.full((clips,), 170))[0]

    few, many = (saved_bytes(mixformer, lambda clips=clips: forward(clips), True) for clips in (2, 6))
    model = OmniChat({}, mixformer, llama(1, torch.bfloat16, ("q_proj",)), 17, 1)
    assert window_bytes(model) == pytest.approx((many - few) / 40, rel=0.1)


def test_weights_gradients_and_moments_are_those_of_a_real_model() -> None:
    """In float32 on one device, byte for byte."""
    model = make_model()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = build_optimizer(trained, 1e-3, 0.0, (0.9, 0.99))
    for parameter in trained.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    found = estimate_memory(model, load_config("recipe=smoke"), MicroBatch(10, 2, [16_000]))
    moments = [state[key] for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
    assert found.optimizer == sum(tensor.nbytes for tensor in moments)
    assert found.trained == found.gradients == sum(parameter.nbytes for parameter in trained.values())
    assert found.experts == sum(parameter.nbytes for parameter in model.encoders.parameters())
    frozen = [p for name, p in model.llm.named_parameters() if not p.requires_grad]
    assert found.frozen == sum(parameter.nbytes for parameter in frozen)

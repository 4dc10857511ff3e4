"""What a GPU has to hold in a step, in bytes: counted from the sizes of the model, before there is a GPU.

What a layer of the language model keeps for the backward, per token (D hidden, F feed-forward, K key-value width,
c bytes of a number; checked against what autograd really saves):

    eager      4 D for each of two norms (float32), c D for each input of an adapter, c (2 D + 2 K) for attention,
               3 c F for the gated feed-forward
    compiled   c D for each of two residual inputs, c D once for adapters of one input, c (2 D + 2 K), 2 c F: norms and
               the gate's product are computed again

in the last layer for targets alone from the second norm on; and a window of the Mix-Former, for each expert of width W
(L frames, K queries, h hidden, f feed-forward, H heads, n layers), under autocast:
L W (4 + 4 n) + n K (4 H W + 4 f + 18 h).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, cast

from torch import nn

from omnichat.audio import SAMPLE_RATE, num_frames
from omnichat.config import RunConfig
from omnichat.models.encoders.base import MAX_SECONDS, Encoder
from omnichat.models.encoders.emotion2vec import Emotion2vecNet
from omnichat.models.encoders.whisper import WhisperEncoderNet
from omnichat.models.omnichat import OmniChat
from omnichat.models.qformer import QFormerLayer
from omnichat.models.target_loss import LOSS_ROWS

NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)  # a code, a byte for 64 of them, a float32 for 256 of those: double quantisation
FEED_FORWARD = {"second", "gate_proj", "up_proj", "down_proj"}  # what adapters are given there
LIVE_PARAMETERS = 1e9  # DeepSpeed's stage3_max_live_parameters


@dataclass(frozen=True)
class MicroBatch:
    """What is computed at once on a GPU: tokens, targets among them, samples of each clip."""

    tokens: int
    targets: int
    num_samples: Sequence[int]


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the peak, by what they are for.

    Attributes:
        frozen: the language model's weights, and what an engine gathers of them.
        experts: their weights.
        trained: weights of the Mix-Former and the adapters, copies in bfloat16 included.
        gradients, optimizer: of these.
        saved: kept from the forward for the backward.
        work: what exists only for a moment: a chunk of logits, a layer's gradients; or an expert at work where that is
            more than all that is saved.
    """

    frozen: float
    experts: float
    trained: float
    gradients: float
    optimizer: float
    saved: float
    work: float

    @property
    def total(self) -> float:
        """The peak."""
        return sum(getattr(self, field.name) for field in fields(self))


def estimate_memory(model: OmniChat, config: RunConfig, batch: MicroBatch, ranks: int = 1) -> Memory:
    """What one of `ranks` GPUs holds at the peak of a step.

    Args:
        model: from `build.sized_model`, or a real one.
        config: its run's.
        batch: the largest micro-batch.
        ranks: GPUs that share what the strategy cuts into shards.
    """
    trainer = config.trainer
    strategy, compiled = trainer.strategy, trainer.compile
    stage = int(strategy[-1]) if strategy.startswith("deepspeed") else 0
    whole = strategy != "fsdp" and stage != 3
    number = compute_bytes(config)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    experts = sum(p.numel() * p.element_size() for p in model.encoders.parameters())

    # AdamW's two moments; DeepSpeed also keeps the float32 weights that its own are rounded from.
    half = trainer.precision == "bf16-true" or (stage > 0 and trainer.precision != "32-true")
    weight = 2 if half else 4
    moments = 12 if stage else 2 * weight
    autocast = 2 if trainer.precision == "bf16-mixed" and not half else 0
    shares = {"frozen": whole, "trained": whole, "gradients": whole and stage != 2, "optimizer": whole and stage == 0}
    cut = {name: 1 if is_whole else ranks for name, is_whole in shares.items()}
    frozen = frozen_bytes(model, config)

    # A step begins with the experts, when nothing is saved yet.
    saved = _layers_bytes(model, config, batch) + _outside_bytes(model, batch, number)
    work = max(_loss_bytes(model, batch, number, compiled), _backward_bytes(model, batch, number, compiled))
    heard = max((_expert_bytes(cast(Encoder, net), batch) for net in model.encoders.values()), default=0.0)
    return Memory(
        frozen=frozen / cut["frozen"] + (0 if whole or ranks == 1 else _gathered_bytes(model, strategy, number)),
        experts=experts,
        trained=trained * weight / cut["trained"] + trained * autocast,
        gradients=trained * weight / cut["gradients"],
        optimizer=trained * moments / cut["optimizer"],
        saved=saved,
        work=max(work, heard - saved),
    )


def compute_bytes(config: RunConfig) -> Literal[2, 4]:
    """Bytes of a number between the language model's layers."""
    trainer = config.trainer
    rounded = trainer.precision == "bf16-true" or (
        trainer.strategy.startswith("deepspeed") and trainer.precision != "32-true"
    )
    return 2 if rounded or config.model.llm.dtype == "bfloat16" else 4


def frozen_bytes(model: OmniChat, config: RunConfig) -> float:
    """Weights of the language model without adapters; embeddings and the output layer are never quantised."""
    number = compute_bytes(config)
    # By sizes instead of tensors: a tensor of 4-bit weights holds two in a byte.
    linear = {
        id(module.weight): module.in_features * module.out_features
        for name, module in model.llm.model.layers.named_modules()
        if isinstance(module, nn.Linear) and ".lora_" not in name
    }
    rest = sum(
        parameter.numel()
        for name, parameter in model.llm.named_parameters()
        if ".lora_" not in name and id(parameter) not in linear
    )
    quantised = config.model.llm.quantization == "nf4"
    return sum(linear.values()) * (NF4 if quantised else number) + rest * number


def _layers_bytes(model: OmniChat, config: RunConfig, batch: MicroBatch) -> float:
    """Kept by all layers; with activation checkpointing their inputs, and one layer as a whole."""
    layers, number = model.llm.config.num_hidden_layers, compute_bytes(config)
    attention, feed_forward = layer_bytes(model, number, config.trainer.compile)
    if not config.trainer.activation_checkpointing:
        return batch.tokens * (layers * attention + (layers - 1) * feed_forward) + batch.targets * feed_forward
    return batch.tokens * (layers * number * model.llm.config.hidden_size + attention + feed_forward)


def layer_bytes(model: OmniChat, number: int, compiled: bool) -> tuple[float, float]:
    """Kept per token by one layer of the language model: by attention and its norm, by feed-forward and its norm."""
    config = model.llm.config
    width, feed_forward = config.hidden_size, config.intermediate_size
    attention = model.llm.model.layers[0].self_attn
    queries = config.num_attention_heads * cast(int, attention.head_dim)
    keys = (config.num_key_value_heads or 0) * cast(int, attention.head_dim)
    adapted = {
        name.rpartition(".")[2]: cast(int, module.in_features)
        for name, module in model.llm.model.layers[0].named_modules()
        if hasattr(module, "lora_A")
    }
    heads = number * (2 * queries + 2 * keys)
    # What the frozen products of one input share is kept once where the compiler, or no autocast, makes no copies.
    sources = {"q_proj": "norm", "k_proj": "norm", "v_proj": "norm", "gate_proj": "second", "up_proj": "second"}
    distinct = {sources.get(name, name): size for name, size in adapted.items() if name != "o_proj"}
    inputs = adapted if number == 2 and not compiled else distinct
    behind = number * sum(size for name, size in inputs.items() if name in FEED_FORWARD)
    before = number * sum(inputs.values()) - behind + heads
    if compiled:
        return before + number * width, behind + number * (width + 2 * feed_forward)
    return before + 4 * width, behind + 4 * width + 3 * number * feed_forward


def window_bytes(model: OmniChat) -> float:
    """Kept by the Mix-Former for a window, of all experts."""
    mixformer, total = model.mixformer, 0.0
    for name, expert in mixformer.experts.items():
        width, layers = mixformer.widths[name], cast(Sequence[QFormerLayer], expert.layers)
        own = sum(
            4 * layer.cross_attention.heads * width + 4 * layer.up.out_features + 18 * layer.up.in_features
            for layer in layers
        )
        total += mixformer.window * width * (4 + 4 * len(layers)) + mixformer.queries * own
    return total


def _outside_bytes(model: OmniChat, batch: MicroBatch, number: int) -> float:
    """Kept outside of the layers: embeddings, the last norm, hidden states of targets, frames, the Mix-Former."""
    width, frames = model.llm.config.hidden_size, [num_frames(samples) for samples in batch.num_samples]
    windows = sum(-(-count // model.window) for count in frames)
    embeddings = batch.tokens * width * 3 * number + batch.targets * width * (2 * number + 4)
    heard = 2 * number * max(frames, default=0) * len(frames) * sum(model.mixformer.widths.values())
    return embeddings + heard + windows * window_bytes(model) * (1 if number == 2 else 1.5)


def _loss_bytes(model: OmniChat, batch: MicroBatch, number: int, compiled: bool) -> float:
    """A chunk of logits: in float32 with two copies for the normaliser, or as the compiler fuses them."""
    return min(batch.targets, LOSS_ROWS) * model.llm.config.vocab_size * (2 * number + 4 if compiled else 12)


def _backward_bytes(model: OmniChat, batch: MicroBatch, number: int, compiled: bool) -> float:
    """Gradients within the last layer's feed-forward and norms."""
    config = model.llm.config
    wide = 3 if compiled else 4
    return batch.tokens * (wide * number * config.intermediate_size + 4 * wide * config.hidden_size)


def _expert_bytes(encoder: Encoder, batch: MicroBatch) -> float:
    """A group of clips inside an expert, at its widest place; no gradients, so only one place at a time."""
    net, size = encoder.net, next(encoder.net.parameters()).element_size()
    pads_to = net.pads_to if isinstance(net, WhisperEncoderNet) else 0
    samples = sum(max(count, pads_to) for count in batch.num_samples)
    samples = min(samples, MAX_SECONDS["cuda"] * SAMPLE_RATE)
    if isinstance(net, Emotion2vecNet):  # the first convolution, its norm and its activation
        channels, _, stride = net.config.conv_layers[0]
        return 3.0 * size * channels * samples / stride
    return float(size * samples / SAMPLE_RATE * encoder.frame_rate * encoder.dim * 12)  # 4 D twice, q, k, v, residual


def _gathered_bytes(model: OmniChat, strategy: str, number: int) -> float:
    """What an engine gathers of the sharded language model: two layers and the ends, or DeepSpeed's allowance."""
    llm = model.llm
    everything = sum(parameter.numel() for parameter in llm.parameters())
    if strategy != "fsdp":
        return number * min(LIVE_PARAMETERS, everything)
    layer = sum(parameter.numel() for parameter in llm.model.layers[0].parameters())
    ends = everything - layer * llm.config.num_hidden_layers
    return float(number * (ends + 2 * layer))

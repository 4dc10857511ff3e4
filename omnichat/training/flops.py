"""The arithmetic of a training step, counted: what `perf/mfu` (model FLOPs utilisation) is a share of.

A multiplication and an addition are two FLOPs, and only matrix products and convolutions count. Padding is not counted,
nor what is computed twice: the more of either, the lower the utilisation; what a shared prefix saves is not counted
either (`trainer.shared_prefix`). For T tokens, L tokens of a dialogue, n
targets, W frozen weights of the language model's layers, R LoRA weights, V x D the output layer:

    layers      2 W T forward, 2 W T backward (gradients of activations only: the weights are frozen)
    LoRA        2 R T forward, 4 R T backward
                in the last layer's feed-forward n stands for T
    attention   2 L^2 D forward for each dialogue and layer (causal: half of all pairs), twice that backward
    logits      2 V D n forward, 2 V D n backward
    Mix-Former  2 M a window forward, M its multiplications, and twice that backward
    experts     forward only, at what `context` and `layout` make them compute; one of the user's own is counted by
                torch while it hears a few clips, see `count_own`
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from numpy.polynomial import Polynomial
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaForCausalLM

from omnichat.audio import SAMPLE_RATE, num_frames
from omnichat.batch import SharedPrefix
from omnichat.models.encoders import Encoder
from omnichat.models.encoders.beats import BeatsNet
from omnichat.models.encoders.emotion2vec import Emotion2vecNet
from omnichat.models.encoders.whisper import WhisperEncoderNet
from omnichat.models.mixformer import MixFormer
from omnichat.models.omnichat import OmniChat
from omnichat.models.qformer import QFormerLayer

# Dense bfloat16 on matrix units, FLOP/s, by whole words of the device's name; NVIDIA's data sheets, SXM where there are
# two.
PEAKS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H800": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "A40": 150e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
}

# Seconds of clips that the count of a user's own expert goes by, and of one that it has to be right for. Whole seconds
# have frames of 20 ms without a rest.
COUNTED, CHECKED = (1, 2, 3), 6


def peak_flops(device: torch.device) -> float | None:
    """FLOP/s that the device's data sheet promises; None for a CPU and for devices not in `PEAKS`."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    # An A10G, an A4000 and an H100 NVL are none of these: no share is better than one of another's peak.
    found = (peak for part, peak in PEAKS.items() if re.search(rf"\b{part}\b(?! NVL)", name))
    return next(found, None)


def step_flops(
    model: OmniChat,
    lengths: Sequence[int],
    num_targets: int,
    num_samples: Sequence[int],
    shared: SharedPrefix | None = None,
    own: Mapping[str, Polynomial] | None = None,
) -> float:
    """Forward and backward of a batch.

    Args:
        model: its encoders count where it has any, that is, where features are not cached.
        lengths: tokens of each dialogue.
        num_targets: targets of the batch.
        num_samples: samples of each audio piece.
        shared: the batch's.
        own: what `count_own` found, of each expert of the user's own.
    """
    windows = sum(-(-num_frames(samples) // model.window) for samples in num_samples)
    encoders, own = cast(Mapping[str, Encoder], model.encoders), own or {}
    return (
        language_model_flops(model.llm, lengths, num_targets, shared.length if shared is not None else 0)
        + 3 * mixformer_flops(model.mixformer, windows)
        + sum(
            encoder_flops(encoder, samples) if name not in own else own[name](samples / SAMPLE_RATE)
            for name, encoder in encoders.items()
            for samples in num_samples
        )
    )


def language_model_flops(llm: LlamaForCausalLM, lengths: Sequence[int], num_targets: int, shared: int = 0) -> float:
    """Forward and backward of packed dialogues with these many tokens each, the first `shared` once for all."""
    again, config = len(lengths) - 1, llm.config
    tokens, pairs = sum(lengths) - again * shared, sum(length**2 for length in lengths) - again * shared**2
    products, behind = 0, f"{config.num_hidden_layers - 1}.mlp."
    for name, module in llm.model.layers.named_modules():
        if isinstance(module, nn.Linear):
            rows = num_targets if name.startswith(behind) else tokens  # see `packed.LastLayer`
            # Not of the tensor, which holds a shard, or two numbers in a byte, where engine or `quantization` says so.
            products += (6 if ".lora_" in name else 4) * rows * module.in_features * module.out_features
    width = config.num_attention_heads * cast(int, llm.model.layers[0].self_attn.head_dim)
    attention = 3 * 2 * pairs * width * config.num_hidden_layers
    logits = 4 * llm.lm_head.in_features * llm.lm_head.out_features * num_targets
    return float(products + attention + logits)


def mixformer_flops(mixformer: MixFormer, windows: int) -> float:
    """Forward of these many windows, for all experts."""
    queries, window, total = mixformer.queries, mixformer.window, _products(mixformer.project)
    for expert in mixformer.experts.values():
        for layer in cast(Sequence[QFormerLayer], expert.layers):
            linear = _products(layer)
            heads, width = layer.cross_attention.heads, layer.cross_attention.key.in_features
            own = 2 * queries * layer.cross_attention.query.in_features  # queries among themselves: scores, mixture
            total += linear + own + 2 * heads * window * width  # frames are weighed at their own width
    total += _products(mixformer.gates)
    return 2.0 * total * queries * windows


def encoder_flops(encoder: Encoder, num_samples: int) -> float:
    """Forward of a clip of up to 30 s.

    Raises:
        TypeError: an expert of the user's own, see `count_own`.
    """
    net = encoder.net
    if isinstance(net, WhisperEncoderNet):
        frames, width, mels = num_frames(net.pads_to or num_samples), net.dim, net.dims.n_mels
        convolutions = 2 * frames * 3 * mels * width + frames * 3 * width * width
        return 2.0 * (convolutions + net.dims.n_audio_layer * _block(frames, width, 4 * width))
    if isinstance(net, Emotion2vecNet):
        return 2.0 * _emotion2vec_products(net, num_samples)
    if isinstance(net, BeatsNet):
        config, tokens = net.config, net.num_frames(max(num_samples, net.min_samples))
        width, inner = config.encoder_embed_dim, config.embed_dim
        patches = config.input_patch_size**2 * inner + (inner * width if inner != width else 0)
        position = width * width // config.conv_pos_groups * config.conv_pos
        blocks = config.encoder_layers * _block(tokens, width, config.encoder_ffn_embed_dim)
        return 2.0 * (tokens * (patches + position) + blocks)
    raise TypeError(f"no count for {type(net).__name__}")


def count_own(encoder: Encoder) -> Polynomial:
    """FLOPs of a clip over its seconds, counted on short clips; a Transformer's grow with the clip and its square.

    Nothing that is random elsewhere is moved on.

    Raises:
        ValueError: torch counts nothing, or no such curve goes through what it counts.
    """
    device = next(encoder.net.parameters()).device
    generator, counts = torch.Generator().manual_seed(0), []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for seconds in (*COUNTED, CHECKED):
            wave = torch.randn(1, seconds * SAMPLE_RATE, generator=generator) / 10
            # Torch counts no attention where the CPU's own kernel computes it: as plain products it does.
            with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
                encoder.encode(wave.to(device), [wave.shape[1]])
            counts.append(counter.get_total_flops())
    if not min(counts):
        raise ValueError("torch counts no matrix product in it")
    curve = Polynomial.fit(COUNTED, counts[:-1], 2)
    if not math.isclose(curve(CHECKED), counts[-1], rel_tol=0.02):
        told = ", ".join(
            f"{count:,} in {seconds} s" for seconds, count in zip((*COUNTED, CHECKED), counts, strict=True)
        )
        raise ValueError(f"its FLOPs do not grow evenly with a clip: {told}")
    return curve


def _products(module: nn.Module) -> int:
    """Multiplications of its linear layers for one row; not by the size of tensors, see `language_model_flops`."""
    return sum(m.in_features * m.out_features for m in module.modules() if isinstance(m, nn.Linear))


def _block(tokens: int, width: int, hidden: int) -> int:
    """Multiplications of a Transformer block: four projections, scores and mixture, feed-forward."""
    return tokens * (4 * width * width + 2 * tokens * width + 2 * width * hidden)


def _emotion2vec_products(net: Emotion2vecNet, num_samples: int) -> int:
    config, length, channels, total = net.config, max(num_samples, net.min_samples), 1, 0
    for out, kernel, stride in config.conv_layers:
        length = (length - kernel) // stride + 1
        total += length * out * kernel * channels
        channels = out
    width = config.embed_dim
    taps = max(3, config.conv_pos_width // config.conv_pos_depth)
    total += length * (channels * width + config.conv_pos_depth * width * width // config.conv_pos_groups * taps)
    tokens = length + config.num_extra_tokens
    return total + (config.prenet_depth + config.depth) * _block(tokens, width, int(width * config.mlp_ratio))

"""BEATs: the unilm checkpoint, its `cfg` obeyed; patches of a Kaldi filterbank through a Transformer.

Tokens are time-major: token 8 t + f is band f of time step t. 50 tokens a second are 6.25 time steps of 8 bands.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnichat.audio import HOP, PIECE
from omnichat.models.encoders.base import Encoder, EncoderNet, attention_bias, grouped_conv1d, valid_positions
from omnichat.models.encoders.checkpoint_files import (
    BEATS,
    EncoderError,
    fill,
    folder_looks_like,
    is_named,
    looks_like,
    read_config,
    read_torch,
)
from omnichat.models.encoders.fbank import FRAME, NUM_BINS, kaldi_fbank
from omnichat.models.layers import Layers

Layout = Literal["tokens", "time"]
FBANK_MEAN, FBANK_STD = 15.41663, 6.55582  # beats/BEATs.py extract_features
PATCH = 16  # of every published checkpoint; it makes 50 tokens a second
SOURCE = "BEATs' weights are the .pt files linked from microsoft/unilm, beats/README.md (BEATs_iter3+ (AS2M))"
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "gelu_accurate": partial(F.gelu, approximate="tanh"),
    "tanh": torch.tanh,
}


@dataclass(frozen=True)
class BeatsConfig:
    """The part of a checkpoint's `cfg` that shapes the network; names and defaults of beats/BEATs.py BEATsConfig."""

    embed_dim: int = 512
    conv_bias: bool = False
    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    activation_fn: str = "gelu"
    layer_norm_first: bool = False
    deep_norm: bool = False
    conv_pos: int = 128
    conv_pos_groups: int = 16
    relative_position_embedding: bool = False
    num_buckets: int = 320
    max_distance: int = 1280
    gru_rel_pos: bool = False
    finetuned_model: bool = False
    predictor_class: int = 527
    input_patch_size: int = PATCH

    def __post_init__(self) -> None:
        """Raises ValueError where the network could not be built."""
        if self.activation_fn not in ACTIVATIONS:
            raise ValueError(f"activation_fn {self.activation_fn!r} is none of {', '.join(ACTIVATIONS)}")
        if self.encoder_embed_dim % self.encoder_attention_heads:
            raise ValueError(
                f"encoder_embed_dim {self.encoder_embed_dim} is no multiple of "
                f"encoder_attention_heads {self.encoder_attention_heads}"
            )
        if self.deep_norm and self.layer_norm_first:
            raise ValueError("deep_norm and layer_norm_first exclude each other")


class BeatsNet(EncoderNet):
    """BEATs with upstream's names. `layout="time"` gives each band of a time step the mean of its bands."""

    def __init__(self, config: BeatsConfig, layout: Layout = "tokens") -> None:
        """Random weights."""
        super().__init__()
        patch, width = config.input_patch_size, config.encoder_embed_dim
        self.config = config
        self.layout = layout
        self.dim = width
        self.patch = patch
        self.bands = NUM_BINS // patch
        self.min_samples = FRAME + (patch - 1) * HOP
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, patch, stride=patch, bias=config.conv_bias)
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        if config.embed_dim != width:
            self.post_extract_proj = nn.Linear(config.embed_dim, width)
        self.encoder = _Transformer(config)
        if config.finetuned_model:
            self.predictor = nn.Linear(width, config.predictor_class)

    def num_frames(self, num_samples: int) -> int:
        """8 ((1 + (num_samples - 400) // 160) // 16): whole patches in time, times the bands."""
        return self.bands * max(0, (1 + (num_samples - FRAME) // HOP) // self.patch)

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(A, S) waveforms at 16 kHz, (A,) samples -> (A, num_frames(S), D), (A,) frame counts."""
        num_frames = self.num_frames(waves.shape[1])
        fbank, fbank_lengths = self.features(waves, lengths)
        frames, counts = self.encode(fbank, fbank_lengths)
        if self.layout == "time":
            steps = frames.view(len(frames), -1, self.bands, self.dim).mean(dim=2)
            frames = steps.repeat_interleave(self.bands, dim=1)
        return frames[:, :num_frames], counts

    def features(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(A, S) waveforms, (A,) samples -> (A, F, 128) filterbank as BEATs scales it, (A,) filterbank frames."""
        waves = waves.masked_fill(~valid_positions(lengths, waves.shape[1]), 0.0)
        waves = F.pad(waves, (0, max(0, self.min_samples - waves.shape[1])))
        fbank_lengths = (1 + (lengths - FRAME) // HOP).clamp(min=0)
        return (kaldi_fbank(waves) - FBANK_MEAN) / (2 * FBANK_STD), fbank_lengths

    def encode(self, fbank: Tensor, fbank_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(A, F, 128) filterbank, F >= 16, (A,) filterbank frames -> (A, 8 (F // 16), D) tokens, (A,) token counts."""
        x = self.patch_embedding(fbank[:, None].to(self.patch_embedding.weight.dtype))
        x = self.layer_norm(x.flatten(2).transpose(1, 2))
        if self.config.embed_dim != self.dim:
            x = self.post_extract_proj(x)
        counts = fbank_lengths // self.patch * self.bands
        x = self.encoder(x, valid_positions(counts.clamp(min=1), x.shape[1]))
        return x * valid_positions(counts, x.shape[1])[..., None], counts

    def logits(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """(A, S) waveforms, (A,) samples -> (A, classes): the fine-tuned predictor's mean over a clip's tokens."""
        tokens, counts = self.encode(*self.features(waves, lengths))
        valid = valid_positions(counts, tokens.shape[1])[..., None]
        total: Tensor = (self.predictor(tokens) * valid).sum(dim=1)
        return total / counts[:, None].clamp(min=1)


class _Transformer(nn.Module):
    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.config = config
        self.pos_conv = nn.Sequential(_PositionalConv(config))
        table = None
        if config.relative_position_embedding:  # one for all layers, saved under every layer's name
            table = nn.Embedding(config.num_buckets, config.encoder_attention_heads)
            nn.init.normal_(table.weight, std=0.02)
        self.layers = Layers(_Layer(config, table) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(config.encoder_embed_dim)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        x = x * valid[..., None]
        x = x + self.pos_conv(x)
        if not self.config.layer_norm_first:
            x = self.layer_norm(x)
        padding = attention_bias(valid, x.dtype)
        positions = self._position_bias(x.shape[1], x.device)
        x = self.layers(x, positions, padding)
        return self.layer_norm(x) if self.config.layer_norm_first else x

    def _position_bias(self, size: int, device: torch.device) -> Tensor | None:
        """(heads, size, size): the bias of query i to key j, which depends on j - i only."""
        table = cast(_Layer, self.layers[0]).self_attn.relative_attention_bias
        if table is None:
            return None
        # On the CPU, because a bucket's edge must not depend on the device's logarithm.
        buckets = relative_buckets(size, self.config.num_buckets, self.config.max_distance).to(
            device, non_blocking=True
        )
        by_distance: Tensor = table(buckets).T
        return by_distance.unfold(1, size, 1).flip(1)  # row i starts at distance -i


def relative_buckets(size: int, num_buckets: int, max_distance: int) -> Tensor:
    """(2 size - 1,) the bucket of each distance key - query, from -(size - 1) to size - 1.

    Half of the buckets are for keys after the query; half of each side is exact, the rest logarithmic up to
    `max_distance` (beats/backbone.py `_relative_positions_bucket`, after T5).
    """
    distances = torch.arange(1 - size, size)
    per_side, exact = num_buckets // 2, num_buckets // 4
    near = distances.abs()
    # In upstream's order of operations: float32 rounding decides the bucket at the edges.
    far = torch.log(near.float() / exact) / math.log(max_distance / exact) * (per_side - exact)
    far = (exact + far.clamp(min=0).long()).clamp(max=per_side - 1)
    return (distances > 0).long() * per_side + torch.where(near < exact, near, far)


class _PositionalConv(nn.Module):
    """A grouped convolution over time, each tap's weights normalised (torch's weight_norm with dim=2), GELU."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        width, taps = config.encoder_embed_dim, config.conv_pos
        self.groups = config.conv_pos_groups
        weight = torch.randn(width, width // self.groups, taps) * math.sqrt(4.0 / (taps * width))
        self.weight_v = nn.Parameter(weight)
        self.weight_g = nn.Parameter(weight.norm(dim=(0, 1), keepdim=True))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True))
        return F.gelu(grouped_conv1d(x, weight, self.bias, self.groups))


class _Layer(nn.Module):
    def __init__(self, config: BeatsConfig, table: nn.Embedding | None) -> None:
        super().__init__()
        width = config.encoder_embed_dim
        self.norm_first = config.layer_norm_first
        self.activation = ACTIVATIONS[config.activation_fn]
        self.residual_scale = (2 * config.encoder_layers) ** 0.25 if config.deep_norm else 1.0
        self.self_attn = _Attention(config, table)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_embed_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, positions: Tensor | None, padding: Tensor | None) -> Tensor:
        if self.norm_first:
            x = x + self.self_attn(self.self_attn_layer_norm(x), positions, padding)
            x = x + self._feed_forward(self.final_layer_norm(x))
        else:
            x = self.self_attn_layer_norm(x * self.residual_scale + self.self_attn(x, positions, padding))
            x = self.final_layer_norm(x * self.residual_scale + self._feed_forward(x))
        return x

    def _feed_forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(self.activation(self.fc1(x)))
        return y


class _Attention(nn.Module):
    """Attention with a relative position bias that each query gates (WavLM's gated bias; beats/backbone.py)."""

    def __init__(self, config: BeatsConfig, table: nn.Embedding | None) -> None:
        super().__init__()
        width, self.heads = config.encoder_embed_dim, config.encoder_attention_heads
        self.gated = config.gru_rel_pos
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.relative_attention_bias = table
        if self.gated:
            self.grep_linear = nn.Linear(width // self.heads, 8)
            self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))

    def forward(self, x: Tensor, positions: Tensor | None, padding: Tensor | None) -> Tensor:
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        bias = padding
        if positions is not None:
            gate = (self._gate(query) if self.gated else torch.ones_like(query[..., :1])).transpose(1, 2)
            gate = gate.contiguous()  # the bias takes on its order of axes: keys have to lie side by side
            bias = gate * positions if padding is None else torch.addcmul(padding, gate, positions)
        query, key, value = (projected.transpose(1, 2) for projected in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return mixed

    def _gate(self, query: Tensor) -> Tensor:
        """(A, T, heads, head width) queries, unscaled -> (A, T, heads, 1)."""
        gates: Tensor = self.grep_linear(query)
        update, reset = gates.view(*gates.shape[:-1], 2, 4).sum(dim=-1).sigmoid().chunk(2, dim=-1)
        gate: Tensor = update * (reset * self.grep_a.transpose(1, 2) - 1.0) + 2.0
        return gate


class BeatsEncoder(Encoder):
    """The frozen BEATs; a fine-tuned one also gives the probabilities of its classes."""

    net: BeatsNet

    def __init__(self, net: BeatsNet, labels: tuple[str, ...] = ()) -> None:
        """Freezes `net`; `labels` name its classes, where it is fine-tuned."""
        super().__init__("beats", net, {"layout": net.layout})
        self.labels = labels

    @torch.no_grad()
    def probabilities(self, waves: Tensor, wave_lengths: Tensor) -> Tensor:
        """(A, S) float32 waveforms at 16 kHz, (A,) samples, up to 30 s -> (A, classes) in 0..1, in `labels`' order.

        Raises:
            ValueError: where the checkpoint is not fine-tuned, or a clip is longer than 30 s.
        """
        if not self.net.config.finetuned_model:
            raise ValueError("this BEATs checkpoint is not fine-tuned: it has no classes")
        if waves.shape[1] > PIECE:
            raise ValueError(f"{waves.shape[1]} samples: probabilities are of clips of up to {PIECE} (30 s)")
        self._checked(waves, wave_lengths)
        return self.net.logits(waves, wave_lengths).sigmoid()


def load_beats(checkpoint: Path, layout: Layout = "tokens") -> BeatsEncoder:
    """The frozen BEATs from a unilm `.pt` file, pre-trained or fine-tuned; gives features in both cases.

    Raises:
        EncoderError: see `checkpoint_files`.
    """
    if checkpoint.is_dir():
        raise EncoderError(f"{checkpoint}: looks like {folder_looks_like(checkpoint)}, not like a BEATs file; {SOURCE}")
    contents = read_torch(checkpoint, SOURCE)
    kind, values, weights = looks_like(contents), contents.get("cfg"), contents.get("model")
    if kind != BEATS or not isinstance(values, dict) or not is_named(weights):
        raise EncoderError(f"{checkpoint}: looks like {kind}, not like BEATs with its `cfg` and `model`; {SOURCE}")
    config = read_config(BeatsConfig, values, f"{checkpoint}: cfg")
    if config.input_patch_size != PATCH:
        raise EncoderError(f"{checkpoint}: patches of {config.input_patch_size}; 50 tokens a second need {PATCH}")
    net = fill(lambda: BeatsNet(config, layout), weights, checkpoint)
    return BeatsEncoder(net, _labels(contents.get("label_dict") or {}, config, checkpoint))


def _labels(found: Any, config: BeatsConfig, checkpoint: Path) -> tuple[str, ...]:
    """The classes of a fine-tuned checkpoint in the predictor's order; none where the file does not name them."""
    count = config.predictor_class if config.finetuned_model and found else 0
    if not isinstance(found, dict) or (count and set(found) != set(range(count))):
        raise EncoderError(f"{checkpoint}: its label_dict does not name the classes 0 to {config.predictor_class - 1}")
    return tuple(str(found[index]) for index in range(count))

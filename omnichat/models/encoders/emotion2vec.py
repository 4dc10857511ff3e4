"""emotion2vec: FunASR's folders, base and plus; data2vec 2.0 on the raw waveform.

Read against ddlBoJack/emotion2vec upstream/models and FunASR models/emotion2vec.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnichat.models.encoders.base import (
    Encoder,
    EncoderNet,
    aligned,
    attention_bias,
    grouped_conv1d,
    valid_positions,
    windows_of,
)
from omnichat.models.encoders.checkpoint_files import (
    EMOTION2VEC,
    EncoderError,
    fill,
    folder_looks_like,
    is_named,
    looks_like,
    read_json,
    read_torch,
)
from omnichat.models.encoders.emotion2vec_config import (
    ConvLayers,
    Emotion2vecConfig,
    read_yaml,
)
from omnichat.models.layers import Layers

__all__ = ["Emotion2vecConfig", "Emotion2vecNet", "alibi_slopes", "load_emotion2vec", "normalize"]

SOURCE = (
    "emotion2vec's weights are the folders of iic/emotion2vec_base and iic/emotion2vec_plus_large on ModelScope, "
    "emotion2vec/... on Hugging Face (config.yaml, configuration.json and the .pt file that it names)"
)


class Emotion2vecNet(EncoderNet):
    """emotion2vec's encoder with upstream's names, without the pre-training decoder and the classifier."""

    def __init__(self, config: Emotion2vecConfig) -> None:
        """Random weights."""
        super().__init__()
        self.config = config
        self.dim = config.embed_dim
        self.min_samples, self.stride = 1, 1
        for _, kernel, stride in config.conv_layers:
            self.min_samples += (kernel - 1) * self.stride
            self.stride *= stride
        self.modality_encoders = nn.ModuleDict({"AUDIO": _AudioEncoder(config)})
        self.blocks = Layers(_Block(config) for _ in range(config.depth))

    def num_frames(self, num_samples: int) -> int:
        """(num_samples - 400) // 320 + 1: whole receptive fields of the convolutions."""
        return max(0, (num_samples - self.min_samples) // self.stride + 1)

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(A, S) waveforms at 16 kHz, (A,) samples -> (A, num_frames(S), D), (A,) frame counts."""
        num_frames = self.num_frames(waves.shape[1])
        valid = valid_positions(lengths, waves.shape[1])
        waves = normalize(waves, lengths) if self.config.normalize else waves.masked_fill(~valid, 0.0)
        waves = F.pad(waves, (0, max(0, self.min_samples - waves.shape[1])))
        counts = ((lengths - self.min_samples) // self.stride + 1).clamp(min=0)
        x, bias = self.modality_encoders["AUDIO"](waves, counts.clamp(min=1))
        x = self.blocks(x, bias)
        x = x[:, self.config.num_extra_tokens :]
        x = x * valid_positions(counts, x.shape[1])[..., None]
        return x[:, :num_frames], counts


def normalize(waves: Tensor, lengths: Tensor) -> Tensor:
    """(A, S), (A,) -> (A, S) float32 of mean 0 and variance 1 over each clip's own samples, 0 beyond them.

    What `F.layer_norm(wave, wave.shape)` gives for each clip alone.
    """
    with torch.autocast(waves.device.type, enabled=False):
        valid = valid_positions(lengths, waves.shape[1])
        waves, num_samples = waves.float(), lengths[:, None]
        mean = waves.masked_fill(~valid, 0.0).sum(dim=1, keepdim=True) / num_samples
        centred = (waves - mean).masked_fill(~valid, 0.0)
        variance = centred.square().sum(dim=1, keepdim=True) / num_samples
        return centred * (variance + 1e-5).rsqrt()


class _AudioEncoder(nn.Module):
    """From the waveform to frames behind the extra tokens, through the convolutions and the prenet."""

    def __init__(self, config: Emotion2vecConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.config = config
        self.extra_tokens = nn.Parameter(torch.randn(1, config.num_extra_tokens, width))
        heads = config.num_heads if config.learned_alibi_scale_per_head else 1
        self.alibi_scale = nn.Parameter(torch.full((1, 1, heads, 1, 1), config.alibi_scale))
        self.local_encoder = _Convolutions(config.conv_layers)
        channels = config.conv_layers[-1][0]
        self.project_features = nn.Sequential(_Transpose(), nn.LayerNorm(channels), nn.Linear(channels, width))
        self.relative_positional_encoder = nn.Sequential(
            nn.Identity(), *(nn.Sequential(_PositionalConv(config)) for _ in range(config.conv_pos_depth))
        )
        self.context_encoder = _Prenet(config)

    def forward(self, waves: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """(A, S) normalised waveforms, (A,) frames >= 1 -> (A, 10 + N, D), and the attention bias for all blocks."""
        x = self.project_features(self.local_encoder(waves))
        valid = valid_positions(counts, x.shape[1])
        positions = x
        for convolution in list(self.relative_positional_encoder)[1:]:
            positions = convolution(positions * valid[..., None])
        x = torch.cat([self.extra_tokens.expand(len(x), -1, -1), x + positions], dim=1)
        bias = self._bias(valid, x.dtype)
        return self.context_encoder(x, bias), bias

    def _bias(self, valid: Tensor, dtype: torch.dtype) -> Tensor:
        """(A or 1, heads, T, T): symmetric ALiBi between frames, 0 at the extra tokens, -inf at padded keys."""
        positions, extra = torch.arange(valid.shape[1], device=valid.device), self.config.num_extra_tokens
        distance = (positions[None] - positions[:, None]).abs()
        slopes = torch.tensor(alibi_slopes(self.config.num_heads), dtype=torch.float32)
        slopes = slopes.to(valid.device, non_blocking=True)[:, None, None]
        bias = F.pad(-distance * slopes, (extra, 0, extra, 0)) * self.alibi_scale[0].float().clamp(min=0)
        padding = attention_bias(F.pad(valid, (extra, 0), value=True), dtype)
        return aligned(bias.to(dtype) if padding is None else bias.to(dtype) + padding)


def alibi_slopes(heads: int) -> list[float]:
    """The slope of each head: 2^(-8/n), 2^(-16/n), ... for n a power of two, else those of the next lower
    power of two and every second one of the next higher (ALiBi, Press et al. 2022, and its reference code)."""
    lower = 1 << (heads.bit_length() - 1)

    def geometric(count: int) -> list[float]:
        return [2.0 ** (-8.0 * (head + 1) / count) for head in range(count)]

    return geometric(lower) + geometric(2 * lower)[::2][: heads - lower]


class _Convolutions(nn.Module):
    """wav2vec 2.0's convolutions without bias, each followed by LayerNorm over channels and GELU."""

    def __init__(self, layers: ConvLayers) -> None:
        super().__init__()
        inputs = [1, *(channels for channels, _, _ in layers[:-1])]
        self.conv_layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(before, channels, kernel, stride, bias=False),
                nn.Identity(),
                nn.Sequential(_Transpose(), nn.LayerNorm(channels), _Transpose()),
                nn.GELU(),
            )
            for before, (channels, kernel, stride) in zip(inputs, layers, strict=True)
        )

    def forward(self, waves: Tensor) -> Tensor:
        """(A, S) -> (A, channels, N)."""
        x = waves[:, None].to(next(self.parameters()).dtype)
        if x.is_cuda:
            return self.as_products(x)
        for layer in self.conv_layers:
            x = layer(x)
        return x

    def as_products(self, x: Tensor) -> Tensor:
        """The same, time before channels throughout: no layer is transposed for its norm, nor back."""
        x = x.transpose(1, 2)
        for layer in cast(Iterable[nn.Sequential], self.conv_layers):
            convolution, norm = cast(nn.Conv1d, layer[0]), cast(nn.Sequential, layer[2])[1]
            taps, stride = convolution.kernel_size[0], convolution.stride[0]
            windows = windows_of(x, taps, stride).flatten(2)
            kernel = convolution.weight.permute(2, 1, 0).flatten(0, 1)  # (taps x inputs, outputs)
            if spare := -len(kernel) % 8:  # tensor cores want rows of 16 bytes
                windows, kernel = F.pad(windows, (0, spare)), F.pad(kernel, (0, 0, 0, spare))
            x = F.gelu(norm(windows @ kernel))
        return x.transpose(1, 2)


class _Transpose(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class _PositionalConv(nn.Conv1d):
    """A grouped convolution over time, LayerNorm without weights, GELU; (A, N, D) in and out."""

    def __init__(self, config: Emotion2vecConfig) -> None:
        taps = max(3, config.conv_pos_width // config.conv_pos_depth)
        super().__init__(config.embed_dim, config.embed_dim, taps, padding=taps // 2, groups=config.conv_pos_groups)

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        y = grouped_conv1d(x, self.weight, self.bias, self.groups)
        return F.gelu(F.layer_norm(y, y.shape[-1:]))


class _Prenet(nn.Module):
    def __init__(self, config: Emotion2vecConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.embed_dim, config.norm_eps, config.norm_affine)
        self.blocks = Layers(_Block(config) for _ in range(config.prenet_depth))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        found: Tensor = self.blocks(self.norm(x), bias)
        return found


class _Block(nn.Module):
    """A post-norm Transformer block (upstream AltBlock with layer_norm_first False)."""

    def __init__(self, config: Emotion2vecConfig) -> None:
        super().__init__()
        width, hidden = config.embed_dim, int(config.embed_dim * config.mlp_ratio)
        self.heads = config.num_heads
        self.norm1 = nn.LayerNorm(width, config.norm_eps, config.norm_affine)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.norm2 = nn.LayerNorm(width, config.norm_eps, config.norm_affine)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.norm1(x + self._attend(x, bias))
        x = self.norm2(x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](x))))
        return x

    def _attend(self, x: Tensor, bias: Tensor) -> Tensor:
        query, key, value = self.attn["qkv"](x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed: Tensor = self.attn["proj"](attended.transpose(1, 2).flatten(2))
        return mixed


def load_emotion2vec(checkpoint: Path) -> Encoder:
    """The frozen emotion2vec from a folder as FunASR ships it, base or plus.

    What pre-training and classification add is left out: `decoder.*`, `proj.*` and `_ema` (the teacher's weights, which
    upstream's `_load_from_state_dict` drops too) are all that is passed over.

    Raises:
        EncoderError: see `checkpoint_files`.
    """
    if not checkpoint.is_dir():
        what = "is a file; give the folder that holds it" if checkpoint.exists() else "no such folder"
        raise EncoderError(f"{checkpoint}: {what}; {SOURCE}")
    config_path, weights_path = _files(checkpoint)
    if not config_path.is_file():
        kind = folder_looks_like(checkpoint)
        raise EncoderError(f"{checkpoint}: looks like {kind}, not like emotion2vec: no {config_path.name}; {SOURCE}")
    config = read_yaml(config_path)
    contents = read_torch(weights_path, SOURCE)
    weights = contents.get("model")
    if looks_like(contents) != EMOTION2VEC or not is_named(weights):
        raise EncoderError(f"{weights_path}: looks like {looks_like(contents)}, not like emotion2vec; {SOURCE}")
    # The fine-tuned "plus" models hold the encoder as a part, which their config.yaml calls scope_map.
    prefix = "d2v_model." if any(name.startswith("d2v_model.") for name in weights) else ""
    audio = f"{prefix}modality_encoders.AUDIO."
    left_out = (f"{audio}decoder.", "proj.")
    weights = {n: weight for n, weight in weights.items() if n != f"{prefix}_ema" and not n.startswith(left_out)}
    scale = weights.get(f"{audio}alibi_scale")
    if isinstance(scale, Tensor) and scale.dim() == 4:  # older files lack the axis of layers (upgrade_state_dict_named)
        weights[f"{audio}alibi_scale"] = scale[None]
    net = fill(lambda: Emotion2vecNet(config), weights, weights_path, lambda name: prefix + name)
    return Encoder("emotion2vec", net)


def _files(folder: Path) -> tuple[Path, Path]:
    """config.yaml and model.pt, or what configuration.json names in their place."""
    names = {"config": "config.yaml", "init_param": "model.pt"}
    described = folder / "configuration.json"
    if described.is_file():
        named = read_json(described, SOURCE).get("file_path_metas", {})
        if not isinstance(named, dict) or not all(isinstance(named.get(key, ""), str) for key in names):
            raise EncoderError(f"{described}: its file_path_metas do not name config and init_param; {SOURCE}")
        names |= {key: named[key] for key in names if named.get(key)}
    return folder / names["config"], folder / names["init_param"]

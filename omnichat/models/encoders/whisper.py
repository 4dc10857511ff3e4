"""Whisper's encoder: openai-whisper `.pt` files and Hugging Face folders, in 30 s of context or in the clip's own.

Upstream's encoder takes 30 s of sound, no more and no less (whisper/model.py AudioEncoder). `pad30` gives it that,
as it was trained, and cuts the frames to the clip's length. `trim` encodes the clip alone, as SLAM-LLM's
`extract_variable_length_features` does: cheaper, and another function.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnichat.audio import HOP, PIECE, num_frames
from omnichat.models.encoders.base import Encoder, EncoderNet, attention_bias, valid_positions
from omnichat.models.encoders.checkpoint_files import (
    EncoderError,
    fill,
    folder_looks_like,
    is_named,
    looks_like,
    read_config,
    read_json,
    read_safetensors,
    read_torch,
)
from omnichat.models.encoders.log_mel import MIN_SAMPLES, log_mel
from omnichat.models.layers import Layers

Context = Literal["pad30", "trim"]
NUM_POSITIONS = 1500  # whisper's n_audio_ctx: 30 s
SOURCE = (
    "Whisper's weights are openai-whisper's .pt files (links in whisper/__init__.py) or Hugging Face folders "
    "such as openai/whisper-large-v3"
)
# openai-whisper's names, in parts, and what Hugging Face calls them (transformers convert_openai_to_hf.py).
HUGGING_FACE_NAMES = {
    "blocks.": "layers.",
    ".attn_ln.": ".self_attn_layer_norm.",
    ".attn.query.": ".self_attn.q_proj.",
    ".attn.key.": ".self_attn.k_proj.",
    ".attn.value.": ".self_attn.v_proj.",
    ".attn.out.": ".self_attn.out_proj.",
    ".mlp_ln.": ".final_layer_norm.",
    ".mlp.0.": ".fc1.",
    ".mlp.2.": ".fc2.",
    "ln_post.": "layer_norm.",
    "positional_embedding": "embed_positions.weight",
}


@dataclass(frozen=True)
class WhisperDims:
    """The encoder's part of `dims` in an openai-whisper file, with its names (whisper/model.py ModelDimensions)."""

    n_mels: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_audio_ctx: int = NUM_POSITIONS

    def __post_init__(self) -> None:
        """Raises ValueError where the heads do not divide the width."""
        if self.n_audio_state % self.n_audio_head:
            raise ValueError(f"n_audio_state {self.n_audio_state} is no multiple of n_audio_head {self.n_audio_head}")


class WhisperEncoderNet(EncoderNet):
    """Whisper's encoder with the names of openai-whisper's `encoder.*`."""

    min_samples = MIN_SAMPLES

    def __init__(self, dims: WhisperDims, context: Context = "pad30") -> None:
        """Random weights; the positions are fixed."""
        super().__init__()
        width = dims.n_audio_state
        self.dims = dims
        self.dim = width
        self.pads_to = PIECE if context == "pad30" else 0
        self.conv1 = nn.Conv1d(dims.n_mels, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.register_buffer("positional_embedding", sinusoids(dims.n_audio_ctx, width))
        self.blocks = Layers(_Block(width, dims.n_audio_head) for _ in range(dims.n_audio_layer))
        self.ln_post = nn.LayerNorm(width)

    def num_frames(self, num_samples: int) -> int:
        """ceil((num_samples // 160) / 2): mel frames, halved by the second convolution."""
        return num_frames(num_samples)

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(A, S) waveforms at 16 kHz, (A,) samples -> (A, ceil((S // 160) / 2), D), (A,) frame counts.

        Raises:
            ValueError: where the batch is longer than 30 s.
        """
        if waves.shape[1] > PIECE:
            raise ValueError(f"{waves.shape[1]} samples: Whisper's positions end at 30 s, {PIECE} samples")
        if not self.pads_to:
            return self.encode(*log_mel(waves, lengths, self.dims.n_mels))
        silent_after = waves.masked_fill(~valid_positions(lengths, waves.shape[1]), 0.0)
        padded = F.pad(silent_after, (0, self.pads_to - waves.shape[1]))
        mel, num_mel_frames = log_mel(padded, torch.full_like(lengths, self.pads_to), self.dims.n_mels)
        frames = self.encode(mel, num_mel_frames)[0][:, : self.num_frames(waves.shape[1])]
        counts = (lengths // HOP + 1) // 2
        return frames * valid_positions(counts, frames.shape[1])[..., None], counts

    def encode(self, mel: Tensor, num_mel_frames: Tensor) -> tuple[Tensor, Tensor]:
        """(A, n_mels, M) log-mel, (A,) mel frames -> (A, ceil(M / 2), D), (A,) frame counts."""
        valid_mel = valid_positions(num_mel_frames, mel.shape[2])
        # What lies beyond a clip must be zero before each convolution, as the convolution's own padding is.
        x = mel.to(self.conv1.weight.dtype) * valid_mel[:, None]
        x = F.gelu(self.conv1(x)) * valid_mel[:, None]
        x = F.gelu(self.conv2(x)).transpose(1, 2)
        x = x + self.get_buffer("positional_embedding")[: x.shape[1]]
        counts = (num_mel_frames + 1) // 2
        valid = valid_positions(counts.clamp(min=1), x.shape[1])
        keys = None if self.pads_to else attention_bias(valid, x.dtype)
        return self.ln_post(self.blocks(x, keys)) * valid_positions(counts, x.shape[1])[..., None], counts


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = _Attention(width, heads)
        self.attn_ln = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = nn.LayerNorm(width)

    def forward(self, x: Tensor, keys: Tensor | None) -> Tensor:
        x = x + self.attn(self.attn_ln(x), keys)
        x = x + self.mlp(self.mlp_ln(x))
        return x


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, keys: Tensor | None) -> Tensor:
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=keys)
        mixed: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return mixed


def sinusoids(length: int, channels: int) -> Tensor:
    """(length, channels) sines, then cosines, of periods 2 pi to 20,000 pi (whisper/model.py `sinusoids`)."""
    rates = torch.logspace(0.0, -4.0, channels // 2)
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def load_whisper(checkpoint: Path, context: Context = "pad30") -> Encoder:
    """Whisper's frozen encoder from an openai-whisper `.pt` file or a Hugging Face folder; the decoder is not read.

    Raises:
        EncoderError: see `checkpoint_files`.
    """
    load = _from_hugging_face if checkpoint.is_dir() else _from_openai
    return Encoder("whisper", load(checkpoint, context), {"context": context})


def _from_openai(path: Path, context: Context) -> WhisperEncoderNet:
    contents = read_torch(path, SOURCE)
    dims, weights = contents.get("dims"), contents.get("model_state_dict")
    if not isinstance(dims, dict) or not is_named(weights):
        raise EncoderError(f"{path}: looks like {looks_like(contents)}, not like openai-whisper; {SOURCE}")
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("decoder.")}
    return _fill(read_config(WhisperDims, dims, f"{path}: dims"), context, weights, path, "encoder.{}".format)


def _from_hugging_face(folder: Path, context: Context) -> WhisperEncoderNet:
    config_path = folder / "config.json"
    config = read_json(config_path, SOURCE) if config_path.is_file() else {}
    if config.get("model_type") != "whisper":
        raise EncoderError(f"{folder}: looks like {folder_looks_like(folder)}, not like Whisper; {SOURCE}")
    names = {
        "n_mels": "num_mel_bins",
        "n_audio_state": "d_model",
        "n_audio_head": "encoder_attention_heads",
        "n_audio_layer": "encoder_layers",
        "n_audio_ctx": "max_source_positions",
    }
    dims = read_config(WhisperDims, {ours: config.get(theirs) for ours, theirs in names.items()}, str(config_path))
    fixed = {"encoder_ffn_dim": 4 * dims.n_audio_state, "activation_function": "gelu", "scale_embedding": False}
    if wrong := {key: config[key] for key, value in fixed.items() if config.get(key, value) != value}:
        raise EncoderError(f"{config_path}: {wrong} is not Whisper, whose encoder has {fixed}")
    weights = read_safetensors(folder, SOURCE, skip=("decoder.", "model.decoder.", "proj_out."))
    # WhisperForConditionalGeneration wraps what WhisperModel saves bare.
    prefix = "model.encoder." if any(name.startswith("model.") for name in weights) else "encoder."

    def name_in_file(name: str) -> str:
        for ours, theirs in HUGGING_FACE_NAMES.items():
            name = name.replace(ours, theirs)
        return prefix + name

    return _fill(dims, context, weights, folder, name_in_file)


def _fill(
    dims: WhisperDims, context: Context, weights: dict[str, Tensor], where: Path, name_in_file: Callable[[str], str]
) -> WhisperEncoderNet:
    if dims.n_audio_ctx != NUM_POSITIONS:
        raise EncoderError(f"{where}: {dims.n_audio_ctx} positions; Whisper has {NUM_POSITIONS}, for 30 s")
    return fill(lambda: WhisperEncoderNet(dims, context), weights, where, name_in_file)

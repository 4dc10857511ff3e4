"""emotion2vec's configuration: FunASR's config.yaml, without upstream's eval."""

import ast
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from omnichat.models.encoders.checkpoint_files import EncoderError, read_config

ConvLayers = tuple[tuple[int, int, int], ...]
CONV_LAYERS: ConvLayers = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)
MAX_CONV_LAYERS = 100  # ours; a file could ask for more than the memory holds
RECEPTIVE_FIELD, STRIDE = 400, 320  # samples, of every published checkpoint; 50 frames a second
# What the published models have; another value makes another network, which is not written here.
FIXED: dict[str, Any] = {
    "layer_norm_first": False,
    "use_alibi_encoder": True,
    "learned_alibi": False,
    "learned_alibi_scale_per_layer": False,
    "conv_pos_pre_ln": False,
    "extractor_mode": "layer_norm",
}


@dataclass(frozen=True)
class Emotion2vecConfig:
    """The part of FunASR's config.yaml that shapes the network; upstream's names, base's values.

    Attributes:
        conv_layers: (channels, kernel, stride) of each layer of the waveform's convolutions.
    """

    embed_dim: int = 768
    depth: int = 8
    num_heads: int = 12
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-5
    norm_affine: bool = True
    normalize: bool = True
    prenet_depth: int = 4
    num_extra_tokens: int = 10
    alibi_scale: float = 1.0
    learned_alibi_scale_per_head: bool = True
    conv_layers: ConvLayers = CONV_LAYERS
    conv_pos_width: int = 95
    conv_pos_groups: int = 16
    conv_pos_depth: int = 5

    def __post_init__(self) -> None:
        """Raises ValueError where the heads do not divide the width, or the convolutions are none."""
        if not _are_convolutions(self.conv_layers):
            raise ValueError(f"conv_layers {self.conv_layers!r:.200} is no list of (channels, kernel, stride)")
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is no multiple of num_heads {self.num_heads}")


def _are_convolutions(layers: ConvLayers) -> bool:
    triples = 0 < len(layers) <= MAX_CONV_LAYERS and all(len(layer) == 3 for layer in layers)
    return triples and all(type(size) is int and size > 0 for layer in layers for size in layer)


def read_yaml(path: Path) -> Emotion2vecConfig:
    """The configuration in a config.yaml of FunASR.

    Raises:
        EncoderError: where it is no YAML, not emotion2vec's, or describes a network that is not written here.
    """
    try:
        contents = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise EncoderError(f"{path}: is no YAML ({error})") from None
    model = contents.get("model_conf") if isinstance(contents, dict) else None
    modalities = model.get("modalities") if isinstance(model, dict) else None
    audio = modalities.get("audio") if isinstance(modalities, dict) else None
    if not isinstance(model, dict) or not isinstance(audio, dict):
        raise EncoderError(f"{path}: has no model_conf with modalities.audio, so it is not emotion2vec's")
    values = model | audio
    if wrong := {key: values[key] for key, value in FIXED.items() if values.get(key, value) != value}:
        raise EncoderError(f"{path}: {wrong} is not supported; emotion2vec has {FIXED}")
    if "feature_encoder_spec" in values:
        values["conv_layers"] = _conv_layers(values["feature_encoder_spec"], path)
    config = read_config(Emotion2vecConfig, values, str(path))
    if values.get("num_alibi_heads", config.num_heads) != config.num_heads:
        raise EncoderError(f"{path}: num_alibi_heads {values['num_alibi_heads']} is not num_heads {config.num_heads}")
    return config


def _conv_layers(spec: Any, path: Path) -> ConvLayers:
    """`[(512, 10, 5)] + [(512, 3, 2)] * 4` as upstream writes it, without upstream's eval."""
    layers: list[tuple[int, int, int]] = []
    try:
        for term in spec.split("+"):
            listed, _, times = term.partition("*")
            layers += map(tuple, ast.literal_eval(listed.strip()) * min(int(times or 1), MAX_CONV_LAYERS))
        strides = [stride for _, _, stride in layers]
        receptive_field = 1 + sum((kernel - 1) * math.prod(strides[:i]) for i, (_, kernel, _) in enumerate(layers))
    except (AttributeError, SyntaxError, TypeError, ValueError, RecursionError):
        raise EncoderError(f"{path}: feature_encoder_spec {spec!r} is no list of (channels, kernel, stride)") from None
    if (receptive_field, math.prod(strides)) != (RECEPTIVE_FIELD, STRIDE):
        raise EncoderError(
            f"{path}: feature_encoder_spec {spec!r} sees {receptive_field} samples every {math.prod(strides)}; "
            f"50 frames a second need {RECEPTIVE_FIELD} every {STRIDE}"
        )
    return tuple(layers)

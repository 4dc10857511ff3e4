"""Whisper, emotion2vec and BEATs: small configurations, and files as openai-whisper, FunASR and unilm write them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omnichat.models.encoders.beats import BeatsConfig, BeatsNet
from omnichat.models.encoders.emotion2vec import Emotion2vecConfig, Emotion2vecNet
from omnichat.models.encoders.whisper import WhisperEncoderNet
from omnichat.models.tiny.half import half

# FunASR's tokens.txt of emotion2vec_plus: the classes of `proj`, in order.
EMOTION2VEC_LABELS = (
    "生气/angry",
    "厌恶/disgusted",
    "恐惧/fearful",
    "开心/happy",
    "中立/neutral",
    "其他/other",
    "难过/sad",
    "吃惊/surprised",
    "<unk>",
)
CONV_LAYERS = ((16, 10, 5), *((16, 3, 2),) * 4, *((16, 2, 2),) * 2)  # kernels and strides are emotion2vec's own


def emotion2vec_config(
    width: int,
    heads: int,
    prenet_depth: int,
    depth: int,
    conv_layers: tuple[tuple[int, int, int], ...] = CONV_LAYERS,
) -> Emotion2vecConfig:
    """A small emotion2vec; kernels, strides and positional convolutions as upstream's."""
    return Emotion2vecConfig(
        embed_dim=width, depth=depth, num_heads=heads, prenet_depth=prenet_depth, conv_layers=conv_layers
    )


def beats_config(width: int, heads: int, layers: int, classes: int = 0) -> BeatsConfig:
    """A small BEATs with the switches of the iter3+ checkpoints; with `classes`, a fine-tuned one."""
    return BeatsConfig(
        embed_dim=width * 3 // 4,  # unlike the width, as upstream's, so that it is projected
        encoder_layers=layers,
        encoder_embed_dim=width,
        encoder_ffn_embed_dim=4 * width,
        encoder_attention_heads=heads,
        deep_norm=True,
        conv_pos=128,
        conv_pos_groups=16,
        relative_position_embedding=True,
        num_buckets=320,
        max_distance=800,
        gru_rel_pos=True,
        finetuned_model=classes > 0,
        predictor_class=classes or 527,
    )


def write_whisper(path: Path | str, net: WhisperEncoderNet) -> None:
    """An openai-whisper `.pt` file: `dims`, the encoder, and a random text decoder, which no upstream file lacks."""
    dims = {
        "n_mels": net.dims.n_mels,
        "n_audio_ctx": net.dims.n_audio_ctx,
        "n_audio_state": net.dims.n_audio_state,
        "n_audio_head": net.dims.n_audio_head,
        "n_audio_layer": net.dims.n_audio_layer,
        "n_vocab": 64,
        "n_text_ctx": 8,
        "n_text_state": net.dims.n_audio_state,
        "n_text_head": net.dims.n_audio_head,
        "n_text_layer": 1,
    }
    encoder = {f"encoder.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save({"dims": dims, "model_state_dict": half(encoder | _whisper_decoder(dims))}, path)


def write_emotion2vec(folder: Path | str, net: Emotion2vecNet, classifier: nn.Linear | None = None) -> None:
    """An emotion2vec_plus folder as FunASR ships it: `config.yaml`, `configuration.json`, `tokens.txt`, `model.pt`.

    `classifier` is upstream's `proj`, from the mean of a clip's frames to the 9 labels; random by default.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    classifier = nn.Linear(net.dim, len(EMOTION2VEC_LABELS)) if classifier is None else classifier
    weights = {f"d2v_model.{name}": tensor for name, tensor in net.state_dict().items()}
    weights |= {f"proj.{name}": tensor for name, tensor in classifier.state_dict().items()}
    torch.save({"model": half(weights)}, folder / "model.pt")
    from omegaconf import OmegaConf  # as upstream writes it; those who only want a tokenizer need no omegaconf

    OmegaConf.save(OmegaConf.create(_emotion2vec_yaml(net.config)), folder / "config.yaml")
    metas = {"init_param": "model.pt", "config": "config.yaml", "tokenizer_conf": {"token_list": "tokens.txt"}}
    about = {
        "framework": "pytorch",
        "task": "emotion-recognition",
        "model": {"type": "funasr"},
        "file_path_metas": metas,
    }
    (folder / "configuration.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    (folder / "tokens.txt").write_text("\n".join(EMOTION2VEC_LABELS) + "\n", encoding="utf-8")


def write_beats(path: Path | str, net: BeatsNet, labels: Iterable[str] = ()) -> None:
    """A unilm BEATs `.pt` file: `cfg`, `model`, and for a fine-tuned net `label_dict`."""
    cfg = asdict(net.config) | {
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "encoder_layerdrop": 0.0,
        "dropout_input": 0.0,
        "layer_wise_gradient_decay_ratio": 1.0,
        "predictor_dropout": 0.0,
    }
    content: dict[str, Any] = {"cfg": cfg, "model": half(net.state_dict())}
    if net.config.finetuned_model:
        content["label_dict"] = dict(enumerate(labels))
    torch.save(content, path)


def _whisper_decoder(dims: Mapping[str, int]) -> dict[str, Tensor]:
    """Random weights with the names and shapes of whisper/model.py TextDecoder."""
    width = dims["n_text_state"]
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (dims["n_text_ctx"], width),
        "token_embedding.weight": (dims["n_vocab"], width),
        "ln.weight": (width,),
        "ln.bias": (width,),
    }
    for block in (f"blocks.{number}" for number in range(dims["n_text_layer"])):
        for attention in ("attn", "cross_attn"):
            for name in ("query", "key", "value", "out"):
                shapes[f"{block}.{attention}.{name}.weight"] = (width, width)
                if name != "key":
                    shapes[f"{block}.{attention}.{name}.bias"] = (width,)
            shapes |= {f"{block}.{attention}_ln.weight": (width,), f"{block}.{attention}_ln.bias": (width,)}
        shapes |= {f"{block}.mlp.0.weight": (4 * width, width), f"{block}.mlp.0.bias": (4 * width,)}
        shapes |= {f"{block}.mlp.2.weight": (width, 4 * width), f"{block}.mlp.2.bias": (width,)}
        shapes |= {f"{block}.mlp_ln.weight": (width,), f"{block}.mlp_ln.bias": (width,)}
    return {f"decoder.{name}": 0.02 * torch.randn(shape) for name, shape in shapes.items()}


def _emotion2vec_yaml(config: Emotion2vecConfig) -> dict[str, Any]:
    """FunASR's config.yaml: what shapes the network, and what its model class reads without a default of its own."""
    dropouts = ("encoder_dropout", "post_mlp_drop", "attention_dropout", "activation_dropout", "dropout_input")
    drop_path = {"start_drop_path_rate": 0.0, "end_drop_path_rate": 0.0}
    masking = (
        "mask_noise_std",
        "mask_prob",
        "mask_prob_adjust",
        "keep_masked_pct",
        "mask_dropout",
        "mask_channel_prob",
    )
    audio = {
        "type": "AUDIO",
        "prenet_depth": config.prenet_depth,
        "prenet_layerdrop": 0.0,
        "prenet_dropout": 0.0,
        **drop_path,
        **dict.fromkeys(masking, 0.0),
        "num_extra_tokens": config.num_extra_tokens,
        "init_extra_token_zero": True,
        "ema_local_encoder": False,
        "local_grad_mult": 1.0,
        "use_alibi_encoder": True,
        "alibi_scale": config.alibi_scale,
        "alibi_max_pos": None,
        "learned_alibi": False,
        "learned_alibi_scale": True,
        "learned_alibi_scale_per_head": config.learned_alibi_scale_per_head,
        "learned_alibi_scale_per_layer": False,
        "num_alibi_heads": config.num_heads,
        "model_depth": config.depth,
        "decoder": None,
        "extractor_mode": "layer_norm",
        "feature_encoder_spec": " + ".join(f"[{layer}]" for layer in config.conv_layers),
        "conv_pos_width": config.conv_pos_width,
        "conv_pos_groups": config.conv_pos_groups,
        "conv_pos_depth": config.conv_pos_depth,
        "conv_pos_pre_ln": False,
    }
    model = {
        "depth": config.depth,
        **drop_path,
        "num_heads": config.num_heads,
        "norm_eps": config.norm_eps,
        "norm_affine": config.norm_affine,
        **dict.fromkeys(dropouts, 0.0),
        "layerdrop": 0.0,
        "embed_dim": config.embed_dim,
        "mlp_ratio": config.mlp_ratio,
        "layer_norm_first": False,
        "end_of_block_targets": False,
        "average_top_k_layers": config.depth,
        "extractor_mode": "layer_norm",
        "supported_modality": "AUDIO",
        "normalize": config.normalize,
        "modalities": {"audio": audio},
    }
    return {
        "model": "Emotion2vec",
        "model_conf": model,
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
        "scope_map": ["d2v_model.", "none"],
    }

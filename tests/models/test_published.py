"""The published nets at their full size, on no memory: names and shapes of their weights are those of the real files.

What the files hold is told by others who pinned it: emotion2vec_plus_large (185 tensors, model.pt of revision 6c303ba),
BEATs (beats/BEATs.py and beats/backbone.py of microsoft/unilm, which load strictly), Whisper (transformers). The small
golden files show that the same names compute what upstream computes.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from transformers import LlamaConfig, WhisperConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omnichat.models.encoders.beats import BeatsConfig, BeatsNet
from omnichat.models.encoders.emotion2vec import Emotion2vecNet
from omnichat.models.encoders.emotion2vec_config import read_yaml
from omnichat.models.encoders.whisper import HUGGING_FACE_NAMES, WhisperEncoderNet
from omnichat.models.published import LLAMA_8B, PUBLISHED, published_expert, published_llama

Shapes = dict[str, tuple[int, ...]]


def shapes(net: nn.Module) -> Shapes:
    """Names and shapes of a net's weights."""
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A matrix and its bias; a norm where there are no inputs."""
    yield f"{name}.weight", (outputs, inputs) if inputs else (outputs,)
    if bias:
        yield f"{name}.bias", (outputs,)


def emotion2vec_file(width: int, heads: int) -> Shapes:
    """What model.pt of emotion2vec_plus_large holds beside `proj`, without its prefix `d2v_model.`."""
    audio = "modality_encoders.AUDIO"
    found: Shapes = {f"{audio}.alibi_scale": (1, 1, heads, 1, 1), f"{audio}.extra_tokens": (1, 10, width)}
    for block in [f"blocks.{n}" for n in range(8)] + [f"{audio}.context_encoder.blocks.{n}" for n in range(4)]:
        found |= dict(linear(f"{block}.attn.qkv", width, 3 * width)) | dict(linear(f"{block}.attn.proj", width, width))
        found |= dict(linear(f"{block}.mlp.fc1", width, 4 * width)) | dict(linear(f"{block}.mlp.fc2", 4 * width, width))
        found |= dict(linear(f"{block}.norm1", 0, width)) | dict(linear(f"{block}.norm2", 0, width))
    for n, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        layer = f"{audio}.local_encoder.conv_layers.{n}"
        found |= {f"{layer}.0.weight": (512, 512 if n else 1, kernel)} | dict(linear(f"{layer}.2.1", 0, 512))
    for n in range(1, 6):
        layer = f"{audio}.relative_positional_encoder.{n}.0"
        found |= {f"{layer}.weight": (width, width // 16, 19), f"{layer}.bias": (width,)}
    found |= dict(linear(f"{audio}.context_encoder.norm", 0, width)) | dict(
        linear(f"{audio}.project_features.1", 0, 512)
    )
    return found | dict(linear(f"{audio}.project_features.2", 512, width))


def beats_file(classes: int) -> Shapes:
    """What BEATs_iter3_plus_AS2M.pt holds, or a fine-tuned file with its classes."""
    found: Shapes = {"patch_embedding.weight": (512, 1, 16, 16)}
    found |= dict(linear("layer_norm", 0, 512)) | dict(linear("post_extract_proj", 512, 768))
    convolution = "encoder.pos_conv.0"
    found |= {
        f"{convolution}.bias": (768,),
        f"{convolution}.weight_g": (1, 1, 128),
        f"{convolution}.weight_v": (768, 48, 128),
    }
    found |= dict(linear("encoder.layer_norm", 0, 768))
    for layer in (f"encoder.layers.{n}" for n in range(12)):
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= dict(linear(f"{layer}.self_attn.{name}", 768, 768))
        found |= {f"{layer}.self_attn.grep_a": (1, 12, 1, 1)} | dict(linear(f"{layer}.self_attn.grep_linear", 64, 8))
        found |= {f"{layer}.self_attn.relative_attention_bias.weight": (320, 12)}
        found |= dict(linear(f"{layer}.fc1", 768, 3072)) | dict(linear(f"{layer}.fc2", 3072, 768))
        found |= dict(linear(f"{layer}.self_attn_layer_norm", 0, 768)) | dict(
            linear(f"{layer}.final_layer_norm", 0, 768)
        )
    return found | (dict(linear("predictor", 768, classes)) if classes else {})


@pytest.mark.parametrize(
    ("name", "width", "heads"),
    [("emotion2vec_base", 768, 12), ("emotion2vec_plus_base", 768, 12), ("emotion2vec_plus_large", 1024, 16)],
)
def test_emotion2vec(name: str, width: int, heads: int) -> None:
    """A weight of another name or shape is refused, and with it the real file."""
    with torch.device("meta"):
        found = shapes(Emotion2vecNet(PUBLISHED["emotion2vec"][name]))
    expected = emotion2vec_file(width, heads)
    assert len(expected) == 185 - 2  # `proj.weight` and `proj.bias` are the classifier's
    assert found == expected


def test_config_yaml_of_plus_large_is_read(tmp_path: Any) -> None:
    """Its keys stand in another order than base's, with sections for images and text that the encoder does not have."""
    audio = {
        "alibi_scale": 1.0, "conv_pos_depth": 5, "conv_pos_groups": 16, "conv_pos_pre_ln": False, "conv_pos_width": 95,
        "decoder": {"decoder_dim": 768, "decoder_layers": 4}, "extractor_mode": "layer_norm",
        "feature_encoder_spec": "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]",
        "learned_alibi": False, "learned_alibi_scale": True, "learned_alibi_scale_per_head": True,
        "learned_alibi_scale_per_layer": False, "model_depth": 8, "num_alibi_heads": 16, "num_extra_tokens": 10,
        "prenet_depth": 4, "type": "AUDIO", "use_alibi_encoder": True,
    }  # fmt: skip
    image = {"alibi_scale": 1.0, "embed_dim": 768, "learned_alibi_scale_per_head": False, "num_extra_tokens": 0}
    model = {
        "_name": "data2vec_multi", "average_top_k_layers": 16, "depth": 8, "embed_dim": 1024, "layer_norm_first": False,
        "mlp_ratio": 4.0, "normalize": True, "modalities": {"_name": None, "audio": audio, "image": image},
        "norm_affine": True, "norm_eps": 1e-5, "num_heads": 16, "shared_decoder": None,
    }  # fmt: skip
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"model": "Emotion2vec", "model_conf": model, "scope_map": ["d2v_model.", "none"]}))
    assert read_yaml(path) == PUBLISHED["emotion2vec"]["emotion2vec_plus_large"]


@pytest.mark.parametrize(
    ("name", "classes", "tensors"),
    [("BEATs_iter3_plus_AS2M", 0, 250), ("BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2", 527, 252)],
)
def test_beats(name: str, classes: int, tensors: int) -> None:
    """A weight of another name or shape is refused, and with it the real file."""
    with torch.device("meta"):
        found = shapes(BeatsNet(PUBLISHED["beats"][name]))
    expected = beats_file(classes)
    assert len(expected) == tensors
    assert found == expected
    megabytes = 4e-6 * sum(torch.Size(shape).numel() for shape in found.values())
    shared = 4e-6 * 11 * 320 * 12  # torch.save writes the table that all layers share once
    assert round(megabytes - shared) == (363 if classes else 361)  # as the published files are


def test_beats_deep_norm_is_the_published_kind() -> None:
    """Upstream's class has deep_norm off by default; so read, the real weights give noise."""
    config = asdict(PUBLISHED["beats"]["BEATs_iter3_plus_AS2M"])
    assert {key: value for key, value in config.items() if value != asdict(BeatsConfig())[key]} == {
        "deep_norm": True,
        "relative_position_embedding": True,
        "gru_rel_pos": True,
        "max_distance": 800,
    }


def test_whisper() -> None:
    """The names of the Hugging Face folder are made of openai-whisper's: a pair left out would be a weight missing."""
    sizes = {"d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120}
    with torch.device("meta"):
        ours = shapes(WhisperEncoderNet(PUBLISHED["whisper"]["whisper-large-v3"]))
        theirs = shapes(WhisperEncoder(WhisperConfig(num_mel_bins=128, **sizes)))
    renamed: Shapes = {}
    for name, shape in ours.items():
        for before, after in HUGGING_FACE_NAMES.items():
            name = name.replace(before, after)
        renamed[name] = shape
    assert renamed == theirs


# config.json of meta-llama/Llama-3.1-8B-Instruct, as transformers 4.42 wrote it: RoPE under two keys of their own.
LLAMA_3_1_8B: dict[str, Any] = {
    "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128_000,
    "eos_token_id": [128_001, 128_008, 128_009],
    "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14_336,
    "max_position_embeddings": 131_072, "mlp_bias": False, "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500_000.0, "tie_word_embeddings": False, "use_cache": True, "vocab_size": 128_256,
}  # fmt: skip


def test_llama_is_what_its_config_json_says() -> None:
    """Without the scaling of RoPE it is another model from the first token on, and no error tells."""
    read, ours = LlamaConfig(**LLAMA_3_1_8B), published_llama("Llama-3.1-8B-Instruct")
    assert ours is not None
    assert {key: getattr(read, key) for key in LLAMA_8B} == {key: getattr(ours, key) for key in LLAMA_8B}
    frequencies = [LlamaRotaryEmbedding(config).inv_freq for config in (read, ours)]
    assert torch.equal(*frequencies)
    plain = LlamaRotaryEmbedding(LlamaConfig(**LLAMA_3_1_8B | {"rope_scaling": None})).inv_freq
    # Longer waves than 8192 / 1 positions are 8 times as long, shorter ones than 8192 / 4 as they were.
    waves = 2 * torch.pi / plain
    torch.testing.assert_close(frequencies[0][waves > 8192], plain[waves > 8192] / 8)
    torch.testing.assert_close(frequencies[0][waves < 2048], plain[waves < 2048])
    assert 0 < int(((waves >= 2048) & (waves <= 8192)).sum()) < len(plain)


@pytest.mark.parametrize("expert", ["whisper", "emotion2vec", "beats"])
def test_every_published_expert_can_be_built(expert: str) -> None:
    """A name in the list whose sizes make no net would end an estimate."""
    for name in PUBLISHED[expert]:
        with torch.device("meta"):
            found = published_expert(expert, name, {})
        assert found is not None
        assert found.dim in (768, 1024, 1280)

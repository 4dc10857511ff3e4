"""The published nets that recipes name, as sizes alone: what can be counted before a weight is downloaded.

A net is found by the name of its checkpoint: the last part of its path, without `.pt`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from omnichat.models.encoders import Encoder
from omnichat.models.encoders.beats import BeatsConfig, BeatsNet
from omnichat.models.encoders.emotion2vec import Emotion2vecConfig, Emotion2vecNet
from omnichat.models.encoders.whisper import WhisperDims, WhisperEncoderNet

ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
# config.json of meta-llama/Llama-3.1-8B-Instruct
LLAMA_8B: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "rope_parameters": ROPE,
}
# config.json of meta-llama/Llama-3.2-1B-Instruct
LLAMA_1B = LLAMA_8B | {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "head_dim": 64,
    "tie_word_embeddings": True,
    "rope_parameters": ROPE | {"factor": 32.0},
}
WHISPER_LARGE_V3 = WhisperDims(n_mels=128, n_audio_state=1280, n_audio_head=20, n_audio_layer=32)
EMOTION2VEC_BASE = Emotion2vecConfig()
# `cfg` of BEATs_iter3_plus_AS2M.pt
BEATS_ITER3 = BeatsConfig(deep_norm=True, relative_position_embedding=True, max_distance=800, gru_rel_pos=True)

PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "llm": {"Llama-3.1-8B-Instruct": LLAMA_8B, "Llama-3.2-1B-Instruct": LLAMA_1B},
    "whisper": {"whisper-large-v3": WHISPER_LARGE_V3, "large-v3": WHISPER_LARGE_V3},
    "emotion2vec": {"emotion2vec_base": EMOTION2VEC_BASE},
    "beats": {"BEATs_iter3_plus_AS2M": BEATS_ITER3},
}
NETS: Mapping[str, Any] = {"whisper": WhisperEncoderNet, "emotion2vec": Emotion2vecNet, "beats": BeatsNet}


def checkpoint_name(path: str) -> str:
    """`checkpoints/BEATs_iter3_plus_AS2M.pt` -> `BEATs_iter3_plus_AS2M`."""
    return Path(path).name.removesuffix(".pt")


def published_llama(name: str) -> LlamaConfig | None:
    """The configuration of a published Llama; None for another name."""
    sizes = PUBLISHED["llm"].get(name)
    return None if sizes is None else LlamaConfig(**sizes)


def published_expert(expert: str, name: str, options: Mapping[str, str]) -> Encoder | None:
    """A published expert with random weights on the current device; None for another name."""
    sizes = PUBLISHED[expert].get(name)
    return None if sizes is None else Encoder(expert, NETS[expert](sizes, **options), options)

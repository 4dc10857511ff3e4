"""The published nets that recipes name, as sizes alone: what can be counted before a weight is downloaded.

A net is found by the name of its checkpoint: the last part of its path, without `.pt`.
"""

from collections.abc import Mapping
from dataclasses import replace
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
# config.json of meta-llama/Llama-3.2-1B-Instruct, and of the 3B one
LLAMA_1B = LLAMA_8B | {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "head_dim": 64,
    "tie_word_embeddings": True,
    "rope_parameters": ROPE | {"factor": 32.0},
}
LLAMA_3B = LLAMA_1B | {
    "hidden_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "head_dim": 128,
}
# config.json of HuggingFaceTB/SmolLM2-135M-Instruct
SMOLLM2_135M: dict[str, Any] = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49_152,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
}
WHISPER_LARGE_V3 = WhisperDims(n_mels=128, n_audio_state=1280, n_audio_head=20, n_audio_layer=32)
EMOTION2VEC_BASE = Emotion2vecConfig()  # config.yaml of emotion2vec_base; those of plus_seed and plus_base say the same
EMOTION2VEC_LARGE = Emotion2vecConfig(embed_dim=1024, num_heads=16)  # config.yaml of emotion2vec_plus_large
# `cfg` of BEATs_iter3_plus_AS2M.pt, and of its fine-tuned sibling
BEATS_ITER3 = BeatsConfig(deep_norm=True, relative_position_embedding=True, max_distance=800, gru_rel_pos=True)
BEATS_FINETUNED = replace(BEATS_ITER3, finetuned_model=True, predictor_class=527)

PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "llm": {
        "Llama-3.1-8B-Instruct": LLAMA_8B,
        "Meta-Llama-3.1-8B-Instruct": LLAMA_8B,  # as its page was called at first
        "Llama-3.2-3B-Instruct": LLAMA_3B,
        "Llama-3.2-1B-Instruct": LLAMA_1B,
        "SmolLM2-135M-Instruct": SMOLLM2_135M,
    },
    "whisper": {"whisper-large-v3": WHISPER_LARGE_V3, "large-v3": WHISPER_LARGE_V3},
    "emotion2vec": {
        **dict.fromkeys(("emotion2vec_base", "emotion2vec_plus_seed", "emotion2vec_plus_base"), EMOTION2VEC_BASE),
        "emotion2vec_plus_large": EMOTION2VEC_LARGE,
    },
    "beats": {
        "BEATs_iter3_plus_AS2M": BEATS_ITER3,
        "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2": BEATS_FINETUNED,
    },
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

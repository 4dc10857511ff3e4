"""The sizes of the nets, and random ones made in place: no checkpoint is needed, nor does the time depend on one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from omnichat.audio import WINDOW
from omnichat.models.encoders import Encoder
from omnichat.models.encoders.base import EncoderNet
from omnichat.models.encoders.beats import BeatsConfig, BeatsNet
from omnichat.models.encoders.emotion2vec import Emotion2vecConfig, Emotion2vecNet
from omnichat.models.encoders.whisper import Context, WhisperDims, WhisperEncoderNet
from omnichat.models.llm import add_lora
from omnichat.models.mixformer import MixFormer
from omnichat.models.omnichat import OmniChat
from omnichat.models.packed import PACKED
from omnichat.models.published import BEATS_ITER3, EMOTION2VEC_BASE, LLAMA_8B, ROPE, WHISPER_LARGE_V3


@dataclass(frozen=True)
class Scale:
    """Sizes by part; the defaults are the paper's: Llama-3.1-8B, whisper-large-v3, emotion2vec base, BEATs iter3."""

    llama: Mapping[str, Any] = field(default_factory=lambda: LLAMA_8B)
    whisper: WhisperDims = WHISPER_LARGE_V3
    emotion2vec: Emotion2vecConfig = EMOTION2VEC_BASE
    beats: BeatsConfig = BEATS_ITER3
    qformer: Mapping[str, int] = field(default_factory=lambda: {"hidden": 768, "layers": 2, "heads": 12, "ffn": 3072})
    lora_rank: int = 8
    lora_alpha: int = 32


TOY = Scale(
    llama={
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 600,
        "max_position_embeddings": 16_384,
        "tie_word_embeddings": False,
        "rope_parameters": ROPE,
    },
    whisper=WhisperDims(n_mels=128, n_audio_state=32, n_audio_head=2, n_audio_layer=1),
    emotion2vec=Emotion2vecConfig(
        embed_dim=32,
        depth=1,
        num_heads=2,
        prenet_depth=1,
        conv_layers=((8, 10, 5), *((8, 3, 2),) * 4, *((8, 2, 2),) * 2),
    ),
    beats=BeatsConfig(
        embed_dim=16,
        encoder_layers=1,
        encoder_embed_dim=32,
        encoder_ffn_embed_dim=64,
        encoder_attention_heads=2,
        deep_norm=True,
        relative_position_embedding=True,
        gru_rel_pos=True,
    ),
    qformer={"hidden": 32, "layers": 1, "heads": 2, "ffn": 64},
)


def make_llm(scale: Scale, device: torch.device) -> LlamaForCausalLM:
    """A frozen Llama in bfloat16 with LoRA on q and v in float32, whose B is not zero: gradients reach all of it."""
    config = LlamaConfig(**scale.llama)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            llm = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)
    llm.set_attn_implementation(PACKED)
    llm.requires_grad_(False).eval()
    add_lora(llm, scale.lora_rank, scale.lora_alpha)
    for name, parameter in llm.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.02)
    return llm


def make_encoders(scale: Scale, device: torch.device) -> dict[str, Encoder]:
    """The three frozen experts in bfloat16; Whisper is given 30 s."""
    with device:
        nets: dict[str, EncoderNet] = {
            "whisper": WhisperEncoderNet(scale.whisper, "pad30"),
            "emotion2vec": Emotion2vecNet(scale.emotion2vec),
            "beats": BeatsNet(scale.beats),
        }
    return {name: Encoder(name, net).in_dtype(torch.bfloat16) for name, net in nets.items()}


def in_context(whisper: Encoder, context: Context) -> Encoder:
    """The same Whisper, weights shared, with another context."""
    net = whisper.net
    assert isinstance(net, WhisperEncoderNet)
    with torch.device("meta"):
        other = WhisperEncoderNet(net.dims, context)
    other.load_state_dict(net.state_dict(), assign=True)
    other.positional_embedding = net.positional_embedding
    return Encoder("whisper", other)


def make_mixformer(scale: Scale, encoders: Mapping[str, Encoder], device: torch.device) -> MixFormer:
    """The Mix-Former in float32."""
    widths = {name: encoder.dim for name, encoder in encoders.items()}
    with device:
        return MixFormer(widths, scale.llama["hidden_size"], window=WINDOW, queries=1, **scale.qformer)


def make_model(
    encoders: Mapping[str, Encoder], mixformer: MixFormer, llm: LlamaForCausalLM, compiled: bool
) -> OmniChat:
    """The project's model over these parts."""
    return OmniChat(encoders, mixformer, llm, WINDOW, 1, compiled)

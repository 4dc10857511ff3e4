"""Tiny checkpoints in the upstream file formats: trained nets written as their upstream would, or random ones.

`python -m data_prep.tiny_weights` makes the shipped `checkpoints/tiny` with these writers; `recipe=smoke` and the
tests take random weights. Tensors are stored in float16, as openai-whisper stores its own.

`experts`   Whisper, emotion2vec and BEATs
`language`  a Llama and its tokenizer
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from omnichat.models.encoders.beats import BeatsNet
from omnichat.models.encoders.emotion2vec import Emotion2vecNet
from omnichat.models.encoders.whisper import WhisperDims, WhisperEncoderNet
from omnichat.models.tiny.experts import (
    EMOTION2VEC_LABELS,
    beats_config,
    emotion2vec_config,
    write_beats,
    write_emotion2vec,
    write_whisper,
)
from omnichat.models.tiny.language import (
    SPECIAL_TOKENS,
    default_texts,
    llama_config,
    write_llama,
    write_tokenizer,
)

__all__ = [
    "EMOTION2VEC_LABELS",
    "SPECIAL_TOKENS",
    "beats_config",
    "default_texts",
    "emotion2vec_config",
    "llama_config",
    "write_beats",
    "write_emotion2vec",
    "write_llama",
    "write_random_checkpoints",
    "write_tokenizer",
    "write_whisper",
]


def write_random_checkpoints(
    folder: Path | str,
    seed: int = 0,
    width: int = 32,
    layers: int = 1,
    heads: int = 4,
    vocab_size: int = 512,
    texts: Iterable[str] | None = None,
) -> dict[str, Path]:
    """Random weights for every part of a model: {whisper, emotion2vec, beats, llama} -> path, all below `folder`.

    Args:
        folder: made where it is missing.
        seed: of the weights; the caller's random state is left alone.
        width: of every net; a multiple of 16, emotion2vec's number of convolution groups.
        layers: Transformer layers of every net (emotion2vec: of the prenet and of the blocks).
        heads: attention heads; the Llama has half as many key-value heads.
        vocab_size: of the tokenizer, at most; fewer where `texts` hold fewer pairs to merge.
        texts: what the tokenizer is trained on; by default the words every prompt is made of.

    Raises:
        ValueError: a size that cannot be.
    """
    if width % 16 or width % heads or heads % 2:
        raise ValueError(f"width={width} must be a multiple of 16 and of heads={heads}, and heads must be even")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {
        "whisper": folder / "whisper.pt",
        "emotion2vec": folder / "emotion2vec",
        "beats": folder / "beats.pt",
        "llama": folder / "llama",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        write_whisper(paths["whisper"], WhisperEncoderNet(WhisperDims(80, width, heads, layers)))
        write_emotion2vec(paths["emotion2vec"], Emotion2vecNet(emotion2vec_config(width, heads, layers, layers)))
        write_beats(paths["beats"], BeatsNet(beats_config(width, heads, layers)))
        tokenizer = write_tokenizer(paths["llama"], texts or default_texts(), vocab_size)
        # At the usual 0.02 a frozen random head cannot make logits beyond +-0.6, and nothing could be learnt.
        config = llama_config(tokenizer, width, heads, layers, initializer_range=0.3)
        write_llama(paths["llama"], LlamaForCausalLM(config))
    return paths

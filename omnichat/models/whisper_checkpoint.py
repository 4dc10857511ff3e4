"""Whisper with its decoder, from a Hugging Face folder or an openai-whisper `.pt`, for transcripts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from omnichat.audio import SAMPLE_RATE
from omnichat.models.encoders.checkpoint_files import EncoderError, is_named, looks_like, read_torch
from omnichat.models.encoders.whisper import HUGGING_FACE_NAMES, SOURCE
from omnichat.models.hugging_face import load_strictly

# What the decoder has beyond the encoder's names (transformers convert_openai_to_hf.py); longer names first.
DECODER_NAMES = {
    ".cross_attn_ln.": ".encoder_attn_layer_norm.",
    ".cross_attn.query.": ".encoder_attn.q_proj.",
    ".cross_attn.key.": ".encoder_attn.k_proj.",
    ".cross_attn.value.": ".encoder_attn.v_proj.",
    ".cross_attn.out.": ".encoder_attn.out_proj.",
    "decoder.token_embedding.": "decoder.embed_tokens.",
    "decoder.ln.": "decoder.layer_norm.",
}
# openai-whisper's dims and what transformers calls them.
DIMS = {
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
}


@dataclass
class Whisper:
    """A loaded checkpoint: its model, feature extractor and tokenizer."""

    model: Any
    extractor: Any
    tokenizer: Any

    def transcribe(self, waves: Sequence[NDArray[np.float32]], language: str, max_tokens: int) -> list[str]:
        """The words of each of (S,) at 16 kHz, up to 30 s; greedy, so the same clip gives the same words."""
        features = self.extractor(list(waves), sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        features = features.to(self.model.device, self.model.dtype)
        several = getattr(self.model.generation_config, "is_multilingual", False)
        task = {"language": language, "task": "transcribe"} if several else {}
        longest = min(max_tokens, self.model.config.max_target_positions - 8)
        with torch.inference_mode():
            tokens = self.model.generate(features, do_sample=False, max_new_tokens=longest, **task)
        return [str(text).strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]


def load_whisper(checkpoint: Path, tokenizer: str, device: str) -> Whisper:
    """A checkpoint on a device, in eval mode.

    Args:
        checkpoint: a Hugging Face folder, or a `.pt` of openai-whisper.
        tokenizer: folder with the tokenizer, where the checkpoint's own has none.
        device: of torch's names.

    Raises:
        EncoderError: it is no such checkpoint, or has no tokenizer.
    """
    words = Path(tokenizer) if tokenizer else checkpoint
    if not words.is_dir():
        raise EncoderError(f"{checkpoint}: a .pt holds no tokenizer: set tokenizer to a folder of the same Whisper")
    try:
        if checkpoint.is_dir():
            model = load_strictly(transformers.WhisperForConditionalGeneration, checkpoint, torch.float32, device)
        else:
            model = _from_openai(checkpoint, words)
        read = transformers.AutoTokenizer.from_pretrained(words, local_files_only=True)
    except (OSError, ValueError, RuntimeError, EncoderError) as error:
        raise EncoderError(f"{checkpoint}: no Whisper that can be read: {str(error).splitlines()[0]}") from None
    extractor = transformers.WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    if len(read) > model.config.vocab_size:
        raise EncoderError(f"{words}: {len(read)} tokens, but the model of {checkpoint} has {model.config.vocab_size}")
    return Whisper(model.eval().to(device), extractor, read)


def _from_openai(path: Path, words: Path) -> Any:
    contents = read_torch(path, SOURCE)
    dims, weights = contents.get("dims"), contents.get("model_state_dict")
    if not isinstance(dims, dict) or not is_named(weights):
        raise EncoderError(f"{path}: looks like {looks_like(contents)}, not like openai-whisper")
    if lacking := sorted(DIMS.keys() - dims.keys()):
        raise EncoderError(f"{path}: no checkpoint of openai-whisper: its dims lack {', '.join(lacking)}")
    values = {theirs: dims[ours] for ours, theirs in DIMS.items()}
    widths = {f"{side}_ffn_dim": 4 * dims["n_audio_state"] for side in ("encoder", "decoder")}
    generation = transformers.GenerationConfig.from_pretrained(words, local_files_only=True)
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    marks = {name: getattr(generation, name) for name in names}
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**values, **widths, **marks))
    renamed = {f"model.{_renamed(name)}": weight for name, weight in weights.items()}
    absent, extra = model.load_state_dict(renamed, strict=False)
    absent = set(absent) - {"proj_out.weight"}  # which is tied to the token embedding
    if extra or absent:
        raise EncoderError(f"{path}: weights do not fit: missing {sorted(absent)[:3]}, too many {sorted(extra)[:3]}")
    model.tie_weights()
    model.generation_config = generation
    return model


def _renamed(name: str) -> str:
    for ours, theirs in (DECODER_NAMES | HUGGING_FACE_NAMES).items():
        name = name.replace(ours, theirs)
    return name

"""The baseline: a training step as one writes it with transformers and PEFT.

Dialogues padded on the right to the longest, an attention mask, labels of -100, `WhisperFeatureExtractor` and Whisper's
encoder on 30 s for each clip, all clips in one call, cut to the longest clip; `get_peft_model`; the loss that
`LlamaForCausalLM` computes from the logits of all positions. The Mix-Former is the project's own module, all windows
in one call, so that no ratio against this loop is owed to it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaForCausalLM, WhisperFeatureExtractor, WhisperModel

from benchmarks.rows import Rows, pad_rows, padded_loss
from benchmarks.workload import Checkpoints, Sizes
from omnichat.audio import SAMPLE_RATE, num_frames
from omnichat.batch import Example
from omnichat.models.mixformer import MixFormer


class PaddedBatch(NamedTuple):
    """B dialogues of up to T tokens, A clips.

    Attributes:
        rows: the padded tokens.
        mel: (A, 80, 3000) log-mel of 30 s for each clip; without mels (A, S) waves padded to the longest.
        num_frames: (A,) encoder frames within each clip.
    """

    rows: Rows
    mel: Tensor
    num_frames: Tensor


class PaddedCollator:
    """Pads a batch as the documentation of transformers does.

    Args:
        num_mels: bands; with 0 the mels are left to the device.
        windows: audio slots of every clip, instead of as many as its length needs.
    """

    def __init__(self, num_mels: int = 80, windows: int | None = None) -> None:
        self.extractor = WhisperFeatureExtractor(feature_size=num_mels) if num_mels else None
        self.windows = windows

    def __call__(self, examples: Sequence[Example]) -> PaddedBatch:
        """Pad tokens to the longest dialogue, and audio to 30 s."""
        waves = [wave for example in examples for wave in example.waves]
        if self.extractor is None:
            mel = pad_sequence([torch.from_numpy(wave) for wave in waves], batch_first=True)
        else:
            mel = self.extractor(waves, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        frames = torch.tensor([num_frames(len(wave)) for wave in waves])
        return PaddedBatch(pad_rows(examples, self.windows), mel, frames)


class PlainLoop(nn.Module):
    """Whisper, Mix-Former and a language model with LoRA on padded batches."""

    def __init__(self, checkpoints: Checkpoints, mixformer: MixFormer, sizes: Sizes) -> None:
        super().__init__()
        self.collate = PaddedCollator()
        self.whisper = load_whisper(checkpoints)
        self.mixformer = mixformer
        self.llm = plain_llm(checkpoints, sizes)

    def forward(self, batch: PaddedBatch) -> Tensor:
        """The mean loss over all targets."""
        with torch.no_grad():
            frames = self.whisper(batch.mel).last_hidden_state
        frames = frames[:, : int(batch.num_frames.max())]
        heard, _, _ = self.mixformer({"whisper": (frames, batch.num_frames)}, batch.num_frames)
        windows = -(-batch.num_frames // self.mixformer.window)
        own = torch.arange(heard.shape[1]) < windows[:, None]
        return padded_loss(self.llm, batch.rows, heard[own].flatten(0, 1))


def load_whisper(checkpoints: Checkpoints) -> nn.Module:
    """transformers' Whisper encoder, frozen, with its default attention (SDPA)."""
    encoder: nn.Module = WhisperModel.from_pretrained(checkpoints.whisper).encoder
    return encoder.requires_grad_(False).eval()


def plain_llm(checkpoints: Checkpoints, sizes: Sizes, attention: str = "sdpa") -> PeftModel:
    """The language model with transformers' attention, in PEFT's wrapper."""
    llm = LlamaForCausalLM.from_pretrained(checkpoints.llama, dtype=torch.float32, attn_implementation=attention)
    lora = LoraConfig(
        r=sizes.lora_rank, lora_alpha=sizes.lora_alpha, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    return get_peft_model(llm, lora)

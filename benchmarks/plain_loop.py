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

from benchmarks.workload import Checkpoints, Sizes
from omnichat.audio import SAMPLE_RATE, num_frames
from omnichat.batch import Example
from omnichat.models.mixformer import MixFormer
from omnichat.prompt import IGNORE


class PaddedBatch(NamedTuple):
    """B dialogues of up to T tokens, A clips.

    Attributes:
        input_ids: (B, T) int64.
        attention_mask: (B, T), 0 at padding.
        labels: (B, T), -100 where there is no target.
        audio: (B, T) bool, True at audio slots.
        mel: (A, 80, 3000) log-mel of 30 s for each clip; without mels (A, S) waves padded to the longest.
        num_frames: (A,) encoder frames within each clip.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    audio: Tensor
    mel: Tensor
    num_frames: Tensor


class PaddedCollator:
    """Pads a batch as the documentation of transformers does; with `num_mels` 0 it leaves the mels to the device."""

    def __init__(self, num_mels: int = 80) -> None:
        self.extractor = WhisperFeatureExtractor(feature_size=num_mels) if num_mels else None

    def __call__(self, examples: Sequence[Example]) -> PaddedBatch:
        """Pad tokens to the longest dialogue, and audio to 30 s."""
        ids = [torch.from_numpy(example.tokens.ids) for example in examples]
        waves = [wave for example in examples for wave in example.waves]
        audio = [torch.zeros(len(row), dtype=torch.bool) for row in ids]
        for row, example in zip(audio, examples, strict=True):
            for slot in example.tokens.slots:
                row[slot.start : slot.start + slot.length] = True
        labels = [torch.from_numpy(example.tokens.labels) for example in examples]
        if self.extractor is None:
            mel = pad_sequence([torch.from_numpy(wave) for wave in waves], batch_first=True)
        else:
            mel = self.extractor(waves, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        return PaddedBatch(
            input_ids=pad_sequence(ids, batch_first=True),
            attention_mask=pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            labels=pad_sequence(labels, batch_first=True, padding_value=IGNORE),
            audio=pad_sequence(audio, batch_first=True),
            mel=mel,
            num_frames=torch.tensor([num_frames(len(wave)) for wave in waves]),
        )


class PlainLoop(nn.Module):
    """Whisper, Mix-Former and a language model with LoRA on padded batches."""

    def __init__(self, checkpoints: Checkpoints, mixformer: MixFormer, sizes: Sizes) -> None:
        super().__init__()
        self.collate = PaddedCollator()
        self.whisper = WhisperModel.from_pretrained(checkpoints.whisper).encoder.requires_grad_(False).eval()
        self.mixformer = mixformer
        self.llm = plain_llm(checkpoints, sizes)

    def forward(self, batch: PaddedBatch) -> Tensor:
        """The mean loss over all targets."""
        with torch.no_grad():
            frames = self.whisper(batch.mel).last_hidden_state
        frames = frames[:, : int(batch.num_frames.max())]
        heard, _ = self.mixformer({"whisper": (frames, batch.num_frames)}, batch.num_frames)
        windows = -(-batch.num_frames // self.mixformer.window)
        own = torch.arange(heard.shape[1]) < windows[:, None]
        embeds = self.llm.get_input_embeddings()(batch.input_ids)
        embeds = embeds.masked_scatter(batch.audio[..., None], heard[own].flatten(0, 1))
        output = self.llm(
            inputs_embeds=embeds, attention_mask=batch.attention_mask, labels=batch.labels, use_cache=False
        )
        loss: Tensor = output.loss
        return loss


def plain_llm(checkpoints: Checkpoints, sizes: Sizes) -> PeftModel:
    """The language model with transformers' SDPA attention, in PEFT's wrapper."""
    llm = LlamaForCausalLM.from_pretrained(checkpoints.llama, dtype=torch.float32, attn_implementation="sdpa")
    lora = LoraConfig(
        r=sizes.lora_rank, lora_alpha=sizes.lora_alpha, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    return get_peft_model(llm, lora)

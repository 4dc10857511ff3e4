"""Dialogues as padded rows: what every baseline trains on.

Right padding to the longest dialogue, an attention mask, labels of -100, and the loss that `LlamaForCausalLM` computes
from the logits of all positions. Shapes: B dialogues of up to T tokens, D width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaForCausalLM

from omnichat.batch import Example
from omnichat.prompt import IGNORE


class Rows(NamedTuple):
    """Padded dialogues.

    Attributes:
        ids: (B, T) int64.
        mask: (B, T) int64, 0 at padding.
        labels: (B, T) int64, -100 where there is no target.
        audio: (B, T) bool, True at audio slots.
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor
    audio: Tensor


def pad_rows(examples: Sequence[Example], windows: int | None = None) -> Rows:
    """Pad to the longest dialogue; with `windows`, every clip has that many slots whatever its length."""
    ids, labels, audio = [], [], []
    for example in examples:
        row = (torch.from_numpy(example.tokens.ids), torch.from_numpy(example.tokens.labels))
        heard = torch.zeros(len(row[0]), dtype=torch.bool)
        for slot in example.tokens.slots:
            heard[slot.start : slot.start + slot.length] = True
        if windows is not None:
            places = torch.cat(_places(example, windows))
            row, heard = (row[0][places], row[1][places]), heard[places]
        ids.append(row[0])
        labels.append(row[1])
        audio.append(heard)
    return Rows(
        ids=pad_sequence(ids, batch_first=True),
        mask=pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        labels=pad_sequence(labels, batch_first=True, padding_value=IGNORE),
        audio=pad_sequence(audio, batch_first=True),
    )


def _places(example: Example, windows: int) -> list[Tensor]:
    """The positions of the dialogue in order, those of each clip's slots replaced by `windows` times its first."""
    places, done = [], 0
    for slot in example.tokens.slots:
        places += [torch.arange(done, slot.start), torch.full((windows,), slot.start)]
        done = slot.start + slot.length
    return [*places, torch.arange(done, len(example.tokens.ids))]


def padded_loss(llm: LlamaForCausalLM | PeftModel, rows: Rows, heard: Tensor) -> Tensor:
    """The mean over all targets; `heard` (slots, D) goes into the slots, in order."""
    embeds = llm.get_input_embeddings()(rows.ids)
    embeds = embeds.masked_scatter(rows.audio[..., None], heard.to(embeds.dtype))
    loss: Tensor = llm(inputs_embeds=embeds, attention_mask=rows.mask, labels=rows.labels, use_cache=False).loss
    return loss

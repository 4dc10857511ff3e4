"""Dialogues decoded step by step, with their keys and values kept.

Shapes: B dialogues, T tokens of a row, D width, V vocabulary.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, LlamaForCausalLM

Forced = Callable[[Sequence[int]], int | None]


class Session:
    """Dialogues decoded side by side, their keys and values kept: what was read once is not read again.

    Rows of different length are padded on the left and masked, so that every row gets what it would get alone.
    """

    def __init__(self, llm: LlamaForCausalLM) -> None:
        self.llm = llm
        self.cache = DynamicCache(config=llm.config)
        self.mask: Tensor | None = None  # (B, cached tokens): 0 at padding

    @property
    def length(self) -> int:
        """Positions that the cache holds, padding included."""
        return self.cache.get_seq_length()

    @torch.no_grad()
    def extend(self, embeds: Sequence[Tensor]) -> Tensor:
        """Read on: embeddings (T, D) for each of the B rows, T >= 1 -> logits (B, V) of what comes next, float32."""
        lengths = torch.tensor([len(row) for row in embeds], device=embeds[0].device)
        padded = pad_sequence(list(embeds), batch_first=True, padding_side="left").to(self.llm.dtype)
        mask = (torch.arange(padded.shape[1], device=padded.device) >= padded.shape[1] - lengths[:, None]).long()
        self.mask = mask if self.mask is None else torch.cat([self.mask, mask], dim=1)
        output = self.llm.model(
            inputs_embeds=padded,
            attention_mask=self.mask,
            position_ids=(self.mask.cumsum(1) - 1).clamp(min=0)[:, -padded.shape[1] :],
            past_key_values=self.cache,
            use_cache=True,
        )
        return self.llm.lm_head(output.last_hidden_state[:, -1]).float()

    @torch.no_grad()
    def reply(
        self, embeds: Sequence[Tensor], max_new_tokens: int, stop_id: int, forced: Forced | None = None
    ) -> list[list[int]]:
        """Read on, then write the likeliest token at each step, up to and with `stop_id` or `max_new_tokens`.

        `forced` may name the next token of a reply instead, from what is written of it (see `Prompt.forced`).
        The last token written by the longest row is not in the cache yet: a dialogue goes on with `extend` from it.
        """
        written: list[list[int]] = [[] for _ in embeds]
        logits = self.extend(embeds)
        while True:
            tokens = logits.argmax(-1)
            if forced is not None:
                named = [forced(row) for row in written]
                chosen = [own if must is None else must for own, must in zip(tokens.tolist(), named, strict=True)]
                tokens = tokens.new_tensor(chosen)
            for row, token in zip(written, tokens.tolist(), strict=True):
                if not row or row[-1] != stop_id:
                    row.append(token)
            if len(max(written, key=len)) >= max_new_tokens or all(row[-1] == stop_id for row in written):
                return written
            logits = self.extend(list(self.llm.model.embed_tokens(tokens)[:, None]))

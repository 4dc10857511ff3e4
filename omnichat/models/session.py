"""Dialogues decoded step by step, with their keys and values kept.

Shapes: B dialogues, T tokens of a row, D width, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, LlamaForCausalLM

from omnichat.prompt import Allowed

Form = Callable[[Sequence[int]], Allowed | None]


class Decoded(NamedTuple):
    """A reply.

    Attributes:
        ids: of its tokens, with the stop token if it was reached.
        guided: whether the model by itself would have left the form where it could have learnt to keep it.
    """

    ids: list[int]
    guided: bool


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

    def reply(
        self, embeds: Sequence[Tensor], max_new_tokens: int, stop_id: int, form: Form | None = None
    ) -> list[Decoded]:
        """What `stream` gives in the end."""
        *_, last = self.stream(embeds, max_new_tokens, stop_id, form)
        return last

    @torch.no_grad()
    def stream(
        self, embeds: Sequence[Tensor], max_new_tokens: int, stop_id: int, form: Form | None = None
    ) -> Iterator[list[Decoded]]:
        """Read on, then write the likeliest token at each step, up to and with `stop_id` or `max_new_tokens`.

        Each step gives the replies so far. `form` may say which tokens can come next in one, from what is written of
        it (see `Prompt.allowed`): then the likeliest of these is written.
        Whenever a step is given, the last token of the longest row is not in the cache yet: a dialogue goes on with
        `extend` from it, wherever the stream is left.
        """
        written: list[list[int]] = [[] for _ in embeds]
        guided = [False] * len(written)
        logits = self.extend(embeds)
        while True:
            tokens = logits.argmax(-1).tolist()
            for number, allowed in enumerate([] if form is None else map(form, written)):
                if allowed is not None and tokens[number] not in allowed.ids:
                    tokens[number] = _likeliest(logits[number], sorted(allowed.ids))
                    guided[number] |= allowed.taught
            for row, token in zip(written, tokens, strict=True):
                if not row or row[-1] != stop_id:
                    row.append(token)
            yield [Decoded(list(row), own) for row, own in zip(written, guided, strict=True)]
            if len(max(written, key=len)) >= max_new_tokens or all(row[-1] == stop_id for row in written):
                return
            chosen = torch.tensor(tokens, device=logits.device)
            logits = self.extend(list(self.llm.model.embed_tokens(chosen)[:, None]))


def _likeliest(logits: Tensor, ids: list[int]) -> int:
    return ids[int(logits[ids].argmax())] if len(ids) > 1 else ids[0]

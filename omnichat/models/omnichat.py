"""The whole model: frozen experts, Mix-Former, language model; from a packed batch to losses or replies.

Shapes: A clips (pieces of 30 s at most), S samples, N frames, W windows, K queries, T tokens, D width, E experts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from omnichat.audio import num_frames
from omnichat.batch import Example, PackedBatch, pack, to_device
from omnichat.models.encoders import Encoder
from omnichat.models.mixformer import MixFormer
from omnichat.models.packed import packed_hidden, with_last_layer
from omnichat.models.session import Form, Session
from omnichat.models.target_loss import target_losses
from omnichat.prompt import STYLE_TARGET


class Losses(NamedTuple):
    """Cross entropy *sums* over the targets of a batch, and what the gates did.

    Attributes:
        total: over all targets; the only one to be differentiated. Float32, as `style` and `content`.
        style: over the style's tokens.
        content: over the words and the end token.
        style_targets: how many tokens `style` sums.
        content_targets: how many tokens `content` sums.
        per_target: each target's cross entropy, in order, float32, without gradient.
        gates: (A, W, E), without gradient; of a clip only its first `window_counts` windows mean anything.
        norms: (A, W, E), of what the Q-Formers give; see `Mixed`.
        window_counts: (A,) windows of each clip, on the CPU.
    """

    total: Tensor
    style: Tensor
    content: Tensor
    style_targets: Tensor
    content_targets: Tensor
    per_target: Tensor
    gates: Tensor
    norms: Tensor
    window_counts: Tensor


class Heard(NamedTuple):
    """A batch as the language model gets it: embeddings (T, D), gates and norms (A, W, E), windows of each clip (A,) on
    the CPU.
    """

    embeds: Tensor
    gates: Tensor
    norms: Tensor
    window_counts: Tensor


@dataclass(frozen=True)
class Generated:
    """A generated reply.

    Attributes:
        ids: token ids, with the stop token if it was reached.
        guided: see `Decoded`.
        gates: float32 (W, E) of the last user turn; (0, E) where it was not heard.
    """

    ids: list[int]
    guided: bool
    gates: NDArray[np.float32]


class OmniChat(nn.Module):
    """Hears the user turns of packed dialogues and learns, or writes, the assistant's.

    Args:
        encoders: the frozen experts by name; empty where batches carry cached features.
        mixformer: has the same experts.
        llm: from `load_llm`, with or without LoRA.
        window: frames per window.
        queries: audio slots per window.
        compiled: whether training runs the language model's layers through torch.compile: fewer passes over memory.

    Raises:
        ValueError: encoders, window or queries differ from the Mix-Former's.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        mixformer: MixFormer,
        llm: LlamaForCausalLM,
        window: int,
        queries: int,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.expert_names = tuple(mixformer.widths)
        if encoders and set(encoders) != set(self.expert_names):
            raise ValueError(
                f"encoders {', '.join(encoders)} do not match the Mix-Former's {', '.join(self.expert_names)}"
            )
        made = (mixformer.window, mixformer.stride, mixformer.queries)
        if made != (window, window, queries):
            raise ValueError(
                f"the Mix-Former has window, stride, queries {made}, "
                f"the prompt counts slots by {(window, window, queries)}"
            )
        self.encoders = nn.ModuleDict(dict(encoders))
        self.mixformer = mixformer
        self.llm = with_last_layer(llm)
        self.window, self.queries, self.compiled = window, queries, compiled

    def forward(self, batch: PackedBatch) -> Losses:
        """The losses of a packed batch.

        Raises:
            ValueError: slots and windows differ in number; neither waves nor the right features are there.
        """
        heard = self.embed(batch)
        targets, lengths = batch.targets, (batch.positions, batch.starts, batch.max_length)
        # A target is predicted one position earlier. Targets never open a dialogue, so that is in the same dialogue.
        hidden = packed_hidden(self.llm, heard.embeds, *lengths, self.compiled, batch.shared, picked=targets - 1)
        losses = target_losses(self.llm, hidden, batch.labels[targets], self.compiled)
        style = batch.kinds[targets] == STYLE_TARGET
        return Losses(
            total=losses.sum(),
            style=losses.detach().masked_fill(~style, 0.0).sum(),
            content=losses.detach().masked_fill(style, 0.0).sum(),
            style_targets=style.sum(),
            content_targets=(~style).sum(),
            per_target=losses.detach().float(),
            gates=heard.gates.detach(),
            norms=heard.norms,
            window_counts=heard.window_counts,
        )

    def embed(self, batch: PackedBatch) -> Heard:
        """Token embeddings with what was heard in the audio slots.

        All that depends on lengths is worked out on the host, so that the CPU never waits for a GPU.

        Raises:
            ValueError: see `forward`.
        """
        frames = torch.tensor([num_frames(length) for length in batch.num_samples], dtype=torch.int64)
        counts = -(-frames // self.window)
        wanted = int(counts.sum()) * self.queries
        if wanted != len(batch.slots):
            raise ValueError(
                f"{len(batch.slots)} audio slots for {wanted} window embeddings (dialogues "
                f"{', '.join(batch.dialogue_ids[:3])}, ...): the prompt was made with another window or queries"
            )
        mixed, gates, norms = self.mixformer(self._features(batch), frames)
        own = (torch.arange(mixed.shape[1]) < counts[:, None]).flatten().nonzero()[:, 0]
        windows = mixed.flatten(0, 1).index_select(0, own.to(mixed.device, non_blocking=True))
        embeds = self.llm.model.embed_tokens(batch.ids)
        embeds = embeds.index_copy(0, batch.slots, windows.flatten(0, 1).to(embeds.dtype))
        return Heard(embeds, gates, norms, counts)

    @torch.no_grad()
    def generate(
        self,
        examples: Sequence[Example],
        max_new_tokens: int,
        stop_id: int,
        batch_size: int = 16,
        form: Form | None = None,
    ) -> list[Generated]:
        """The likeliest reply to each example (greedy), token by token the same in any batch up to rounding.

        Args:
            examples: rendered with `generation=True`: they end at the assistant's header.
            max_new_tokens: at least 1.
            stop_id: `Prompt.stop_id`.
            batch_size: dialogues decoded side by side; the longest first, so that a batch too large fails at once.
            form: see `Session.reply`.
        """
        order = sorted(range(len(examples)), key=lambda number: -len(examples[number].tokens.ids))
        replies: dict[int, Generated] = {}
        for first in range(0, len(order), batch_size):
            numbers = order[first : first + batch_size]
            chosen = [examples[number] for number in numbers]
            batch = to_device(pack(chosen), self.llm.device)
            heard = self.embed(batch)
            rows = heard.embeds.split(batch.starts.diff().tolist())
            written = Session(self.llm).reply(rows, max_new_tokens, stop_id, form)
            gates = self._last_turn_gates(chosen, heard)
            replies |= {n: Generated(*one, seen) for n, one, seen in zip(numbers, written, gates, strict=True)}
        return [replies[number] for number in range(len(examples))]

    def _last_turn_gates(self, examples: Sequence[Example], heard: Heard) -> list[NDArray[np.float32]]:
        own = torch.arange(heard.gates.shape[1]) < heard.window_counts[:, None]
        gates = heard.gates.float().cpu()[own]
        turns = [[slot.length // self.queries for slot in example.tokens.slots] for example in examples]
        dialogues = gates.split([sum(windows) for windows in turns])
        return [
            dialogue[len(dialogue) - (windows[-1] if windows else 0) :].numpy()
            for dialogue, windows in zip(dialogues, turns, strict=True)
        ]

    def _features(self, batch: PackedBatch) -> Mapping[str, tuple[Tensor, Tensor]]:
        if batch.features is not None:
            return {name: pad_frames(*frames) for name, frames in batch.features.items()}
        if len(batch.wave_lengths) == 0:  # nothing to hear: no rows, but still gradients (zeros) for every parameter
            none = batch.wave_lengths
            widths = self.mixformer.widths
            return {name: (torch.zeros(0, 0, width, device=none.device), none) for name, width in widths.items()}
        if not self.encoders or batch.waves is None:
            raise ValueError(
                "this model has no encoders and the batch no cached features; "
                "load the encoders, or read the batch from a feature store"
            )
        # `load_audio` refuses what is not finite: the encoders need not ask the device for it.
        waves, lengths = batch.waves, batch.num_samples
        return {name: cast(Encoder, encoder).encode(waves, lengths) for name, encoder in self.encoders.items()}


def pad_frames(frames: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(sum of N, D) frames of A clips end to end -> (A, N, D), zero at padding, and (A,) int64 counts."""
    lengths = torch.tensor(counts, dtype=torch.int64)
    size = max(counts)
    # Places are worked out on the host: a device would have to be waited for.
    places = (torch.arange(size) < lengths[:, None]).flatten().nonzero()[:, 0]
    padded = frames.new_zeros(len(counts) * size, frames.shape[1])
    padded.index_copy_(0, places.to(frames.device, non_blocking=True), frames)
    return padded.view(len(counts), size, -1), lengths.to(frames.device, non_blocking=True)

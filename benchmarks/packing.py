"""The language model on padded and packed dialogues, with the logits of all positions and of labels only."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaForCausalLM

from benchmarks.measure import Outcome, outcome, require_equal, time_arms, trainable_tensors
from benchmarks.plain_loop import plain_llm
from benchmarks.report import Ratio, Report
from benchmarks.workload import (
    Checkpoints,
    Sizes,
    describe,
    draw_dialogues,
    make_examples,
    make_prompt,
    write_checkpoints,
)
from omnichat.batch import PackedBatch, pack
from omnichat.models.llm import add_lora, load_llm
from omnichat.models.packed import packed_hidden, with_last_layer
from omnichat.models.target_loss import target_losses
from omnichat.prompt import IGNORE

PADDED_FULL, PADDED_LABELS = "padded, all logits", "padded, label logits"
PACKED_FULL, PACKED_LABELS = "packed, all logits", "packed, label logits"
LAST_LAYER, SHARED = "and last layer at labels", "and shared prefix"


class Padded:
    """transformers' own way: right padding, attention mask, SDPA."""

    def __init__(self, llm: PeftModel, batch: PackedBatch, embed: Callable[[], Tensor]) -> None:
        self.llm, self.embed = llm, embed
        self.lengths = lengths = batch.starts.diff().tolist()
        self.mask = pad_sequence([torch.ones(n, dtype=torch.int64) for n in lengths], batch_first=True)
        self.labels = pad_sequence(list(batch.labels.split(lengths)), batch_first=True, padding_value=IGNORE)

    def full(self) -> Tensor:
        """The loss that `LlamaForCausalLM` computes."""
        padded = pad_sequence(list(self.embed().split(self.lengths)), batch_first=True)
        output = self.llm(inputs_embeds=padded, attention_mask=self.mask, labels=self.labels, use_cache=False)
        loss: Tensor = output.loss
        return loss

    def at_labels(self) -> Tensor:
        """The same from the logits of the positions before a target."""
        padded = pad_sequence(list(self.embed().split(self.lengths)), batch_first=True)
        model = self.llm.get_base_model()
        assert isinstance(model, LlamaForCausalLM)
        hidden = model.model(inputs_embeds=padded, attention_mask=self.mask, use_cache=False).last_hidden_state
        targets = self.labels[:, 1:]
        return F.cross_entropy(model.lm_head(hidden[:, :-1][targets != IGNORE]), targets[targets != IGNORE])


class Packed:
    """The project's way: dialogues end to end, attention inside each."""

    def __init__(self, llm: LlamaForCausalLM, batch: PackedBatch, embed: Callable[[], Tensor]) -> None:
        self.llm, self.batch, self.embed = llm, batch, embed

    def full(self) -> Tensor:
        """Cross entropy of the logits of all positions."""
        labels = F.pad(self.batch.labels[1:], (0, 1), value=IGNORE)
        return F.cross_entropy(self.llm.lm_head(self._hidden()), labels)

    def at_labels(self) -> Tensor:
        """The project's loss, of hidden states of all positions."""
        targets = (self.batch.labels != IGNORE).nonzero()[:, 0]
        return target_losses(self.llm, self._hidden()[targets - 1], self.batch.labels[targets]).mean()

    def last_layer_at_labels(self) -> Tensor:
        """As training computes it; where the batch has a shared prefix, that is computed once."""
        targets = (self.batch.labels != IGNORE).nonzero()[:, 0]
        return target_losses(self.llm, self._hidden(targets - 1), self.batch.labels[targets]).mean()

    def _hidden(self, picked: Tensor | None = None) -> Tensor:
        batch, embeds = self.batch, self.embed()
        lengths = (batch.positions, batch.starts, batch.max_length)
        return packed_hidden(self.llm, embeds, *lengths, shared=batch.shared, picked=picked)


def make_arms(
    checkpoints: Checkpoints, sizes: Sizes, batch: PackedBatch
) -> dict[str, tuple[Callable[[], Tensor], dict[str, Tensor]]]:
    """The arms with equal weights: loss, and what gets gradients: LoRA, and what the Mix-Former gives."""
    torch.manual_seed(1)
    plain, ours = plain_llm(checkpoints, sizes), with_last_layer(load_llm(checkpoints.llama))
    add_lora(ours, sizes.lora_rank, sizes.lora_alpha)
    with torch.no_grad():
        for name, parameter in trainable_tensors(plain).items():
            if "lora_B" in name:  # zero at first, which would leave lora_A without gradients to compare
                nn.init.normal_(parameter, std=0.02)
            ours.get_parameter(name).copy_(parameter)
    words = ours.model.embed_tokens(batch.ids).detach()
    windows = words[batch.slots].requires_grad_()

    def embed() -> Tensor:
        return words.index_copy(0, batch.slots, windows)

    padded, shared = Padded(plain, batch, embed), Packed(ours, batch, embed)
    packed = Packed(ours, batch._replace(shared=None), embed)
    inputs = {"windows": windows}
    return {
        PADDED_FULL: (padded.full, trainable_tensors(plain) | inputs),
        PADDED_LABELS: (padded.at_labels, trainable_tensors(plain) | inputs),
        PACKED_FULL: (packed.full, trainable_tensors(ours) | inputs),
        PACKED_LABELS: (packed.at_labels, trainable_tensors(ours) | inputs),
        LAST_LAYER: (packed.last_layer_at_labels, trainable_tensors(ours) | inputs),
        SHARED: (shared.last_layer_at_labels, trainable_tensors(ours) | inputs),
    }


def shared_tokens(batch: PackedBatch) -> dict[str, float]:
    """What a shared prefix saves."""
    assert batch.shared is not None, "the dialogues have one system message"
    return {"tokens of the shared prefix": batch.shared.length, "tokens computed with it": len(batch.shared.kept)}


def run(repetitions: int, num_dialogues: int, sizes: Sizes) -> Report:
    """Compare them, forward and backward.

    Raises:
        NotEqualError: they compute different things.
    """
    with TemporaryDirectory(prefix="omnichat-bench-") as folder:
        checkpoints = write_checkpoints(Path(folder), sizes)
        examples = make_examples(make_prompt(checkpoints), draw_dialogues(num_dialogues))
        batch = pack(examples, share_prefix=True)
        arms = make_arms(checkpoints, sizes, batch)
        found: dict[str, Outcome] = {name: outcome(loss(), tensors) for name, (loss, tensors) in arms.items()}
        others = (PADDED_LABELS, PACKED_FULL, PACKED_LABELS, LAST_LAYER, SHARED)
        equal = [require_equal(name, found[name], PADDED_FULL, found[PADDED_FULL]) for name in others]

        def backward(name: str) -> Callable[[], object]:
            loss, tensors = arms[name]
            return lambda: torch.autograd.grad(loss(), list(tensors.values()))

        timings = time_arms({name: backward(name) for name in arms}, repetitions)
    return Report(
        title="language model with LoRA: forward, backward",
        workload=describe(examples) | shared_tokens(batch),
        equal=equal,
        other=[],
        timings=timings,
        ratios=[
            Ratio(PACKED_FULL, PACKED_LABELS, 1.3),
            Ratio(PADDED_FULL, PACKED_LABELS, 1.5),
            Ratio(PADDED_FULL, PADDED_LABELS),
            Ratio(PADDED_LABELS, PACKED_LABELS),
            Ratio(PADDED_FULL, PACKED_FULL),
            Ratio(PACKED_LABELS, LAST_LAYER),
            Ratio(LAST_LAYER, SHARED, 1.03),
        ],
    )

"""What the arms train on: steps of dialogues with ShareChatX's lengths, as waves, cached features and padded rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks.rows import Rows, pad_rows
from benchmarks.workload import WORDS, draw_dialogues, make_examples, system_prompt
from omnichat.audio import PIECE
from omnichat.batch import Example, PackedBatch, SharedPrefix, pack, to_device
from omnichat.models.encoders import Encoder
from omnichat.models.encoders.log_mel import log_mel
from omnichat.models.tiny import default_texts, write_tokenizer
from omnichat.prompt import Prompt


class PaddedBatch(NamedTuple):
    """A micro-batch of B dialogues of up to T tokens, A clips.

    Attributes:
        ids, mask, labels, audio: (B, T), as in `Rows`.
        mel: (A, mels, 3000), each clip padded to 30 s; data workers make it, so it is not timed.
        waves: (A, S).
        lengths: (A,) samples.
        num_samples: the same on the host.
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor
    audio: Tensor
    mel: Tensor
    waves: Tensor
    lengths: Tensor
    num_samples: tuple[int, ...]

    @property
    def rows(self) -> Rows:
        """The padded tokens."""
        return Rows(self.ids, self.mask, self.labels, self.audio)


Batch = TypeVar("Batch", PackedBatch, PaddedBatch)


@dataclass(frozen=True)
class Step:
    """One step's dialogues in the forms that the arms take; on the host, pinned where there is a GPU."""

    examples: Sequence[Example]
    live: PackedBatch


def make_steps(count: int, dialogues: int, device: torch.device) -> list[Step]:
    """Steps of as many dialogues; all differ, so that no arm sees the same shapes twice in a row."""
    with TemporaryDirectory(prefix="omnichat-bench-") as folder:
        texts = [*default_texts(), system_prompt(), *(f" {word}" for word in WORDS)] * 2
        write_tokenizer(Path(folder), texts, 600)
        tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    prompt = Prompt(tokenizer, system=system_prompt())
    steps = []
    for seed in range(count):
        examples = make_examples(prompt, draw_dialogues(dialogues, seed), seed)
        steps.append(Step(examples, pinned(pack(examples), device)))
    return steps


def with_features(step: Step, encoders: Mapping[str, Encoder], device: torch.device) -> list[Example]:
    """The step's examples with frames in bfloat16 in place of waves, as the feature store gives them."""
    batch = step.live
    assert batch.waves is not None
    waves = batch.waves.to(device)
    frames = {name: encoder.encode(waves, batch.num_samples)[0].cpu() for name, encoder in encoders.items()}
    cached, first = [], 0
    for example in step.examples:
        features = []
        for row, wave in enumerate(example.waves, first):
            counts = {name: encoder.num_frames(len(wave)) for name, encoder in encoders.items()}
            bits = {name: frames[name][row, :count].view(torch.uint16).numpy() for name, count in counts.items()}
            features.append(bits)
        first += len(example.waves)
        cached.append(Example(example.tokens, (), tuple(features), example.dialogue_id))
    return cached


def padded(examples: Sequence[Example], mels: int, device: torch.device, windows: int | None = None) -> PaddedBatch:
    """Rows padded to the longest dialogue; with `windows`, every clip has that many slots whatever its length."""
    waves = [torch.from_numpy(wave) for example in examples for wave in example.waves]
    lengths = torch.tensor([len(wave) for wave in waves])
    return pinned(
        PaddedBatch(
            *pad_rows(examples, windows),
            mel=_mel(waves, mels, device),
            waves=pad_sequence(waves, batch_first=True),
            lengths=lengths,
            num_samples=tuple(lengths.tolist()),
        ),
        device,
    )


def _mel(waves: Sequence[Tensor], mels: int, device: torch.device) -> Tensor:
    """(A, mels, 3000) in bfloat16, each clip padded with silence to 30 s."""
    found = []
    for wave in waves:
        row = torch.zeros(1, PIECE)
        row[0, : len(wave)] = wave
        mel, _ = log_mel(row.to(device), torch.tensor([PIECE], device=device), mels)
        found.append(mel.bfloat16().cpu())
    return torch.cat(found)


def pinned(batch: Batch, device: torch.device) -> Batch:
    """The batch in pinned memory, from which copies to a GPU need not wait."""
    if device.type != "cuda":
        return batch

    def pin(value: object) -> object:
        if isinstance(value, Tensor):
            return value.pin_memory()
        if isinstance(value, dict):
            return {name: (pin(frames), counts) for name, (frames, counts) in value.items()}
        return SharedPrefix(*map(pin, value)) if isinstance(value, SharedPrefix) else value

    return type(batch)(*map(pin, batch))


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on the device."""
    if isinstance(batch, PackedBatch):
        return to_device(batch, device)
    return PaddedBatch(*(v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for v in batch))


def seconds_heard(step: Step) -> float:
    """Seconds of audio in a step."""
    return sum(step.live.num_samples) / 16_000

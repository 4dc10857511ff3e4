"""Stage 1: a trained run answers held-out dialogues."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch

from omnichat import build
from omnichat.batch import Example
from omnichat.chat import LoadedRun
from omnichat.checkpoint import tensors_sha256, trainable
from omnichat.data.dataset import make_example
from omnichat.data.store import Store
from omnichat.dialogue import STYLE_FIELDS, Reply
from omnichat.evaluation.answering import Asked, Written, answer_stores, make_work
from omnichat.evaluation.turns import Work
from omnichat.models.omnichat import Generated, OmniChat
from omnichat.prompt import Tokens

CHECKED = 8  # replies of a batch in half precision that are made singly too, to see how many stay the same


def generate(run: LoadedRun, splits: Mapping[str, Path], run_dir: Path | str, limit: int | None = None) -> None:
    """Answer every dialogue of the splits into `replies.jsonl`, greedily; see `answer_stores`.

    Args:
        run: the model; its `config.evaluation` gives batch size and longest reply.
        splits: the store of each split by name.
        run_dir: where `replies.jsonl` and `generation.json` go.
        limit: dialogues per split; None for all.

    Raises:
        DataError: a store that cannot be read, or a replies file that is damaged other than at its end.
    """
    answer_stores(RunAnswerer(run), splits, run_dir, limit)


class RunAnswerer:
    """A trained run, as `answer_stores` asks it."""

    def __init__(self, run: LoadedRun) -> None:
        settings = run.config.evaluation
        self.run, self.turns, self.batch_size = run, settings.turns, settings.batch_size
        self.model = model_hash(run)
        self._unlimited = copy(run.prompt)
        self._unlimited.max_tokens = None
        self._one_by_one: dict[str, int] | None = None

    def about(self) -> dict[str, Any]:
        """See `Answerer`."""
        return {
            "step": self.run.step,
            "parameters": count_parameters(self.run.model),
            "decoding": _decoding(self.run),
            "one_by_one": self._one_by_one,
        }

    def read(self, name: str, store: Path) -> tuple[list[Work], int]:
        """See `Answerer`; what is over the run's limit is shortened, left out or a failure, as its config says."""
        dataset = build.eval_dialogues(self.run.config, self.run.prompt, store, keep_overlong=True)
        found = []
        for number in range(len(dataset)):
            place = dataset.store.place(int(dataset.rows[number]))
            found.append(make_work(dataset.dialogue(number), place, self.turns, int(dataset.first_turns[number])))
        return found, len(Store(store))

    def prompt_hash(self, asked: Asked) -> str:
        """See `Answerer`."""
        return prompt_hash(self._unlimited.render(asked.dialogue, generation=True))

    def write(self, batch: Sequence[Asked]) -> list[Written]:
        """See `Answerer`; in half precision the first batch is answered one by one too, and what differs counted."""
        run = self.run
        examples = [
            make_example(
                asked.dialogue,
                run.prompt,
                None,
                True,
                place=asked.work.store_place,
                first_turn=asked.work.first_turn,
            )
            for asked in batch
        ]
        generated = self._generate(examples, self.batch_size)
        if not self._one_by_one and len(batch) > 1 and run.model.llm.dtype != torch.float32:
            self._one_by_one = self._count_same(examples[:CHECKED], generated)
        return [Written(run.prompt.decode(one.ids), self._gates(one), guided=one.guided) for one in generated]

    def parse(self, raw: str) -> Reply:
        """See `Answerer`."""
        return self.run.prompt.parse(raw)

    def _generate(self, examples: Sequence[Example], batch_size: int) -> list[Generated]:
        run = self.run
        longest = run.config.evaluation.max_new_tokens
        return run.model.generate(examples, longest, run.prompt.stop_id, batch_size, run.form)

    def _count_same(self, examples: Sequence[Example], batched: Sequence[Generated]) -> dict[str, int]:
        """How many replies of a batch are the same, token by token, made singly: in half precision not all need be."""
        alone = self._generate(examples, 1)
        same = sum(list(one.ids) == list(other.ids) for one, other in zip(alone, batched, strict=False))
        print(f"{len(alone)} replies made singly too, in {self.run.model.llm.dtype}: {same} are the same", flush=True)
        return {"replies": len(alone), "same": same}

    def _gates(self, generated: Generated) -> dict[str, float]:
        if not len(generated.gates):
            return {}
        means = generated.gates.mean(axis=0).tolist()
        return {name: round(gate, 4) for name, gate in zip(self.run.model.expert_names, means, strict=True)}


def model_hash(run: LoadedRun) -> str:
    """A short hash of what a reply depends on besides its prompt: the trained weights and the decoding settings."""
    weights = tensors_sha256({name: tensor.data for name, tensor in trainable(run.model).items()})
    settings = json.dumps([weights, {**_decoding(run), "batch_size": None}])
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def prompt_hash(tokens: Tokens) -> str:
    """A short hash of the token ids and of the audio that the model is given: its length, and what is known of it."""
    digest = hashlib.sha256(tokens.ids.tobytes())
    heard = [(slot.start, slot.audio.num_samples, slot.audio.sha256) for slot in tokens.slots]
    digest.update(str(heard).encode())
    return digest.hexdigest()[:16]


def count_parameters(model: OmniChat) -> dict[str, dict[str, int]]:
    """How many weights each part has, and of these how many are trained; LoRA is a part of its own."""
    total: Counter[str] = Counter()
    trained: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        part = "lora" if "lora_" in name else ".".join(name.split(".")[: 2 if name.startswith("encoders.") else 1])
        total[part] += parameter.numel()
        trained[part] += parameter.numel() if parameter.requires_grad else 0
    return {part: {"total": count, "trained": trained[part]} for part, count in total.items()}


def _decoding(run: LoadedRun) -> dict[str, Any]:
    settings = run.config.evaluation
    never = [name for name in STYLE_FIELDS if name not in run.style_fields]
    return {
        "method": "greedy",
        "style": "kept in form",  # see Prompt.allowed
        **({"forced_unknown": ", ".join(never)} if never else {}),  # the training data knew them in no dialogue
        "max_new_tokens": settings.max_new_tokens,
        "batch_size": settings.batch_size,
        "dtype": str(run.model.llm.dtype).removeprefix("torch."),
        "device": run.model.llm.device.type,
    }

"""Stage 1: a trained run answers held-out dialogues. Replies are appended as they come, so a kill loses one batch."""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from omnichat import build
from omnichat.batch import Example
from omnichat.chat import LoadedRun
from omnichat.checkpoint import tensors_sha256, trainable
from omnichat.data.store import Store
from omnichat.dialogue import STYLE_FIELDS, Dialogue, Reply
from omnichat.evaluation.replies import (
    GENERATION,
    REPLIES,
    Answer,
    answer_to_json,
    mend,
    read_generation,
    replace_file,
    write_answers,
)
from omnichat.models.omnichat import Generated, OmniChat

Pairs = list[tuple[Dialogue, Example]]


def generate(run: LoadedRun, splits: Mapping[str, Path], run_dir: Path | str, limit: int | None = None) -> None:
    """Answer every dialogue of the splits into `replies.jsonl`, greedily; replies that are there already are kept.

    A reply is there if the same weights and settings made it from the same prompt, for the same reference; others
    are dropped, and counted in a message.

    Args:
        run: the model; its `config.evaluation` gives batch size and longest reply.
        splits: the store of each split by name.
        run_dir: where `replies.jsonl` and `generation.json` go.
        limit: dialogues per split; None for all.

    Raises:
        DataError: a store that cannot be read, or a replies file that is damaged other than at its end.
    """
    run_dir = Path(run_dir)
    path, model = run_dir / REPLIES, model_hash(run)
    found = mend(path)
    records = read_generation(run_dir)["splits"] if read_generation(run_dir).get("model") == model else {}
    kept = [answer for answer in found if answer.model == model and answer.split in set(records) - set(splits)]
    work: dict[str, Pairs] = {}
    for split, store in splits.items():
        dialogues, examples = build.eval_examples(run.config, run.prompt, store, limit=limit)
        work[split] = list(zip(dialogues, examples, strict=True))
        there = {answer.id: answer for answer in found if answer.model == model and answer.split == split}
        done = [there[d.id] for d, e in work[split] if d.id in there and _answers_to(there[d.id], d, e)]
        kept += done
        work[split] = [(d, e) for d, e in work[split] if d.id not in {answer.id for answer in done}]
        records[split] = {"store": str(store), "replies": len(dialogues), "of": len(Store(store)), "limit": limit}
        print(f"{split}: {len(work[split])} of {len(dialogues)} dialogues to answer", flush=True)
    if dropped := len(found) - len(kept):
        print(f"{path}: {dropped} replies of other weights, settings or dialogues are dropped", flush=True)
        write_answers(path, kept)
    about = {"model": model, "step": run.step, "parameters": count_parameters(run.model), "decoding": _decoding(run)}
    replace_file(run_dir / GENERATION, (json.dumps(about | {"splits": records}, indent=2) + "\n").encode())
    with path.open("a", encoding="utf-8") as out:
        for split, pairs in work.items():
            for answer in _answer_all(run, split, pairs, model):
                out.write(answer_to_json(answer) + "\n")
                out.flush()


def model_hash(run: LoadedRun) -> str:
    """A short hash of what a reply depends on besides its prompt: the trained weights and the decoding settings."""
    weights = tensors_sha256({name: tensor.data for name, tensor in trainable(run.model).items()})
    settings = json.dumps([weights, {**_decoding(run), "batch_size": None}])
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def prompt_hash(example: Example) -> str:
    """A short hash of the token ids and of the audio that an example gives the model: its length, and what is known."""
    digest = hashlib.sha256(example.tokens.ids.tobytes())
    heard = [(slot.start, slot.audio.num_samples, slot.audio.sha256) for slot in example.tokens.slots]
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
        **({"forced_unknown": ", ".join(never)} if never else {}),  # the training data knew them in no dialogue
        "max_new_tokens": settings.max_new_tokens,
        "batch_size": settings.batch_size,
        "dtype": str(run.model.llm.dtype).removeprefix("torch."),
        "device": run.model.llm.device.type,
    }


def _answers_to(answer: Answer, dialogue: Dialogue, example: Example) -> bool:
    same_text = answer.reference == _reference(dialogue) and dict(answer.scene) == dict(dialogue.scene)
    return same_text and answer.prompt == prompt_hash(example)


def _reference(dialogue: Dialogue) -> Reply:
    return Reply(dialogue.turns[-1].style, dialogue.turns[-1].text)


def _answer_all(run: LoadedRun, split: str, pairs: Pairs, model: str) -> Iterator[Answer]:
    settings = run.config.evaluation
    with _progress(split, len(pairs)) as advance:
        for first in range(0, len(pairs), settings.batch_size):
            batch = pairs[first : first + settings.batch_size]
            started = perf_counter()
            examples = [example for _, example in batch]
            written = run.model.generate(
                examples, settings.max_new_tokens, run.prompt.stop_id, settings.batch_size, run.forced
            )
            seconds = (perf_counter() - started) / len(batch)
            for (dialogue, example), generated in zip(batch, written, strict=True):
                yield _answer(run, split, dialogue, example, generated, seconds, model)
            advance(len(batch))


def _answer(
    run: LoadedRun, split: str, dialogue: Dialogue, example: Example, generated: Generated, seconds: float, model: str
) -> Answer:
    raw = run.prompt.decode(generated.ids)
    gates: dict[str, float] = {}
    if len(generated.gates):
        means = generated.gates.mean(axis=0).tolist()
        gates = {name: round(gate, 4) for name, gate in zip(run.model.expert_names, means, strict=True)}
    return Answer(
        id=dialogue.id,
        split=split,
        scene=dialogue.scene,
        history=dialogue.turns[:-1],
        reference=_reference(dialogue),
        reply=run.prompt.parse(raw),
        raw=raw,
        gates=gates,
        seconds=round(seconds, 4),
        model=model,
        prompt=prompt_hash(example),
    )


class _Lines:
    """Progress where there is no terminal: a line for each tenth."""

    def __init__(self, split: str, total: int) -> None:
        self.split, self.total, self.done = split, total, 0

    def advance(self, count: int) -> None:
        tenth, self.done = self.done * 10 // self.total, self.done + count
        if self.done * 10 // self.total > tenth:
            print(f"{self.split}: {self.done}/{self.total} answered", file=sys.stderr, flush=True)


@contextmanager
def _progress(split: str, total: int) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(split, total).advance
        return
    columns = (TextColumn(split), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(split, total=total)
        yield lambda count: bar.update(task, advance=count)

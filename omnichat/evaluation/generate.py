"""Stage 1: a trained model answers held-out dialogues; replies are appended as they come, so that a kill loses little."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from omnichat import build
from omnichat.batch import Example
from omnichat.chat import LoadedRun
from omnichat.checkpoint import tensors_sha256, trainable
from omnichat.data.store import Store
from omnichat.dialogue import Dialogue, Reply
from omnichat.evaluation.replies import (
    GENERATION,
    REPLIES,
    Answer,
    answer_to_json,
    mend,
    replace_file,
    write_answers,
)
from omnichat.models.omnichat import Generated
from omnichat.prompt import Prompt


def generate(run: LoadedRun, splits: Mapping[str, Path], run_dir: Path | str, limit: int | None = None) -> None:
    """Answer every dialogue of the splits into `replies.jsonl`; replies that are there already are kept.

    A reply is there if the same weights and settings made it from the same prompt, for the same reference; others
    are dropped, which is said. Greedy; batch and length as `config.evaluation` says.

    Args:
        run: the model.
        splits: JSONL of each split by name.
        run_dir: where `replies.jsonl` and `generation.json` go.
        limit: dialogues per split; None for all.

    Raises:
        DataError: a store that cannot be read, or a replies file that is damaged other than at its end.
    """
    run_dir = Path(run_dir)
    path = run_dir / REPLIES
    model = model_hash(run)
    kept = [answer for answer in mend(path) if answer.model == model]
    records = {name: record for name, record in _records(run_dir, model).items() if name not in splits}
    others = [answer for answer in kept if answer.split in records]
    work = []
    for split, store in splits.items():
        dialogues, examples = build.eval_examples(run.config, run.prompt, store, limit=limit)
        there = {answer.id: answer for answer in kept if answer.split == split}
        pairs = list(zip(dialogues, examples, strict=True))
        done = [there[d.id] for d, e in pairs if d.id in there and _is_answer_to(there[d.id], d, e)]
        others += done
        ready = {answer.id for answer in done}
        work.append((split, [(d, e) for d, e in pairs if d.id not in ready]))
        total = len(Store(store))
        records[split] = {"store": str(store), "replies": len(dialogues), "dialogues": total, "limit": limit}
        if ready:
            print(f"{split}: {len(ready)} of {len(dialogues)} replies are there already", flush=True)
    if dropped := _count_lines(path) - len(others):
        print(f"{path}: {dropped} replies of other weights, settings or dialogues are dropped", flush=True)
        write_answers(path, others)
    replace_file(run_dir / GENERATION, (json.dumps(_description(run, model, records), indent=2) + "\n").encode())
    with path.open("a", encoding="utf-8") as out:
        for split, pairs in work:
            for answer in _answers(run, split, pairs, model):
                out.write(answer_to_json(answer) + "\n")
                out.flush()


def read_generation(run_dir: Path | str) -> dict[str, Any]:
    """What `generation.json` says; empty where it is not there or unreadable."""
    try:
        found = json.loads((Path(run_dir) / GENERATION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def model_hash(run: LoadedRun) -> str:
    """A short hash of what a reply depends on besides its prompt: the trained weights and the decoding settings."""
    weights = tensors_sha256({name: tensor.data for name, tensor in trainable(run.model).items()})
    settings = f"{weights} {run.config.evaluation.max_new_tokens} {next(run.model.parameters()).dtype}"
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def prompt_hash(example: Example) -> str:
    """A short hash of the token ids and audio lengths of an example."""
    digest = hashlib.sha256(example.tokens.ids.tobytes())
    digest.update(str([(slot.start, slot.audio.num_samples) for slot in example.tokens.slots]).encode())
    return digest.hexdigest()[:16]


def _answers(
    run: LoadedRun, split: str, pairs: Sequence[tuple[Dialogue, Example]], model: str
) -> "list[Answer] | _Answering":
    return _Answering(run, split, pairs, model) if pairs else []

"""Stage 1: a trained run answers held-out dialogues. Replies are appended as they come, so a kill loses one batch."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from omnichat import build
from omnichat.batch import Example
from omnichat.chat import LoadedRun
from omnichat.checkpoint import tensors_sha256, trainable
from omnichat.data.dataset import StoreDataset, make_example
from omnichat.data.store import Store
from omnichat.dialogue import STYLE_FIELDS, Dialogue, Reply
from omnichat.evaluation.progress import progress
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
from omnichat.evaluation.turns import Turns, Work, answered_places, rounds, set_name
from omnichat.models.omnichat import Generated, OmniChat
from omnichat.prompt import Tokens

CHECKED = 8  # replies of a batch in half precision that are made singly too, to see how many stay the same


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
    turns = run.config.evaluation.turns
    path, model = run_dir / REPLIES, model_hash(run)
    found = mend(path)
    earlier = read_generation(run_dir)
    earlier = earlier if earlier.get("model") == model else {}
    records = dict(earlier.get("splits", {}))
    names = {split: set_name(split, turns) for split in splits}
    kept = [answer for answer in found if answer.model == model and answer.split in set(records) - set(names.values())]
    work: dict[str, list[Work]] = {}
    for split, store in splits.items():
        name = names[split]
        everything = _read_work(build.eval_dialogues(run.config, run.prompt, store), turns)
        work[name] = everything[:limit]
        there = {answer.key: answer for answer in found if answer.model == model and answer.split == name}
        done = [answer for one in work[name] for answer in _still_right(run, one, there)]
        kept += done
        count, of = _count(work[name]), len(Store(store)) if turns == "last" else _count(everything)
        records[name] = {"store": str(store), "replies": count, "of": of, "limit": limit, "turns": turns}
        what = "dialogues" if turns == "last" else "turns"
        print(f"{name}: {count - len(done)} of {count} {what} to answer", flush=True)
    if dropped := len(found) - len(kept):
        print(f"{path}: {dropped} replies of other weights, settings or dialogues are dropped", flush=True)
        write_answers(path, kept)
    about = {"model": model, "step": run.step, "parameters": count_parameters(run.model), "decoding": _decoding(run)}
    about |= {"one_by_one": earlier.get("one_by_one")}

    def describe() -> None:
        replace_file(run_dir / GENERATION, (json.dumps(about | {"splits": records}, indent=2) + "\n").encode())

    describe()
    with path.open("a", encoding="utf-8") as out:
        for name, pieces in work.items():
            for answer in _answer_all(run, name, pieces, model, about):
                out.write(answer_to_json(answer) + "\n")
                out.flush()
    describe()


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
        **({"forced_unknown": ", ".join(never)} if never else {}),  # the training data knew them in no dialogue
        "max_new_tokens": settings.max_new_tokens,
        "batch_size": settings.batch_size,
        "dtype": str(run.model.llm.dtype).removeprefix("torch."),
        "device": run.model.llm.device.type,
    }


def _read_work(dataset: StoreDataset, turns: Turns) -> list[Work]:
    found = []
    for number in range(len(dataset)):
        dialogue, place = dataset.dialogue(number), dataset.store.place(int(dataset.rows[number]))
        found.append(Work(dialogue, place, int(dataset.first_turns[number]), answered_places(dialogue, turns)))
    return found


def _count(work: Sequence[Work]) -> int:
    return sum(len(one.places) for one in work)


def _still_right(run: LoadedRun, work: Work, there: Mapping[tuple[str, int], Answer]) -> list[Answer]:
    """The replies to a dialogue that are there and would come out the same; they are entered into the work."""
    turns, kept = run.config.evaluation.turns, []
    for place in work.places:
        answer = there.get((work.dialogue.id, place))
        if answer is not None:
            dialogue = work.upto(place, turns)
            same = answer.reference == _reference(dialogue) and dict(answer.scene) == dict(dialogue.scene)
            if same and answer.prompt == prompt_hash(run.prompt.render(dialogue, generation=True)):
                kept.append(answer)
                work.replies[place] = answer.reply
        if turns == "own_history" and place not in work.replies:
            break  # what follows answers a history that is not there yet
    return kept


def _reference(dialogue: Dialogue) -> Reply:
    return Reply(dialogue.turns[-1].style, dialogue.turns[-1].text)


def _answer_all(run: LoadedRun, split: str, work: list[Work], model: str, about: dict[str, Any]) -> Iterator[Answer]:
    settings = run.config.evaluation
    with progress(split, _count(work) - sum(len(one.replies) for one in work)) as advance:
        for side_by_side in rounds(work, settings.turns):
            tasks = [(one, place) for one, place in side_by_side if place not in one.replies]
            for first in range(0, len(tasks), settings.batch_size):
                batch = tasks[first : first + settings.batch_size]
                dialogues = [one.upto(place, settings.turns) for one, place in batch]
                examples = [
                    make_example(dialogue, run.prompt, None, True, place=one.store_place, first_turn=one.first_turn)
                    for dialogue, (one, _) in zip(dialogues, batch, strict=True)
                ]
                started = perf_counter()
                written = _generate(run, examples, settings.batch_size)
                seconds = (perf_counter() - started) / len(batch)
                if not about["one_by_one"] and len(batch) > 1 and run.model.llm.dtype != torch.float32:
                    about["one_by_one"] = _one_by_one(run, examples[:CHECKED], written)
                for (one, place), dialogue, example, generated in zip(batch, dialogues, examples, written, strict=True):
                    answer = _answer(run, split, dialogue, example, generated, seconds, model)
                    one.replies[place] = answer.reply
                    yield answer
                advance(len(batch))


def _generate(run: LoadedRun, examples: Sequence[Example], batch_size: int) -> list[Generated]:
    return run.model.generate(
        examples, run.config.evaluation.max_new_tokens, run.prompt.stop_id, batch_size, run.forced
    )


def _one_by_one(run: LoadedRun, examples: Sequence[Example], batched: Sequence[Generated]) -> dict[str, int]:
    """How many replies of a batch are the same, token by token, made singly: in half precision not all need be."""
    alone = _generate(run, examples, 1)
    same = sum(list(one.ids) == list(other.ids) for one, other in zip(alone, batched, strict=False))
    print(f"{len(alone)} replies made singly too, in {run.model.llm.dtype}: {same} are the same", flush=True)
    return {"replies": len(alone), "same": same}


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
        prompt=prompt_hash(example.tokens),
    )

"""Any model's replies to held-out dialogues, appended as they come, so a kill loses one batch."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from omnichat.dialogue import DataError, Dialogue, Reply
from omnichat.evaluation.progress import progress
from omnichat.evaluation.replies import (
    Answer,
    answer_to_json,
    appending,
    asked_ids,
    mend,
    read_generation,
    replace_file,
    write_answers,
    writing_alone,
)
from omnichat.evaluation.turns import Turns, Work, answered_places, rounds, set_name
from omnichat.run_folder import GENERATION, REPLIES


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote.

    Attributes:
        raw: its text as it came.
        gates: see `Answer`.
        failure: why it was not asked; see `Answer`.
        guided: see `Answer`.
    """

    raw: str
    gates: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""
    guided: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A dialogue that ends in the turn to be answered, and where it comes from."""

    dialogue: Dialogue
    work: Work


class Answerer(Protocol):
    """What answers dialogues.

    Attributes:
        turns: which of them.
        batch_size: how many are answered side by side.
        model: hash of all that a reply depends on besides what it is an answer to.
    """

    turns: Turns
    batch_size: int
    model: str

    def about(self) -> dict[str, Any]:
        """What `generation.json` says of the model: `step`, `parameters`, `decoding`; called again at the end."""

    def read(self, name: str, store: Path) -> tuple[list[Work], int]:
        """The dialogues of a store as they can be shown to the model, and how many the store holds.

        Raises:
            DataError: every fault of the store at once.
        """

    def prompt_hash(self, asked: Asked) -> str:
        """Of what the model is given, however long that is."""

    def write(self, batch: Sequence[Asked]) -> list[Written]:
        """A reply to each.

        Raises:
            DataError: `too_long` where one does not fit into the model's context, before any is answered.
        """

    def parse(self, raw: str) -> Reply:
        """A reply with its style, as scores take it."""


def answer_stores(
    answerer: Answerer,
    splits: Mapping[str, Path],
    run_dir: Path | str,
    limit: int | None = None,
    prepare: Callable[[], None] = lambda: None,
) -> None:
    """Answer every dialogue of the splits into `replies.jsonl`; replies that are there already are kept.

    A reply is there if the same weights and settings made it from the same prompt, for the same reference; others
    are dropped, and counted in a message. A turn whose dialogue does not fit into the model's context gets no reply but
    a failure (see `Answer`); with the model's own history, so do the turns after it.

    Args:
        answerer: the model.
        splits: the store of each split by name.
        run_dir: where `replies.jsonl` and `generation.json` go.
        limit: dialogues per split; None for all.
        prepare: called once no other process writes into the folder, before this one does.

    Raises:
        DataError: a store that cannot be read, or a replies file that is damaged other than at its end; `in_use`.
        OSError: the folder cannot be written to.
    """
    with writing_alone(Path(run_dir)):
        prepare()
        _answer_stores(answerer, splits, Path(run_dir), limit)


def _answer_stores(answerer: Answerer, splits: Mapping[str, Path], run_dir: Path, limit: int | None) -> None:
    turns, model, path = answerer.turns, answerer.model, run_dir / REPLIES
    found = mend(path)
    earlier = read_generation(run_dir)
    earlier = earlier if earlier.get("model") == model else {}
    records = dict(earlier.get("splits", {}))
    names = {split: set_name(split, turns) for split in splits}
    kept = [answer for answer in found if answer.model == model and answer.split in set(records) - set(names.values())]
    work: dict[str, list[Work]] = {}
    for split, store in splits.items():
        name = names[split]
        everything, held = answerer.read(name, store)
        there = {answer.key: answer for answer in found if answer.model == model and answer.split == name}
        right = [(one, _still_right(answerer, one, there)) for one in everything]
        # A smaller limit than before asks for no more replies, and throws none away.
        chosen = [pair for number, pair in enumerate(right) if limit is None or number < limit or _is_done(pair[0])]
        work[name], done = [one for one, _ in chosen], [answer for _, answers in chosen for answer in answers]
        kept += done
        left_out, count = held - len(everything), _count(work[name])
        if left_out:
            print(
                f"{name}: {left_out} of {held} dialogues are too long and left out, as the run's config says",
                flush=True,
            )
        if not count:
            message = (
                f"none of its {held} dialogues has a turn that can be asked for; name another store, or turns=last"
            )
            raise DataError("nothing_to_answer", message, str(store))
        of = held if turns == "last" else _count(everything) + left_out
        ids = asked_ids((one.dialogue.id, place) for one in work[name] for place in one.places)
        limited = None if len(chosen) == len(everything) else limit
        records[name] = {"store": str(store), "replies": count, "of": of, "limit": limited, "turns": turns, "ids": ids}
        what = "dialogues" if turns == "last" else "turns"
        print(f"{name}: {count - len(done)} of {count} {what} to answer", flush=True)
    if dropped := len(found) - len(kept):
        print(f"{path}: {dropped} replies of other weights, settings or dialogues are dropped", flush=True)
        write_answers(path, kept)

    def describe() -> None:
        about = {"model": model, **answerer.about()}
        about |= {key: value for key, value in earlier.items() if about.get(key) is None}
        replace_file(run_dir / GENERATION, (json.dumps(about | {"splits": records}, indent=2) + "\n").encode())

    describe()
    with appending(path) as add:
        for name, pieces in work.items():
            failed = []
            for answer in _answer_all(answerer, name, pieces):
                add(answer_to_json(answer))
                failed += [answer] if answer.failure else []
            _print_failures(name, failed)
    describe()


def make_work(dialogue: Dialogue, store_place: str, turns: Turns, first_turn: int = 0) -> Work:
    """A dialogue with the turns of it that are to be answered; see `Work`."""
    return Work(dialogue, store_place, first_turn, answered_places(dialogue, turns))


def short_hash(values: Any) -> str:
    """Of values that JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _is_done(work: Work) -> bool:
    return bool(work.places) and work.replies.keys() == set(work.places)


def _count(work: Sequence[Work]) -> int:
    return sum(len(one.places) for one in work)


def _reference(dialogue: Dialogue) -> Reply:
    return Reply(dialogue.turns[-1].style, dialogue.turns[-1].text)


def _still_right(answerer: Answerer, work: Work, there: Mapping[tuple[str, int], Answer]) -> list[Answer]:
    """The replies to a dialogue that are there and would come out the same; they are entered into the work."""
    kept = []
    for place in work.places:
        answer = there.get((work.dialogue.id, place))
        if answer is not None:
            dialogue = work.upto(place, answerer.turns)
            same = answer.reference == _reference(dialogue) and dict(answer.scene) == dict(dialogue.scene)
            if same and answer.prompt == answerer.prompt_hash(Asked(dialogue, work)):
                kept.append(answer)
                work.replies[place] = answer.reply
        if answerer.turns == "own_history" and place not in work.replies:
            break  # what follows answers a history that is not there yet
    return kept


def _answer_all(answerer: Answerer, split: str, work: list[Work]) -> Iterator[Answer]:
    turns, size = answerer.turns, answerer.batch_size
    with progress(split, _count(work) - sum(len(one.replies) for one in work)) as advance:
        for side_by_side in rounds(work, turns):
            tasks = [(one, place) for one, place in side_by_side if place not in one.replies]
            for first in range(0, len(tasks), size):
                batch = tasks[first : first + size]
                asked = [Asked(one.upto(place, turns), one) for one, place in batch]
                started = perf_counter()
                written = _write(answerer, asked)
                seconds = (perf_counter() - started) / len(batch)
                for (one, place), question, words in zip(batch, asked, written, strict=True):
                    answer = _answer(answerer, split, question, words, seconds)
                    one.replies[place] = answer.reply
                    yield answer
                advance(len(batch))


def _write(answerer: Answerer, asked: Sequence[Asked]) -> list[Written]:
    """A reply to each, or a failure where the dialogue leaves no room for one in the model's context."""
    try:
        return answerer.write(asked)
    except DataError as error:
        if error.reason != "too_long":
            raise
        if len(asked) == 1:
            return [Written("", failure=error.reason)]
    return [written for one in asked for written in _write(answerer, [one])]


def _print_failures(split: str, failed: Sequence[Answer]) -> None:
    if failed:
        some = ", ".join(f"{answer.id} (turn {len(answer.history)})" for answer in failed[:5])
        message = "they do not fit into the model's context, and count as wrong"
        print(f"{split}: {len(failed)} turns are not answered, {message}: {some}", flush=True)


def _answer(answerer: Answerer, split: str, asked: Asked, written: Written, seconds: float) -> Answer:
    dialogue = asked.dialogue
    return Answer(
        id=dialogue.id,
        split=split,
        scene=dialogue.scene,
        history=dialogue.turns[:-1],
        reference=_reference(dialogue),
        reply=Reply(None, "") if written.failure else answerer.parse(written.raw),
        raw=written.raw,
        guided=written.guided,
        gates=written.gates,
        seconds=0.0 if written.failure else round(seconds, 4),
        failure=written.failure,
        model=answerer.model,
        prompt=answerer.prompt_hash(asked),
    )

"""GPT-eval of a run: a judge rates every reply; its verdicts are kept, so that scoring needs no network.

`judgements.jsonl` has a verdict a line, under a hash of all that it depends on; `judge.json` says which judge counts.
"""

import json
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omnichat.background import in_background
from omnichat.dialogue import DataError, Style
from omnichat.evaluation.progress import progress
from omnichat.evaluation.replies import Answer, appending, read_lines, replace_file, writing_alone
from omnichat.metrics.endpoint import Endpoint, EndpointError, NoAnswer
from omnichat.metrics.judge import (
    CRITERIA,
    LOWEST,
    VERSION,
    Criterion,
    Verdict,
    agreement,
    key,
    messages,
    schema,
    verdict,
)
from omnichat.metrics.statistic import Missing, Statistic, mean

JUDGEMENTS = "judgements.jsonl"
JUDGE = "judge.json"
HEARD = ("emotion", "style", "sound", "caption")  # of the scene: what the user's words do not say
CHARACTERS_PER_TOKEN = 4  # of English text, roughly
ANSWER_TOKENS = {True: 60, False: 8}  # of a verdict with and without its reason, roughly
FUTILE = 10  # questions in a row without a verdict, after which no more are put


@dataclass(frozen=True, slots=True)
class Judge:
    """Which verdicts count: those of this model, asked in this way.

    Attributes:
        model: its pinned name.
        repeats: verdicts on each reply, which are averaged.
        temperature: of the judge's sampling.
        reference: whether the corpus's reply is shown, as one that would be fitting.
        reason: whether the judge says why before it scores.
        rubric: version of what it is told.
    """

    model: str
    repeats: int = 1
    temperature: float = 0.0
    reference: bool = False
    reason: bool = True
    rubric: str = VERSION

    def __post_init__(self) -> None:
        """A file may hold anything.

        Raises:
            ValueError: a value of another type or out of range.
        """
        names = (self.model, self.rubric)
        if not all(isinstance(name, str) for name in names) or not all(
            isinstance(flag, bool) for flag in (self.reference, self.reason)
        ):
            raise ValueError("expected names of model and rubric, true or false for reference and reason")
        if type(self.repeats) is not int or self.repeats < 1:
            raise ValueError(f"repeats: a whole number from 1 on, got {self.repeats!r}")
        warm = type(self.temperature) in (int, float) and math.isfinite(self.temperature) and self.temperature >= 0
        if not warm:
            raise ValueError(f"temperature: a number from 0 on, got {self.temperature!r}")

    @property
    def signature(self) -> str:
        """All that a score depends on besides the replies."""
        shown = f"reference:{'shown' if self.reference else 'hidden'}|reason:{'asked' if self.reason else 'not asked'}"
        verdicts = f"mean of {self.repeats} verdicts from 1 to 5"
        return f"{verdicts}|{self.rubric}|judge:{self.model}|temperature:{self.temperature:g}|{shown}"


@dataclass(frozen=True, slots=True)
class Question:
    """A reply to be judged for the `repeat`-th time: the messages that ask, and the key of the verdict."""

    answer: Answer
    criterion: Criterion
    messages: Sequence[Mapping[str, str]]
    repeat: int
    key: str


def criterion_of(answer: Answer) -> Criterion:
    """What a reply is rated for: its dialogue's scenario says."""
    return CRITERIA.get(answer.scene.get("scenario", ""), "plain")


def case_of(answer: Answer, reference: bool = False) -> dict[str, Any]:
    """What the judge is shown of a reply; with the corpus's reply where `reference` says so."""
    heard = {name: answer.scene[name] for name in HEARD if answer.scene.get(name)}
    spoken = answer.history[-1].style.known()
    fitting = {"fitting_reply": _shown(answer.reference.style, answer.reference.text)} if reference else {}
    return fitting | {
        "dialogue": [
            {"speaker": turn.role, "says": turn.text, **({"style": turn.style.known()} if turn.style.known() else {})}
            for turn in answer.history
        ],
        "heard": heard | {f"voice_{name}": value for name, value in spoken.items()},
        "reply": _shown(answer.reply.style, answer.reply.text),
    }


def questions(answers: Sequence[Answer], judge: Judge) -> list[Question]:
    """Everything that the judge has to answer: all replies once, then all again for each further verdict."""
    found = [(answer, criterion_of(answer), case_of(answer, judge.reference)) for answer in answers]
    asked = [(answer, criterion, messages(criterion, case, judge.reason)) for answer, criterion, case in found]
    return [
        Question(answer, criterion, chat, repeat, key(chat, judge.reason, judge.model, judge.temperature, repeat))
        for repeat in range(judge.repeats)
        for answer, criterion, chat in asked
    ]


def unanswered(asked: Sequence[Question], there: Mapping[str, Any]) -> list[Question]:
    """The questions without a verdict, each once: the same reply to the same dialogue may stand in several sets.

    A turn that the model could not be asked for has no reply to be judged; it scores the lowest.
    """
    left = [question for question in asked if question.key not in there and not question.answer.failure]
    return list({question.key: question for question in left}.values())


def requests(asked: Sequence[Question], judge: Judge) -> list[list[Question]]:
    """The questions that are put at once: at a temperature above 0 all about a reply, which one request can ask for.

    At temperature 0 the answers to one request would be alike, and say nothing of how far the judge agrees with itself.
    """
    if judge.temperature == 0:
        return [[question] for question in asked]
    together: dict[tuple[str, str, int], list[Question]] = {}
    for question in asked:
        together.setdefault((question.answer.split, *question.answer.key), []).append(question)
    return list(together.values())


def estimate(asked: Sequence[Sequence[Question]], reason: bool, prices: tuple[float, float] | None) -> str:
    """What the questions will cost, in words, where the server gives as many answers to a request as it is asked for.

    Args:
        asked: the questions that are not answered yet, by request; see `requests`.
        reason: whether the judge says why.
        prices: of a million tokens of prompts and of answers, in the provider's currency.
    """
    verdicts, sizes = sum(map(len, asked)), [_size(questions[0]) for questions in asked]
    prompt, answer = sum(sizes) / CHARACTERS_PER_TOKEN, verdicts * ANSWER_TOKENS[reason]
    cost = "" if prices is None else f"; about {(prompt * prices[0] + answer * prices[1]) / 1e6:.2f} in all"
    said = f"{len(asked)} questions, about {prompt:,.0f} tokens of prompts and {answer:,.0f} of answers{cost}"
    if verdicts == len(asked):
        return said
    singly = sum(size * len(questions) for size, questions in zip(sizes, asked, strict=True)) / CHARACTERS_PER_TOKEN
    return f"{verdicts} verdicts by {said}; up to {singly:,.0f} of prompts if the server gives one answer at a time"


def _size(question: Question) -> int:
    return sum(len(message["content"]) for message in question.messages)


def read_judgements(run_dir: Path) -> dict[str, dict[str, Any]]:
    """The verdicts of a run folder by key; a last line that a kill cut short is passed over.

    Raises:
        DataError: `bad_json` or `wrong_type` with `file:line`, where another line is broken.
    """
    path, found = run_dir / JUDGEMENTS, {}
    for number, line in read_lines(path):
        try:
            record = json.loads(line)
            verdict(json.dumps({"score": record["score"], "reason": record["reason"]}))
            found[str(record["key"])] = record
        except (ValueError, KeyError, TypeError) as error:
            message = f"is not a verdict ({error!r}); delete the line and run eval/judge.py again"
            raise DataError("bad_json", message, f"{path}:{number}") from None
    return found


def judge_run(
    run_dir: Path, answers: Sequence[Answer], judge: Judge, endpoint: Endpoint, threads: int = 8
) -> Counter[str]:
    """Put all questions that have no verdict yet; each verdict is kept as it comes.

    The endpoint's model and temperature must be the judge's.

    Returns:
        How many questions stay without a verdict, by reason.

    Raises:
        EndpointError: the endpoint cannot be used at all, or gave no verdict on `FUTILE` questions in a row.
        DataError: what `read_judgements` finds; `in_use`.
        OSError: the folder cannot be written to.
    """
    with writing_alone(run_dir):
        return _judge_run(run_dir, answers, judge, endpoint, threads)


def _judge_run(
    run_dir: Path, answers: Sequence[Answer], judge: Judge, endpoint: Endpoint, threads: int
) -> Counter[str]:
    path, there = run_dir / JUDGEMENTS, read_judgements(run_dir)
    asked = unanswered(questions(answers, judge), there)
    replace_file(run_dir / JUDGE, (json.dumps(asdict(judge), indent=1) + "\n").encode())
    replace_file(path, b"".join((line + "\n").encode() for _, line in read_lines(path)))  # without a line cut short
    failed: Counter[str] = Counter()
    futile, form = 0, schema(judge.reason)

    def check(content: str) -> Verdict:
        return verdict(content, judge.reason)

    def ask(together: Sequence[Question]) -> list[dict[str, Any]]:
        first = together[0]
        found = endpoint.ask(first.messages, "verdict", form, check, first.repeat, len(together))
        return [
            _record(question, one.content)
            | {"served": one.served, "tokens": [one.prompt_tokens, one.completion_tokens], "attempts": one.attempts}
            for question, one in zip(together, found, strict=False)
        ]

    with appending(path) as add, progress("judged", len(asked)) as advance:
        for together, records in _side_by_side(requests(asked, judge), ask, threads):
            if isinstance(records, NoAnswer):
                failed[records.reason] += len(together)
                print(f"no verdict on {together[0].answer.id}: {records.reason}: {records}", flush=True)
                futile += 1
                if futile == FUTILE:
                    message = f"no verdict on {FUTILE} questions in a row, the last: {records.reason}: {records}"
                    hint = "nothing more was asked; the same command goes on once the judge answers"
                    raise EndpointError(f"{endpoint.url}: {message} ({hint})")
                advance(len(together))
                continue
            futile = 0
            for record in records:
                add(json.dumps(record, ensure_ascii=False))
            advance(len(records))
    return failed


def gpt_eval(run_dir: Path, answers: Sequence[Answer]) -> Statistic | Missing | None:
    """Mean score of the judge that `judge.json` names, each reply's verdicts averaged; None where there is no judge.

    Raises:
        DataError: a broken `judge.json`, or what `read_judgements` finds.
    """
    judge = read_judge(run_dir)
    if judge is None:
        return None
    if judge.rubric != VERSION:
        message = f"judged by the rubric {judge.rubric}, which is not this version's {VERSION}"
        return Missing(f"{message}; run eval/judge.py again, or score with that version")
    found = scores_by_repeat(run_dir, answers, judge)
    values = [[score for score in scores if score is not None] for scores in zip(*found, strict=True)]
    if short := sum(len(scores) < judge.repeats for scores in values):
        return Missing(f"{short} of {len(values)} replies lack verdicts of {judge.model}; run eval/judge.py again")
    return mean([sum(scores) / len(scores) for scores in values], judge.signature)


def scores_by_repeat(run_dir: Path, answers: Sequence[Answer], judge: Judge) -> list[list[int | None]]:
    """The score of each reply in each run of the judge, None where there is no verdict."""
    there = read_judgements(run_dir)
    scores = [
        LOWEST if one.answer.failure else there[one.key]["score"] if one.key in there else None
        for one in questions(answers, judge)
    ]
    return [scores[first : first + len(answers)] for first in range(0, len(scores), len(answers))]


def agreements(run_dir: Path, answers: Sequence[Answer], judge: Judge) -> dict[str, float | int | None] | None:
    """How far the first two runs of the judge agree, over the replies that have both; None where there are no two."""
    found = scores_by_repeat(run_dir, answers, judge)
    if len(found) < 2:
        return None
    pairs = [(a, b) for a, b in zip(found[0], found[1], strict=True) if a is not None and b is not None]
    return agreement([a for a, _ in pairs], [b for _, b in pairs]) if pairs else None


def read_judge(run_dir: Path) -> Judge | None:
    """Which judge counts in a run folder; None where it has none.

    Raises:
        DataError: `bad_json`.
    """
    path = run_dir / JUDGE
    try:
        return Judge(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        message = f"cannot be read ({error!r}); delete it and run eval/judge.py again"
        raise DataError("bad_json", message, str(path)) from None


def _side_by_side(
    asked: Sequence[Sequence[Question]], ask: Callable[[Sequence[Question]], list[dict[str, Any]]], threads: int
) -> Iterator[tuple[Sequence[Question], list[dict[str, Any]] | NoAnswer]]:
    """Questions that are put at once, with the records of the first of them, or with why there is none, as they come.

    Those without a record yet are asked on. At most `threads` requests are under way. Nobody waits for these once no
    more is wanted: after Ctrl-C each could go on for minutes, attempt after attempt.
    """
    waiting = deque(asked)
    under_way: dict[Future[list[dict[str, Any]]], Sequence[Question]] = {}
    while waiting or under_way:
        while waiting and len(under_way) < threads:
            together = waiting.popleft()
            under_way[in_background(partial(ask, together))] = together
        for future in wait(under_way, return_when=FIRST_COMPLETED).done:
            together = under_way.pop(future)
            try:
                records = future.result()
            except NoAnswer as error:
                yield together, error
                continue
            if rest := together[len(records) :]:
                waiting.appendleft(rest)
            yield together, records


def _record(question: Question, found: Verdict) -> dict[str, Any]:
    answer = question.answer
    place = {"split": answer.split, "id": answer.id, "turn": len(answer.history)}
    asked = {"rubric": VERSION, "criterion": question.criterion, "repeat": question.repeat}
    return {"key": question.key, **place, **asked, **asdict(found)}


def _shown(style: Style | None, text: str) -> dict[str, Any]:
    return {"says": text, "style": "not readable" if style is None else style.known()}

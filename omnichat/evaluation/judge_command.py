"""The command line of eval/judge.py."""

import os
from collections.abc import Sequence
from pathlib import Path

from omnichat.dialogue import DataError
from omnichat.evaluation.arguments import (
    UsageError,
    guarded,
    read_flag,
    read_names,
    read_numbers,
    read_pairs,
    split_arguments,
)
from omnichat.recipes import locate

OPTIONS = """  model=NAME            the judge, pinned to a version (gpt-4o-2024-08-06 rather than gpt-4o)
  url=ADDRESS           of the endpoint; default https://api.openai.com/v1
  key_env=NAME          the environment variable that holds its key; default OPENAI_API_KEY, none is fine
  split=NAME[,NAME...]  sets to judge; by default all that the run has replies to
  repeats=1             verdicts on each reply, averaged; from 2 on the agreement of the judge with itself is printed;
                        with temperature above 0 one request asks for all, and again for what is lacking
  temperature=0         of the judge's sampling; 0 is the most repeatable
  reference=false       whether the judge sees the corpus's reply, as one that would be fitting
  reason=true           whether it says why before it scores
  protocol=voxdialogue  repeats=10 temperature=1.5 reason=false reference=false, as that paper's code asks (same first
                        author); what is given beside it wins
  estimate=true         print how much there is to ask, and stop; with price=IN,OUT (of a million tokens) what it costs
  threads=8 timeout=60 attempts=5   questions side by side, seconds for an attempt, attempts for a question
  schema=false          for servers that know JSON answers, but no schema for them
  partial=true          judge sets whose replies are not all there"""
KEYS = ("model", "url", "key_env", "split", "estimate", "price", "threads", "timeout", "attempts", "schema", "partial")
WAYS = ("protocol", "repeats", "temperature", "reference", "reason")
# As VoxDialogue's demo.py asks; see omnichat/metrics/judge.py.
PROTOCOLS = {"voxdialogue": {"repeats": "10", "temperature": "1.5", "reference": "false", "reason": "false"}}
HOTTEST = 2.0  # that OpenAI's API takes


def main(arguments: Sequence[str], usage: str) -> int:
    """Have a run's replies judged; returns the exit code.

    Args:
        arguments: the run folder, then `key=value` each.
        usage: what `--help` prints before the options.
    """

    def body() -> None:
        (folder,), rest = split_arguments(arguments, ("RUN",))
        values = read_pairs(rest, (*KEYS, *WAYS))
        if not values.get("model"):
            raise UsageError("model: is missing; name the judge, pinned to a version")
        if values.get("protocol", "voxdialogue") not in PROTOCOLS:
            raise UsageError(f"protocol: one of {', '.join(PROTOCOLS)}, got {values['protocol']!r}")
        values = PROTOCOLS.get(values.get("protocol", ""), {}) | values
        numbers = {"repeats": 1, "threads": 8, "timeout": 60, "attempts": 5}
        numbers |= read_numbers(values, list(numbers))
        if low := [key for key, number in numbers.items() if number < 1]:
            raise UsageError(f"{', '.join(low)}: must be at least 1")
        if not locate(folder).is_dir():
            raise UsageError(f"{folder}: no such folder; name the folder of a run")
        _judge(locate(folder), values, numbers)

    return guarded(arguments, f"{usage}\n\n{OPTIONS}", body)


def _judge(run_dir: Path, values: dict[str, str], numbers: dict[str, int]) -> None:
    defaults = {"estimate": False, "schema": True, "partial": False, "reference": False, "reason": True}
    flags = {key: read_flag(values, key, default) for key, default in defaults.items()}
    prices, temperature = _prices(values.get("price", "")), _temperature(values.get("temperature", "0"))
    from omnichat.evaluation import judging
    from omnichat.evaluation.score import read_sets
    from omnichat.metrics.endpoint import Endpoint
    from omnichat.metrics.statistic import Statistic

    sets = read_sets(run_dir, flags["partial"])[0]
    names = read_names(values, "split") or tuple(sets)
    if absent := [name for name in names if name not in sets]:
        raise UsageError(f"split: no replies to {', '.join(absent)}; there are: {', '.join(sets)}")
    answers = [answer for name in names for answer in sets[name].answers]
    judge = judging.Judge(values["model"], numbers["repeats"], temperature, flags["reference"], flags["reason"])
    there = judging.read_judgements(run_dir)
    asked = judging.unanswered(judging.questions(answers, judge), there)
    print(f"{judge.model}: {judging.estimate(judging.requests(asked, judge), judge.reason, prices)}", flush=True)
    if flags["estimate"]:
        return
    key_env = values.get("key_env", "OPENAI_API_KEY")
    endpoint = Endpoint(
        values.get("url", "https://api.openai.com/v1"),
        judge.model,
        os.environ.get(key_env, ""),
        key_env,
        temperature=judge.temperature,
        timeout=numbers["timeout"],
        attempts=numbers["attempts"],
        schema=flags["schema"],
    )
    failed = judging.judge_run(run_dir, answers, judge, endpoint, numbers["threads"])
    if failed:
        reasons = ", ".join(f"{count} {reason}" for reason, count in failed.most_common())
        total = len(answers) * judge.repeats
        message = f"{failed.total()} of {total} verdicts are missing ({reasons}); the same command asks for these again"
        raise DataError("incomplete_judgements", message, str(run_dir))
    for name in names:
        found = judging.gpt_eval(run_dir, sets[name].answers)
        assert isinstance(found, Statistic), "every question has its verdict"
        partial = sets[name].partial
        marked = f" (PARTIAL: {partial['replies']} of {partial['of']})" if partial else ""
        print(f"{name}{marked}: {found.value:.2f} of 5, n={found.n}")
        if agreed := judging.agreements(run_dir, sets[name].answers, judge):
            kappa = "not defined" if agreed["kappa"] is None else f"{agreed['kappa']:.2f}"
            same, near = 100 * (agreed["same"] or 0), 100 * (agreed["within_one"] or 0)
            print(f"  two runs of the judge: {same:.0f} % the same, {near:.0f} % within one, kappa {kappa} (quadratic)")
    print("stage=score enters it into scores.json, with its interval")


def _prices(text: str) -> tuple[float, float] | None:
    if not text:
        return None
    try:
        first, second = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"price: two numbers, as in price=2.5,10, got {text!r}") from None
    return first, second


def _temperature(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= HOTTEST:
        raise UsageError(f"temperature: a number from 0 to {HOTTEST:g}, got {text!r}")
    return found

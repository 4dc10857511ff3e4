"""Have a language model list topics, for `writing.topics`: one a line, none twice.

  python -m data_prep.synthesis.writing.invent 521 topics.txt --model qwen3-32b --endpoint http://localhost:8000/v1

The paper has 521 topics made so (OmniChat, section 3). What is in OUT already is kept and added to.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep.arguments import command_line
from data_prep.synthesis.backends.chat import ChatSettings, make_chat
from data_prep.synthesis.stage import Attempt, BackendError, Refused, Retry
from data_prep.synthesis.writing.asking import Asker, Shape
from data_prep.synthesis.writing.prompts import prompt
from data_prep.synthesis.writing.validate import plain
from omnichat.dialogue import DataError
from omnichat.secrets import mask_output

AT_ONCE = 40  # topics in an answer: longer lists repeat themselves
SHOWN = 60  # known topics that the model is reminded of
FRUITLESS = 5  # answers in a row without a new topic, after which there are no more to be had
MAX_WORDS = 8


class TopicsAnswer(Shape):
    """What the model is to answer."""

    topics: list[str]


async def invent_topics(asker: Asker, count: int, seed: int, known: Sequence[str] = ()) -> list[str]:
    """`count` topics, the known ones first; fewer where the model has no new ones any more.

    Raises:
        Refused: there is no topic at all, as no answer was usable.
    """
    topics = {plain(topic): topic for topic in known}
    fruitless = calls = 0
    while len(topics) < count and fruitless < FRUITLESS:
        attempt = Attempt(calls, np.random.default_rng([seed, calls]), Path())
        calls += 1
        reminded = [str(topic) for topic in attempt.rng.permutation(list(topics.values()))[:SHOWN]]
        before = len(topics)
        try:
            request = prompt("topics", count=AT_ONCE, known="; ".join(reminded) or "none yet")
            answer = await asker.ask(
                "You help to plan recordings of everyday conversations.", request, TopicsAnswer, attempt
            )
            for topic in answer.topics:
                words = plain(topic)
                if 1 <= len(words.split()) <= MAX_WORDS:
                    topics.setdefault(words, " ".join(topic.split()).rstrip("."))
        except Retry:
            if fruitless == FRUITLESS - 1 and not topics:
                raise
        fruitless = fruitless + 1 if len(topics) == before else 0
    return list(topics.values())[:count]


def main(words: Sequence[str] | None = None) -> int:
    """Run the command: 0 done, 1 failed or too few topics, 2 wrong usage."""
    mask_output()
    parser = command_line("data_prep.synthesis.writing.invent", __doc__)
    parser.add_argument("count", type=int, metavar="N", help="how many topics OUT is to hold")
    parser.add_argument("out", type=Path, metavar="OUT", help="a text file, one topic a line")
    parser.add_argument("--model", required=True, help="what the server calls it")
    parser.add_argument("--endpoint", required=True, action="append", metavar="URL", help="may be repeated")
    parser.add_argument("--api-key-env", default="", metavar="NAME", help="environment variable that holds the key")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the sampling (0)")
    arguments = parser.parse_args(words)
    try:
        settings = ChatSettings(
            model=arguments.model, endpoints=tuple(arguments.endpoint), api_key_env=arguments.api_key_env
        )
    except ValueError as error:
        parser.error(str(error))
    out: Path = arguments.out
    known = [line for line in out.read_text(encoding="utf-8").splitlines() if line.strip()] if out.is_file() else []

    async def ask() -> list[str]:
        chat = make_chat(settings)
        await chat.open()
        try:
            asker = Asker(chat, settings.max_tokens, settings.temperature)
            return await invent_topics(asker, arguments.count, arguments.seed, known)
        finally:
            await chat.close()

    try:
        topics = asyncio.run(ask())
        out.write_text("".join(f"{topic}\n" for topic in topics), encoding="utf-8")
    except (Refused, BackendError, DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if len(topics) < arguments.count:
        print(
            f"error: {len(topics)} topics of {arguments.count}: the model has no new ones; try --seed", file=sys.stderr
        )
        return 1
    print(f"{len(topics)} topics in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

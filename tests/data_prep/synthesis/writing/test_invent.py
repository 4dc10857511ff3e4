"""Topics by a language model."""

import asyncio
import json

import pytest

from data_prep.synthesis.stage import Retry
from data_prep.synthesis.writing.asking import Asker
from data_prep.synthesis.writing.invent import FRUITLESS, invent_topics
from tests.data_prep.synthesis.writing.fakes import Answers, FakeChat


def invented(answers: Answers, count: int, known: list[str]) -> tuple[list[str], FakeChat]:
    chat = FakeChat(answers)
    return asyncio.run(invent_topics(Asker(chat, 900, 1.0), count, 0, known)), chat


def test_topics_are_gathered_until_there_are_enough() -> None:
    """Models repeat themselves, answer nonsense now and then, and write essays where a topic is wanted."""
    essay = "a very long story about " + "everything and " * 20
    topics, chat = invented(
        [
            {"topics": ["A trip.", "a  lost key", essay, ""]},
            "no json",
            {"topics": ["a trip", "snow"]},
            {"topics": ["tea"]},
        ],
        4,
        ["a trip"],
    )
    assert topics == ["a trip", "a lost key", "snow", "tea"]
    assert "a trip" in chat.asked[0]["messages"][1]["content"]
    assert len({asked["seed"] for asked in chat.asked}) == 4


def test_a_model_without_ideas_is_not_asked_for_ever() -> None:
    """Each call costs money: after some without a new topic there are no more to be had."""
    topics, chat = invented(lambda messages: json.dumps({"topics": ["snow"]}), 10, [])
    assert topics == ["snow"]
    assert len(chat.asked) == 1 + FRUITLESS
    with pytest.raises(Retry):
        invented(lambda messages: "no json", 10, [])

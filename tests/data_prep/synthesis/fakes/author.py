"""What the fake language model writes: it reads the real prompts and answers them from the shipped templates."""

import itertools
import json
import re
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

import numpy as np

from data_prep.synthesis.contracts import Brief
from data_prep.synthesis.writing.deepdialogue import world
from data_prep.synthesis.writing.template import write_template
from data_prep.synthesis.writing.topics import read_topics
from omnichat.dialogue import STYLE_FIELDS, Style
from tests.data_prep.synthesis.writing.fakes import as_answer

TOPICS = read_topics(None, for_template=True)
PRAISE = {"coherence": 9, "natural": 8, "emotion": 7}


class Author:
    """Called with a request to `/chat/completions`, it gives the text of the answer.

    Args:
        faults: what the answer to the request of each number has; "" for none. Those that this author does not know
            are the server's.
    """

    def __init__(self, faults: Callable[[int], str] = lambda number: "") -> None:
        self.faults, self.lock = faults, Lock()
        self.numbers = itertools.count()
        self.met: list[str] = []  # faults that were given, in order
        self.asked: list[tuple[str, str]] = []  # model and kind of each request: script, turn, judge

    def fault(self, fields: Mapping[str, Any]) -> str:
        """What the next request meets."""
        rules = fields["messages"][0]["content"]
        kind = "script" if "history_turns" in rules else "turn" if "You take part" in rules else "judge"
        with self.lock:
            fault = self.faults(next(self.numbers))
            self.asked.append((fields["model"], kind))
            if fault:
                self.met.append(fault)
        return fault

    def write(self, fields: Mapping[str, Any], fault: str) -> str:
        """The text of an answer."""
        rules, request = (message["content"] for message in fields["messages"])
        if "Judge it" in rules:
            return json.dumps(PRAISE | ({"natural": 2} if fault == "poor" else {}))
        if "You take part" in rules:
            return json.dumps(_turn(rules, fault))
        return json.dumps(_script(rules, request, fields["seed"], fault))


def _script(rules: str, request: str, seed: int, fault: str) -> dict[str, Any]:
    """A script by the template writer, as the prompt asks for it; with a fault, one that breaks a rule."""
    asked = re.findall(r"style \d: ([a-z]+), ([a-z]+), ([a-z]+), ([a-z]+)", rules)
    brief = Brief(
        recipe="sharechat_emotion",
        number=seed % 10_000 * len(TOPICS),
        split="train",
        topic=request.removeprefix("The topic: "),
        history_turns=int(re.findall(r"exactly (\d+) turns", rules)[0]),
        styles=tuple(Style(**dict(zip(STYLE_FIELDS, values, strict=True))) for values in asked),
    )
    answer = as_answer(write_template(brief, TOPICS, np.random.default_rng(seed)), brief)
    if fault == "speaker_order":
        answer["history_turns"].reverse()
    elif fault == "branches_alike":
        answer["response_of_current_style_2"] = answer["response_of_current_style_1"]
    return answer


def _turn(rules: str, fault: str) -> dict[str, Any]:
    """A turn of two models' talk that was not said yet; with a fault, one of another shape."""
    found = re.search(r"conversation about (.+?)\. You are .* you feel (\w+) right now", rules)
    assert found is not None
    domain, emotion = found.groups()
    words = world()["domains"][domain]
    texts = (text.format(word) for word in words for text in world()["emotions"][emotion]["sentences"])
    text = next(text for text in texts if text not in rules)
    return {"words": text} if fault == "other_key" else {"text": text}

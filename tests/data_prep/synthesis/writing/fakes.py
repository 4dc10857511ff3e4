"""A fake language model: answers are given beforehand; what it was asked is kept."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from data_prep.synthesis.backends.chat import Chat, Completion
from data_prep.synthesis.contracts import Brief
from data_prep.synthesis.writing.draft import Draft, DraftLine

Answers = Iterable[Any] | Callable[[Sequence[Mapping[str, str]]], Any]


class FakeChat(Chat):
    """Gives the next of `answers`: text, an object (as JSON), a `Completion`, or an exception to raise."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers if callable(answers) else iter(answers)
        self.asked: list[dict[str, Any]] = []

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to end."""

    async def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        schema: Mapping[str, Any] | None,
        seed: int,
        max_tokens: int,
        temperature: float,
    ) -> Completion:
        self.asked.append({"messages": messages, "schema": schema, "seed": seed, "temperature": temperature})
        answer = self._answers(messages) if callable(self._answers) else next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Completion):
            return answer
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return Completion(text, "stop", 100, len(text) // 4)


def headed(line: DraftLine) -> str:
    """A line as a model writes it."""
    style = ", ".join(line.style[name] for name in ("gender", "emotion", "speed", "pitch"))
    return f"{line.speaker.capitalize()} ({style}): {line.text}"


def as_answer(draft: Draft, brief: Brief) -> dict[str, Any]:
    """A draft as a model's answer, by the paper's keys."""
    answer: dict[str, Any] = {
        "history_turns": [headed(line) for line in draft.history],
        "current_turn": draft.currents[0].text,
    }
    for number, (current, reply) in enumerate(zip(draft.currents, draft.replies, strict=True), 1):
        answer[f"current_turn_style_{number}"] = headed(current)
        answer[f"response_of_current_style_{number}"] = headed(reply)
    return answer

"""One question to a language model, answered in JSON of a known shape, or a reason why not."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from data_prep.synthesis.backends.chat import Chat
from data_prep.synthesis.stage import Attempt, Retry
from omnichat.dialogue import shown


class Shape(BaseModel):
    """An answer's shape: further keys are not asked for, and let pass where they come."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"additionalProperties": False})


Answer = TypeVar("Answer", bound=Shape)

FENCE = re.compile(r"^\s*```(?:json)?\s*(.*?)\s*```\s*$", re.DOTALL)
# How models decline; looked for where there is no usable JSON, and at the start of a turn.
REFUSAL = re.compile(
    r"^\W*(?:i'?m (?:really |very )?sorry,? (?:but )?(?:i|this|that)\b|i am sorry, but i\b"
    r"|sorry, (?:but )?i can(?:'|no)t"
    r"|i (?:can(?:'|no)?t|am unable to|won't|must decline)\b"
    r".{0,40}\b(?:help|assist|create|write|provide|generate|fulfil|comply|continue)"
    r"|as an ai\b|as a language model\b|i must decline)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks one model.

    Attributes:
        chat: an open client.
        max_tokens: of an answer.
        temperature: of the sampling.
    """

    chat: Chat
    max_tokens: int
    temperature: float

    async def ask(
        self, rules: str, request: str, answer: type[Answer], attempt: Attempt, schema: Mapping[str, Any] | None = None
    ) -> Answer:
        """The model's answer, counted in the attempt's cost.

        Args:
            rules: the system message.
            request: the user message.
            answer: the shape that is checked, whatever the server promises.
            attempt: its randomness gives the seed of the call.
            schema: what the server is asked to keep to; None: that of `answer`.

        Raises:
            Retry: `llm_length`, `llm_refusal`, `llm_json`, `llm_schema`, or what the client raises.
        """
        messages = [{"role": "system", "content": rules}, {"role": "user", "content": request}]
        seed = int(attempt.rng.integers(2**31))
        attempt.cost.calls += 1
        completion = await self.chat.complete(
            messages, schema or answer.model_json_schema(), seed, self.max_tokens, self.temperature
        )
        attempt.cost.tokens_in += completion.tokens_in
        attempt.cost.tokens_out += completion.tokens_out
        if completion.finish == "length":
            message = f"cut off after {completion.tokens_out} tokens, ends in {shown(completion.text[-60:])}"
            raise Retry("llm_length", message)
        return parse(completion.text, answer)


def parse(text: str, answer: type[Answer]) -> Answer:
    """The checked object in a model's answer; a code fence or words around it are taken off.

    Raises:
        Retry: `llm_refusal`, `llm_json`, `llm_schema`.
    """
    bare = match[1] if (match := FENCE.match(text)) else text
    try:
        value = _loaded(bare)
    except (ValueError, RecursionError) as error:
        if REFUSAL.match(text):
            raise Retry("llm_refusal", shown(text.strip())) from None
        raise Retry("llm_json", f"{str(error)[:120]}: {shown(text)}") from None
    try:
        return answer.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        if isinstance(value, dict) and any(REFUSAL.match(str(part)) for part in value.values()):
            raise Retry("llm_refusal", shown(text)) from None
        place = ".".join(map(str, first["loc"])) or "the answer"
        raise Retry("llm_schema", f"{place}: {first['msg']}, in {shown(text)}") from None


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        start, end = text.find("{"), text.rfind("}")
        if not 0 <= start < end:
            raise
        return json.loads(text[start : end + 1])

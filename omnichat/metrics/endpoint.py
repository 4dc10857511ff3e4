"""A chat model behind an OpenAI-compatible endpoint (`POST URL/chat/completions`), asked until it answers as it should.

Also served so by vLLM, llama.cpp, Ollama and others. Needs httpx (extra `eval`), imported where it is used.
"""

import json
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from omnichat.secrets import MASK, UNSENDABLE, can_be_sent

if TYPE_CHECKING:
    import httpx

Checked = TypeVar("Checked")
Messages = Sequence[Mapping[str, str]]

NOT_SO = (400, 422)  # the server takes no request of this form
RETRIED = (408, 409, 425, 429)  # and every 5xx: the server asks to come again
LONGEST_WAIT = 60.0  # seconds between two attempts
DECLINED = re.compile(r"moderation|flagged|content_policy|refusal", re.I)
SEEDS = 100  # that one question may use: the next `seed` begins after them


def declined(status: int, text: str) -> bool:
    """Whether a 403 is about the words of one request, as OpenRouter's moderation answers, and not about the key."""
    return status == 403 and bool(DECLINED.search(text))


class EndpointError(ValueError):
    """The endpoint cannot be used at all: no connection is worth trying again. Says why and how to mend it."""


class NoAnswer(ValueError):
    """One question stays without a usable answer. `reason` is a code, to be counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Answered(Generic[Checked]):
    """What came of a question: the checked content, the model that served it, tokens used, attempts made."""

    content: Checked
    served: str
    prompt_tokens: int
    completion_tokens: int
    attempts: int


@dataclass(frozen=True)
class Endpoint:
    """Where the model is and how it is asked.

    Attributes:
        url: up to and without `/chat/completions`.
        model: its pinned name.
        key: sent as a bearer token; none where empty.
        key_env: the environment variable it is from, for messages.
        timeout: seconds for one attempt.
        attempts: at most so many for one question.
        backoff: seconds before the second attempt; doubled for each after it, unless the server says how long.
        max_tokens: of an answer.
        schema: whether the JSON schema is sent; a server that does not know `json_schema` gets `json_object`.
        temperature: of the sampling.
    """

    url: str
    model: str
    key: str = ""
    key_env: str = "OPENAI_API_KEY"
    timeout: float = 60.0
    attempts: int = 5
    backoff: float = 1.0
    max_tokens: int = 400
    schema: bool = True
    temperature: float = 0.0

    @cached_property
    def _client(self) -> "httpx.Client":
        import httpx

        return httpx.Client(timeout=self.timeout)  # one for all questions: certificates are read once

    @cached_property
    def _singly(self) -> threading.Event:
        return threading.Event()  # set once the server has given fewer answers than one request asked for

    def ask(
        self,
        messages: Messages,
        name: str,
        schema: Mapping[str, Any],
        check: Callable[[str], Checked],
        seed: int = 0,
        count: int = 1,
    ) -> list[Answered[Checked]]:
        """Ask for `count` answers to one question until one or more pass `check`; at most so many are given.

        There may be fewer: a server gives one whatever it is asked for, or refuses such requests, and is then asked for
        one each time; or some answers are not as they should be.

        Args:
            messages: of the chat.
            name: of the schema.
            schema: JSON schema of the answer.
            check: the content as it is wanted; raises ValueError for what is not.
            seed: of the model; each further attempt has another, so that nonsense need not come again.
            count: of the answers that are wanted, by one request (`n`).

        Returns:
            The answers. The first has the tokens of the whole request, the others none.

        Raises:
            EndpointError: the server refuses such questions at all (4xx): wrong key, model or address.
            NoAnswer: `timeout`, `unreachable`, `busy`, `broken_response`, `truncated`, `refusal` or `nonsense` at the
                last attempt.
        """
        import httpx

        if not can_be_sent(self.key):
            raise EndpointError(f"{self.key_env} {UNSENDABLE}")
        kind: dict[str, Any] = {"type": "json_object"}
        if self.schema:
            kind = {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}
        body = {"model": self.model, "messages": list(messages), "temperature": self.temperature}
        body |= {"max_tokens": self.max_tokens, "response_format": kind}
        fault, wait, attempt = NoAnswer("unreachable", "no attempt was made"), 0.0, 0
        while attempt < self.attempts:
            attempt += 1
            time.sleep(wait)
            wait = min(self.backoff * 2 ** (attempt - 1) * random.uniform(0.75, 1.25), LONGEST_WAIT)
            wanted = 1 if self._singly.is_set() else count
            try:
                response = self._client.post(
                    f"{self.url.rstrip('/')}/chat/completions",
                    json={**body, "seed": seed * SEEDS + attempt - 1, **({"n": wanted} if wanted > 1 else {})},
                    headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
                )
            except httpx.TimeoutException:
                fault = NoAnswer("timeout", f"no answer within {self.timeout:g} s")
                continue
            except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
                raise EndpointError(f"{self.url} is no address ({error}); correct url=") from None
            except httpx.ConnectError as error:
                fault = NoAnswer("unreachable", f"no connection to {self.url} ({error})")
                continue
            except httpx.HTTPError as error:
                fault = NoAnswer("broken_response", f"the response broke off ({error})")
                continue
            if response.status_code in RETRIED or response.status_code >= 500:
                fault = NoAnswer("busy", f"status {response.status_code}: {response.text[:200]}")
                wait = min(_seconds(response.headers.get("retry-after"), wait), LONGEST_WAIT)
                continue
            if declined(response.status_code, response.text):
                fault = NoAnswer("refusal", f"status {response.status_code}: {response.text[:200]}")
                continue
            if wanted > 1 and response.status_code in NOT_SO:
                self._singly.set()  # perhaps it only takes no `n`; if it is something else, it will say so again
                attempt, wait = attempt - 1, 0.0
                continue
            if response.status_code >= 300:
                raise EndpointError(self._refusal(response.status_code, response.text))
            try:
                contents, served, usage = _contents(response.text)
            except NoAnswer as error:
                fault = error
                continue
            if len(contents) < wanted:
                self._singly.set()
            found: list[Answered[Checked]] = []
            for content in contents[:wanted]:
                try:
                    tokens = (0, 0) if found else usage
                    found.append(Answered(_checked(content, check), served, *tokens, attempt))
                except NoAnswer as error:
                    fault = error
            if found:
                return found
        raise NoAnswer(fault.reason, f"{fault} (attempt {self.attempts} of {self.attempts})")

    def _refusal(self, status: int, text: str) -> str:
        """Why the server will answer no question like this one, and what would mend it."""
        hint = "schema=false for a server that does not know json_schema"
        if status in (401, 403) and self.key:
            hint = f"it does not take the key in {self.key_env}; correct it, or name another variable with key_env="
        elif status in (401, 403):
            hint = f"no key was sent, as {self.key_env} is empty; set it, or name another variable with key_env="
        elif status == 402:
            hint = f"the account of the key in {self.key_env} has no credit"
        elif status == 404:
            hint = (
                f"no model {self.model!r} there, or a wrong address, which mostly ends in /v1; correct model= or url="
            )
        said = text.replace(self.key, MASK) if self.key else text
        return f"{self.url} answers {status}: {said[:300].strip()} ({hint}); nothing more was asked"


def _contents(text: str) -> tuple[list[str | NoAnswer], str, tuple[int, int]]:
    """The content of each choice, or why it has none; the model that served it, and tokens of prompt and completions.

    Raises:
        NoAnswer: `broken_response`.
    """
    try:
        record = json.loads(text)
        usage = record.get("usage") or {}
        tokens = (int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
        served, contents = str(record.get("model", "")), [_content(choice) for choice in record["choices"]]
        if not contents:
            raise ValueError("no choices")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise NoAnswer("broken_response", f"the response is no chat completion ({error!r}): {text[:200]!r}") from None
    return contents, served, tokens


def _content(choice: Mapping[str, Any]) -> str | NoAnswer:
    message = choice["message"]
    content = message.get("content")
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return NoAnswer("refusal", f"the model refuses: {str(message.get('refusal') or 'content filter')[:200]}")
    if choice.get("finish_reason") == "length":
        return NoAnswer("truncated", f"the answer was cut off at max_tokens: {str(content)[-100:]!r}")
    if not isinstance(content, str):
        return NoAnswer("nonsense", f"the answer has no text: {content!r}")
    return content


def _checked(content: str | NoAnswer, check: Callable[[str], Checked]) -> Checked:
    if isinstance(content, NoAnswer):
        raise content
    try:
        return check(content)
    except (ValueError, RecursionError) as error:
        raise NoAnswer("nonsense", f"the answer is not as it should be ({error}): {content[:200]!r}") from None


def _seconds(header: str | None, otherwise: float) -> float:
    """What `Retry-After` asks for; a date there is as good as nothing."""
    try:
        return max(0.0, float(header or ""))
    except ValueError:
        return otherwise

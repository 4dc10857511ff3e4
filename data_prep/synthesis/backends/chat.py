"""A language model that is asked in chat form: any server that speaks OpenAI's chat completions."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field

from data_prep.synthesis.backends.http import Reasons, Server, ServerSettings, addresses
from data_prep.synthesis.stage import Retry
from omnichat.dialogue import shown

REASONS = Reasons("llm_http", "llm_timeout")


class ChatSettings(ServerSettings):
    """Which model, where, and how it is asked: the section `chat` of a configuration.

    Attributes:
        model: what the server calls it.
        temperature: of the sampling.
        max_tokens: of an answer; always sent, as a model that loops would otherwise never end.
        format: how the answer's shape is asked for: by its JSON schema, as some JSON, or not at all, for servers that
            know no better. It is checked in any case.
        limit_key: what the server calls `max_tokens`.
        extra: further fields of the request, as {"top_p": 0.9} or a server's own.
        endpoints_of: base addresses of models that are not behind `endpoints`, by model: vLLM serves one model a
            server, and `writing.models` may name two.
    """

    model: str
    temperature: float = Field(default=1.0, ge=0)
    max_tokens: int = Field(default=2048, ge=1)
    format: Literal["json_schema", "json_object", "none"] = "json_schema"
    limit_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    extra: dict[str, Any] = Field(default_factory=dict)
    endpoints_of: dict[str, Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(addresses)]] = Field(
        default_factory=dict
    )

    def of(self, model: str) -> "ChatSettings":
        """The settings of another model."""
        return self.model_copy(update={"model": model, "endpoints": self.endpoints_of.get(model, self.endpoints)})


class Completion(NamedTuple):
    """An answer: its text, why it ended, and the tokens that it took.

    `finish` is the server's word: "stop", or "length" where the answer was cut off; that one is no usable answer, and
    is returned so that its tokens are counted.
    """

    text: str
    finish: str
    tokens_in: int
    tokens_out: int


class Chat(ABC):
    """A client of a language model. One per worker; many calls side by side."""

    @abstractmethod
    async def open(self) -> None:
        """Start what is kept between calls.

        Raises:
            BackendError: the key is missing.
        """

    @abstractmethod
    async def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        schema: Mapping[str, Any] | None,
        seed: int,
        max_tokens: int,
        temperature: float,
    ) -> Completion:
        """One answer.

        Args:
            messages: {"role": ..., "content": ...}, in order.
            schema: JSON schema of the answer; None for free text. The server is asked for it and not trusted.
            seed: of the sampling; another one for another attempt.
            max_tokens: of the answer.
            temperature: of the sampling.

        Raises:
            Retry: `llm_http`, `llm_timeout` when all retries are used up; `llm_refusal`.
            Reject: `llm_http`: the server refuses the request for good.
        """

    @abstractmethod
    async def close(self) -> None:
        """End what `open` started."""


class OpenAIChat(Chat):
    """`POST /chat/completions` of OpenAI's API, which vLLM, SGLang, llama.cpp, Ollama and others speak too."""

    def __init__(self, settings: ChatSettings) -> None:
        self.settings = settings
        self._server = Server(settings, REASONS, "language model")

    async def open(self) -> None:
        """See `Chat.open`."""
        await self._server.open()

    async def close(self) -> None:
        """See `Chat.close`."""
        await self._server.close()

    async def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        schema: Mapping[str, Any] | None,
        seed: int,
        max_tokens: int,
        temperature: float,
    ) -> Completion:
        """See `Chat.complete`."""
        request = {
            "model": self.settings.model,
            "messages": list(messages),
            self.settings.limit_key: max_tokens,
            "temperature": temperature,
            "seed": seed,
            **self._format(schema),
            **self.settings.extra,
        }
        answer = await self._server.post("chat/completions", json=request)
        return _completion(answer.body)

    def _format(self, schema: Mapping[str, Any] | None) -> dict[str, Any]:
        if schema is None or self.settings.format == "none":
            return {}
        if self.settings.format == "json_object":
            return {"response_format": {"type": "json_object"}}
        named = {"name": "answer", "schema": dict(schema), "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": named}}


def _completion(body: bytes) -> Completion:
    """What stands in a server's answer.

    Raises:
        Retry: `llm_http` where it is no such answer, `llm_refusal`.
    """
    text = body.decode(errors="replace")
    try:
        answer = json.loads(text)
        choice = answer["choices"][0]
        message, finish = choice["message"], str(choice.get("finish_reason") or "")
        content = message.get("content")
        usage = answer.get("usage") or {}
        taken = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise Retry("llm_http", f"not a chat completion: {shown(text)}") from None
    if finish == "content_filter" or message.get("refusal"):
        raise Retry("llm_refusal", shown(message.get("refusal") or "stopped by the server's content filter"))
    if finish == "length":
        return Completion(str(content or ""), finish, *taken)
    if not isinstance(content, str) or not content.strip():
        raise Retry("llm_http", f"an answer without text: {shown(text)}")
    return Completion(content, finish, *taken)


def make_chat(settings: ChatSettings) -> Chat:
    """The client of these settings, not yet opened."""
    return OpenAIChat(settings)

"""Requests to a server that fails."""

import asyncio
import time

import pytest

from data_prep.synthesis.backends import http
from data_prep.synthesis.backends.chat import ChatSettings, Completion, make_chat
from data_prep.synthesis.backends.http import Reasons, Server, ServerSettings
from data_prep.synthesis.stage import BackendError, Reject, Retry
from tests.data_prep.synthesis.fakes.server import FakeServer

REASONS = Reasons("llm_http", "llm_timeout")
MESSAGES = [{"role": "user", "content": "Say something."}]


def settings(*fakes: FakeServer, **given: object) -> ServerSettings:
    quick = {"timeout": 0.4, "retries": 2, "backoff": 0.01, **given}
    return ServerSettings.model_validate({"endpoints": tuple(f"{fake.address}/v1" for fake in fakes), **quick})


def post(asked: ServerSettings, times: int = 1) -> list[object]:
    """What becomes of so many posts at once: a body, or an exception."""

    async def run() -> list[object]:
        server = Server(asked, REASONS, "language model")
        await server.open()
        request = {"max_tokens": 10}
        try:
            posts = (server.post("chat/completions", json=request) for _ in range(times))
            return list(await asyncio.gather(*posts, return_exceptions=True))
        finally:
            await server.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("429", "llm_http"),
        ("500", "llm_http"),
        ("503", "llm_http"),
        ("reset", "llm_http"),
        ("cut_off", "llm_http"),
        ("huge", "llm_http"),
        ("timeout", "llm_timeout"),
        ("drip", "llm_timeout"),
    ],
)
def test_a_fault_that_stays_ends_in_its_reason_after_bounded_tries(fault: str, reason: str) -> None:
    """Neither an endless loop nor a lost item."""
    with FakeServer(always=fault) as fake:
        [error] = post(settings(fake, max_bytes=1_000_000))
        assert isinstance(error, Retry), error
        assert error.reason == reason
        assert "3 tries" in error.message
        assert len(fake.calls) == 3


@pytest.mark.parametrize("fault", ["429", "500", "503", "reset", "cut_off", "timeout", "drip"])
def test_a_fault_that_passes_costs_a_retry(fault: str) -> None:
    """A server that restarts must not cost items."""
    with FakeServer([fault, fault]) as fake:
        [answer] = post(settings(fake))
        assert not isinstance(answer, BaseException), answer
        assert len(fake.calls) == 3


def test_the_server_s_word_on_when_to_come_back_is_kept() -> None:
    """Asking earlier keeps an overrun server down; a date in the past means now."""
    with FakeServer(["429_wait"]) as fake:
        started = time.monotonic()
        post(settings(fake))
        assert time.monotonic() - started >= 0.3
    with FakeServer(["429_wait"]) as fake:
        started = time.monotonic()
        [answer] = post(settings(fake, longest_wait=0.0))  # the limit of ours is above theirs
        assert not isinstance(answer, BaseException)


@pytest.mark.parametrize("fault", ["400", "redirect_away"])
def test_what_will_not_pass_is_not_retried(fault: str) -> None:
    """A wrong request asked ten times over is no better; and no data goes to a host that nobody named."""
    with FakeServer(always=fault) as fake:
        [error] = post(settings(fake))
        assert isinstance(error, Reject)
        assert error.reason == "llm_http"
        assert len(fake.calls) == 1


@pytest.mark.parametrize(
    ("fault", "cure"),
    [
        ("401", "no key was sent: name the environment variable that holds one in api_key_env"),
        ("403", "no key was sent: name the environment variable that holds one in api_key_env"),
        ("404", "no such route or model there: correct endpoints or model"),
    ],
)
def test_a_server_that_refuses_everything_is_a_fault_of_the_whole(fault: str, cure: str) -> None:
    """A wrong key, route or model would refuse item after item; the endpoint, of several, is named."""
    with FakeServer(always=fault) as fake:
        [error] = post(settings(fake))
        assert isinstance(error, BackendError)
        assert len(fake.calls) == 1
        assert f"the language model at {fake.address}/v1/chat/completions answers status {fault}" in str(error)
        assert cure in str(error)


def test_one_request_that_moderation_declines_is_rejected_alone() -> None:
    """Some providers answer 403 to words that they do not like: one topic must not end a run for ever."""
    with FakeServer(always="403_flagged") as fake:
        [error] = post(settings(fake))
    assert isinstance(error, Reject)
    assert "flagged" in error.message


def test_a_redirect_on_the_same_host_is_followed() -> None:
    """Servers move routes by a slash."""
    with FakeServer(["redirect_here"]) as fake:
        [answer] = post(settings(fake))
        assert not isinstance(answer, BaseException)


def test_a_key_comes_from_the_environment_and_stays_out_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The messages are kept in the ledger and the report; the fake sends the key back in its errors."""
    monkeypatch.setenv("OUR_LLM", "very-private-value")
    with FakeServer(always="401") as fake:
        [error] = post(settings(fake, api_key_env="OUR_LLM"))
        assert isinstance(error, BackendError)
        assert fake.keys == ["Bearer very-private-value"]
        assert "private" not in str(error)
        assert "the key is from the environment variable OUR_LLM: is it right" in str(error)
    with FakeServer(always="402") as fake:
        [error] = post(settings(fake, api_key_env="OUR_LLM"))
        assert "OUR_LLM: has its account credit?" in str(error)
        monkeypatch.delenv("OUR_LLM")
        with pytest.raises(BackendError, match="set the environment variable OUR_LLM"):
            post(settings(fake, api_key_env="OUR_LLM"))


@pytest.mark.parametrize("key", ["very-private-value\r", "very-private-value\n", "“very-private-value”"])
def test_a_key_that_can_be_none_is_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """httpx refuses it in words that hold it, escaped, so that no mask finds it."""
    monkeypatch.setenv("OUR_LLM", key)
    with FakeServer() as fake:
        with pytest.raises(BackendError, match="OUR_LLM holds what no key can") as error:
            post(settings(fake, api_key_env="OUR_LLM"))
        assert "private" not in str(error.value)


def test_a_dead_endpoint_is_left_alone_and_the_other_does_the_work() -> None:
    """One of two servers down must cost neither items nor a timeout for each."""
    with FakeServer(always="500") as dead, FakeServer() as alive:
        answers = post(settings(dead, alive, retries=6, concurrency=2), 40)
        assert not any(isinstance(answer, BaseException) for answer in answers)
        assert len(alive.calls) == 40
        assert len(dead.calls) < 10


def test_where_no_server_is_the_run_stops_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server a run was silent for more than ten minutes, and would then have rejected item after item."""
    monkeypatch.setattr(http, "NOBODY_THERE", 0.2)
    with FakeServer() as first, FakeServer() as second:
        nowhere = settings(first, second, timeout=5, retries=4, backoff=0.1)
    errors = post(nowhere, 20)
    assert all(isinstance(error, BackendError) for error in errors), errors
    assert f"no language model at {', '.join(nowhere.endpoints)} (ConnectError: " in str(errors[0])
    assert "start it, or correct endpoints" in str(errors[0])


def test_one_server_that_is_not_there_does_not_stop_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several addresses one may be down, and the others slow to give their first answer."""
    monkeypatch.setattr(http, "NOBODY_THERE", 0.0)
    with FakeServer() as alive:
        with FakeServer() as dead:
            asked = settings(dead, alive, timeout=5, retries=6)
        answers = post(asked, 8)
    assert not any(isinstance(answer, BaseException) for answer in answers), answers


def test_an_endpoint_is_asked_no_more_at_once_than_allowed_and_less_when_overrun() -> None:
    """More at once than a server bears only makes it slower."""
    with FakeServer(always="slow") as fake:
        post(settings(fake, concurrency=3, timeout=10), 12)
        assert 1 < fake.most_running <= 3

    async def limits(fake: FakeServer) -> tuple[float, float]:
        server = Server(settings(fake, concurrency=8), REASONS, "language model")
        await server.open()
        await server.post("chat/completions", json={"max_tokens": 1})
        lowered = server._endpoints[0].limit
        for _ in range(40):
            await server.post("chat/completions", json={"max_tokens": 1})
        await server.close()
        return lowered, server._endpoints[0].limit

    with FakeServer(["429"]) as fake:
        lowered, raised = asyncio.run(limits(fake))
        assert lowered == pytest.approx(4.25)
        assert raised == 8


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://host/v1", "http://user:secret@host/v1", ""])
def test_an_address_that_is_none_is_refused_at_once(address: str) -> None:
    """And a password in it would be written into every report."""
    with pytest.raises(ValueError, match="address") as refused:
        ServerSettings(endpoints=(address,))
    assert "user:secret" not in str(refused.value.errors()[0]["msg"])  # type: ignore[attr-defined]


def complete(fake: FakeServer, schema: dict[str, object] | None = None, **given: object) -> Completion:
    async def run() -> Completion:
        base = {
            "endpoints": (f"{fake.address}/v1",),
            "timeout": 0.5,
            "retries": 1,
            "backoff": 0.01,
            "model": "some-model",
        }
        chat = make_chat(ChatSettings.model_validate(base | given))
        await chat.open()
        try:
            return await chat.complete(MESSAGES, schema, seed=7, max_tokens=50, temperature=0.5)
        finally:
            await chat.close()

    return asyncio.run(run())


def test_a_completion_is_asked_for_with_all_that_bounds_it() -> None:
    """Without max_tokens a loop never ends; without the seed a retry may repeat."""
    schema = {"type": "object"}
    with FakeServer() as fake:
        assert complete(fake, schema, extra={"top_p": 0.9}) == ('{"words": "I am glad to hear it."}', "stop", 30, 12)
        [(path, fields)] = fake.calls
        assert path == "/v1/chat/completions"
        assert fields == {
            "model": "some-model",
            "messages": MESSAGES,
            "max_tokens": 50,
            "temperature": 0.5,
            "seed": 7,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema, "strict": True},
            },
            "top_p": 0.9,
        }
        complete(fake, schema, format="json_object", limit_key="max_completion_tokens")
        assert fake.calls[-1][1]["response_format"] == {"type": "json_object"}
        assert fake.calls[-1][1]["max_completion_tokens"] == 50
        complete(fake, None)
        assert "response_format" not in fake.calls[-1][1]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("refusal", "llm_refusal"),
        ("filtered", "llm_refusal"),
        ("no_text", "llm_http"),
        ("no_choices", "llm_http"),
        ("html", "llm_http"),
    ],
)
def test_an_answer_that_is_none_has_its_reason(fault: str, reason: str) -> None:
    """It is asked for once: the stage retries with another seed."""
    with FakeServer(always=fault) as fake:
        with pytest.raises(Retry) as refused:
            complete(fake)
        assert refused.value.reason == reason
        assert len(fake.calls) == 1


def test_a_model_that_loops_is_returned_as_cut_off_with_its_tokens() -> None:
    """The tokens are paid for, so they must be counted."""
    with FakeServer(always="whitespace") as fake:
        answer = complete(fake)
        assert (answer.finish, answer.tokens_out) == ("length", 50)

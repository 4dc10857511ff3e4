"""Questions to a chat endpoint over real HTTP: what is counted, how long is waited (faults: test_judging.py)."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from omnichat.metrics.endpoint import Answered, Endpoint, NoAnswer
from tests.fake_endpoint import Fake, Reply, completion, serve

pytest.importorskip("httpx", reason="httpx (extra `eval`) is not installed")

QUESTION = [{"role": "user", "content": "how many?"}]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would be waited before each attempt; nobody waits."""
    found: list[float] = []
    monkeypatch.setattr("omnichat.metrics.endpoint.time", SimpleNamespace(sleep=found.append))
    return found


def ask(fake: Fake, check: Callable[[str], Any] = int, count: int = 1, attempts: int = 5) -> list[Answered[Any]]:
    """A question with the seed 3."""
    return Endpoint(fake.url, "m", attempts=attempts, backoff=2.0).ask(QUESTION, "n", {}, check, seed=3, count=count)


def test_tokens_are_counted_once_and_no_answer_more_than_asked_for(waits: list[float]) -> None:
    """Fails when a bill is counted for each answer, or a server that is too eager weighs more than others."""

    def script(number: int, body: dict[str, Any]) -> Reply:
        return {"record": completion("1", "m-1", "2", "3")}

    with serve(script) as fake:
        assert ask(fake, count=2) == [Answered(1, "m-1", 100, 20, 1), Answered(2, "m-1", 0, 0, 1)]
        assert ask(fake) == [Answered(1, "m-1", 100, 20, 1)]
        assert [body.get("n") for body in fake.bodies] == [2, None]
    assert waits == [0, 0]


def test_each_attempt_waits_twice_as_long_and_has_another_seed(waits: list[float]) -> None:
    """Fails when a busy server is hurried, or asked for the same nonsense again."""
    with serve(lambda number, body: "nonsense") as fake:
        with pytest.raises(NoAnswer, match="attempt 5 of 5") as caught:
            ask(fake)
        assert caught.value.reason == "nonsense"
        assert [body["seed"] for body in fake.bodies] == [300, 301, 302, 303, 304]
    assert waits[0] == 0
    for wait, expected in zip(waits[1:], (2, 4, 8, 16), strict=True):
        assert 0.75 * expected <= wait <= 1.25 * expected


def test_the_server_says_how_long_to_wait(waits: list[float]) -> None:
    """Fails when `Retry-After` is passed over, or a date or a day there is obeyed."""

    def script(number: int, body: dict[str, Any]) -> Reply:
        headers = ("7", "90000", "Sat, 28 Nov 2026 00:00:00 GMT")
        return {"status": 429, "headers": {"Retry-After": headers[number]}} if number < 3 else "4"

    with serve(script) as fake:
        assert [answer.content for answer in ask(fake)] == [4]
    assert waits[:3] == [0, 7, 60]
    assert 6 <= waits[3] <= 10


def test_a_server_that_is_not_there_is_asked_again(waits: list[float]) -> None:
    """Fails when one lost connection ends a question."""
    with serve(lambda number, body: "4") as fake:
        pass
    with pytest.raises(NoAnswer, match="no connection to ") as caught:
        ask(fake, attempts=3)
    assert caught.value.reason == "unreachable"
    assert len(waits) == 3

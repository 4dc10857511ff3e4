"""Requests to servers that fail: several endpoints in turn, bounded retries, no more at once than they bear.

A server is given up for a while after failures in a row, and asked less at a time after each sign that it is overrun
(additive increase, multiplicative decrease, as TCP does). What comes back is read to a largest size and within a time
limit for the whole answer, so that neither an endless nor a dripping one holds a worker.
"""

import asyncio
import contextlib
import email.utils
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from pydantic import AfterValidator, Field

from data_prep.synthesis.contracts import Contract
from data_prep.synthesis.stage import BackendError, Reject, Retry
from omnichat.metrics.endpoint import declined
from omnichat.secrets import MASK, UNSENDABLE, can_be_sent, masked

if TYPE_CHECKING:
    import httpx

OVERRUN = (408, 425, 429, 500, 502, 503, 504, 529)  # may pass; 529 is what some servers call overloaded
REFUSED_ALL = (401, 402, 403, 404)  # a wrong key, no credit, a wrong route or model: the same for every request
REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 3
SHOWN = 200  # characters of a server's message
FAILURES_TO_BREAK = 5  # in a row
LONGEST_PAUSE = 120.0  # seconds that an endpoint is left alone
NOBODY_THERE = 5.0  # seconds after which endpoints that have never taken a connection are given up


def addresses(endpoints: tuple[str, ...]) -> tuple[str, ...]:
    """The same, checked.

    Raises:
        ValueError: one is no address, or holds a password.
    """
    for endpoint in endpoints:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{masked(endpoint)!r} is not an address like http://localhost:8000/v1")
        if parts.username or parts.password:
            raise ValueError("an address must not hold a password; name an environment variable in api_key_env")
    return endpoints


class ServerSettings(Contract):
    """Where a server is and how it is asked.

    Attributes:
        endpoints: base addresses, asked in turn: "http://localhost:8000/v1".
        api_key_env: environment variable that holds the key; a key never stands in a configuration.
        timeout: seconds for a whole answer.
        retries: of a request after its first try, before the attempt is given up.
        backoff: seconds before the first retry; doubled each time, and drawn between half and all of it.
        longest_wait: seconds that are waited at most before a retry, whatever the server asks for.
        concurrency: requests at once to an endpoint, at most.
        max_bytes: of an answer.
    """

    endpoints: Annotated[tuple[str, ...], AfterValidator(addresses)] = Field(min_length=1)
    api_key_env: str = ""
    timeout: float = Field(default=120.0, gt=0)
    retries: int = Field(default=4, ge=0)
    backoff: float = Field(default=0.5, ge=0)
    longest_wait: float = Field(default=60.0, ge=0)
    concurrency: int = Field(default=16, ge=1)
    max_bytes: int = Field(default=64 * 2**20, ge=1)


class Reasons(NamedTuple):
    """By what reasons a server's faults are counted."""

    http: str
    timeout: str


class Answer(NamedTuple):
    """Of a server, with status 200."""

    body: bytes
    content_type: str


@dataclass
class _Endpoint:
    """How one endpoint fares."""

    address: str
    most: int
    limit: float = 0.0
    running: int = 0
    failures: int = 0  # in a row
    closed_until: float = 0.0
    lowered: float = 0.0
    reached: bool | None = None  # whether it has ever taken a connection; None before the first

    def __post_init__(self) -> None:
        self.limit = float(self.most)

    def places(self) -> int:
        """Requests at once; a single one on probation after a pause."""
        return 1 if self.failures >= FAILURES_TO_BREAK else int(self.limit)

    def succeeded(self) -> None:
        self.failures = 0
        self.limit = min(self.most, self.limit + 1 / self.limit)

    def failed(self) -> None:
        now = time.monotonic()
        self.failures += 1
        if now - self.lowered > 0.5:  # requests that fail together are one sign
            self.limit, self.lowered = max(1.0, self.limit / 2), now
        if self.failures >= FAILURES_TO_BREAK:
            longest = NOBODY_THERE / 2 if self.reached is False else LONGEST_PAUSE
            pause = min(longest, 2.0 ** (self.failures - FAILURES_TO_BREAK))
            self.closed_until = now + pause * random.uniform(0.5, 1)


class _Failed(Exception):
    """A try that may go better another time, after `wait` seconds where the server says so."""

    def __init__(self, reason: str, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.reason, self.wait = reason, wait


class Server:
    """One server behind one or more endpoints. To be used in the event loop in which it is opened."""

    def __init__(self, settings: ServerSettings, reasons: Reasons, what: str) -> None:
        self.settings, self.reasons, self.what = settings, reasons, what
        self._client: httpx.AsyncClient | None = None
        self._endpoints: list[_Endpoint] = []
        self._changed = asyncio.Condition()
        self._next = 0
        self._alone_since: float | None = None
        self._key = ""

    async def open(self) -> None:
        """Make the connection pool.

        Raises:
            BackendError: the key's variable is empty, or holds what no key can.
        """
        import httpx

        settings = self.settings
        self._key = os.environ.get(settings.api_key_env, "") if settings.api_key_env else ""
        if settings.api_key_env and not self._key:
            raise BackendError(f"the {self.what}'s key is missing: set the environment variable {settings.api_key_env}")
        if not can_be_sent(self._key):
            raise BackendError(f"the {self.what}'s key: {settings.api_key_env} {UNSENDABLE}")
        here: dict[str, httpx.AsyncBaseTransport | None] = {"all://localhost": None, "all://127.0.0.1": None}
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(settings.timeout, connect=min(10.0, settings.timeout), pool=None),
            limits=httpx.Limits(max_connections=None),
            follow_redirects=False,
            verify=any(
                address.startswith("https:") for address in settings.endpoints
            ),  # certificates take time to read
            mounts=here,  # no proxy on the way to this machine
        )
        self._endpoints = [_Endpoint(address.rstrip("/"), settings.concurrency) for address in settings.endpoints]

    async def close(self) -> None:
        """End all connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def post(self, path: str, **content: Any) -> Answer:
        """The answer to `POST endpoint/path`; `content` is httpx's json=, data= or files=.

        Raises:
            Retry: the reasons given at the start, when all retries are used up.
            Reject: the server refuses the request for good (a 4xx), or sends it to another host.
            BackendError: it refuses all requests: a wrong key, route or model; or there is no server.
        """
        for number in range(self.settings.retries + 1):
            endpoint = await self._take()
            try:
                answer = await self._try(endpoint, path, content)
                endpoint.succeeded()
                return answer
            except _Failed as error:
                endpoint.failed()
                last = error
                self._raise_if_nobody_is_there(error)
            finally:
                await self._give_back(endpoint)
            if number < self.settings.retries:
                await asyncio.sleep(self._wait(number, last.wait))
        tries = f"{self.settings.retries + 1} tries; the last: " if self.settings.retries else ""
        raise Retry(last.reason, f"{self.what}: {tries}{last}")

    def _raise_if_nobody_is_there(self, error: _Failed) -> None:
        """A server that is not started, or a wrong address, would cost every item its tries, and then the item."""
        now = time.monotonic()
        self._alone_since = now if self._alone_since is None else self._alone_since
        nobody = all(endpoint.reached is False for endpoint in self._endpoints)
        if nobody and now - self._alone_since >= NOBODY_THERE:
            addresses = ", ".join(endpoint.address for endpoint in self._endpoints)
            raise BackendError(f"no {self.what} at {addresses} ({error}): start it, or correct endpoints") from None

    def _wait(self, number: int, asked: float | None) -> float:
        drawn = self.settings.backoff * 2**number * random.uniform(0.5, 1)
        return min(self.settings.longest_wait, max(drawn, asked or 0.0))

    async def _take(self) -> _Endpoint:
        """A place at the next endpoint that is open and has one; waits for it."""
        async with self._changed:
            while True:
                now = time.monotonic()
                count = len(self._endpoints)
                turns = [self._endpoints[(self._next + shift) % count] for shift in range(count)]
                for endpoint in turns:
                    if endpoint.closed_until <= now and endpoint.running < endpoint.places():
                        self._next = (self._next + 1) % count
                        endpoint.running += 1
                        return endpoint
                waits = [endpoint.closed_until - now for endpoint in turns if endpoint.closed_until > now]
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), min(waits, default=None))

    async def _give_back(self, endpoint: _Endpoint) -> None:
        async with self._changed:
            endpoint.running -= 1
            self._changed.notify_all()

    async def _try(self, endpoint: _Endpoint, path: str, content: Mapping[str, Any]) -> Answer:
        import httpx

        address = f"{endpoint.address}/{path.lstrip('/')}"
        try:
            async with asyncio.timeout(self.settings.timeout):
                for _ in range(MAX_REDIRECTS + 1):
                    status, headers, body = await self._exchange(address, content)
                    endpoint.reached = True
                    if status not in REDIRECTS:
                        break
                    address = self._followed(address, headers.get("location", ""))
        except (TimeoutError, httpx.TimeoutException):
            raise _Failed(self.reasons.timeout, f"no whole answer in {self.settings.timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if isinstance(error, httpx.ConnectError):
                endpoint.reached = endpoint.reached or False
            message = self._hidden(f"{type(error).__name__}: {error}")
            raise _Failed(self.reasons.http, message) from None
        if status == 200:
            return Answer(body, headers.get("content-type", ""))
        shown = self._hidden(f"status {status}: {body[: 4 * SHOWN].decode(errors='replace').strip()[:SHOWN]}")
        if status in OVERRUN:
            raise _Failed(self.reasons.http, shown, _retry_after(headers.get("retry-after", "")))
        if status in REFUSED_ALL and not declined(status, shown):
            raise BackendError(f"the {self.what} at {address} answers {shown}; {self._cure(status)}")
        raise Reject(self.reasons.http, f"{self.what}: {shown}")

    def _cure(self, status: int) -> str:
        if status == 404:
            return "no such route or model there: correct endpoints or model"
        if not self.settings.api_key_env:
            return "no key was sent: name the environment variable that holds one in api_key_env"
        asked = "has its account credit" if status == 402 else "is it right, and for this model"
        return f"the key is from the environment variable {self.settings.api_key_env}: {asked}?"

    async def _exchange(self, address: str, content: Mapping[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        assert self._client is not None, "open() first"
        parts, size = [], 0
        async with self._client.stream("POST", address, **content) as response:
            async for part in response.aiter_bytes():
                size += len(part)
                if size > self.settings.max_bytes:
                    raise _Failed(self.reasons.http, f"the answer is larger than {self.settings.max_bytes} bytes")
                parts.append(part)
            return response.status_code, response.headers, b"".join(parts)

    def _followed(self, address: str, location: str) -> str:
        """Where a redirect leads, if that is the same host: neither key nor data go elsewhere."""
        target = urljoin(address, location)
        if not location or urlsplit(target)[:2] != urlsplit(address)[:2]:
            shown = self._hidden(target)
            raise Reject(self.reasons.http, f"{self.what}: a redirect to {shown}; name that host in endpoints if meant")
        return target

    def _hidden(self, text: str) -> str:
        return str(masked(text.replace(self._key, MASK) if self._key else text))


def _retry_after(value: str) -> float | None:
    """Seconds, of the header's two forms: seconds or a date."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None

"""A fake OpenAI-compatible chat endpoint: the real protocol over real HTTP, answers and faults as a test names them."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = str | dict[str, Any]  # the content of the answer; or a fault, see `Fake.answer`


@dataclass
class Fake:
    """Answers requests by `script(number, body)`, and keeps what it was asked."""

    script: Callable[[int, dict[str, Any]], Reply]
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def completion(content: str | None, model: str, *more: str, **choice: Any) -> dict[str, Any]:
    """A chat completion as OpenAI sends it; with `more` of them where `n` asked for several."""
    message = {"role": "assistant", "content": content, "refusal": choice.pop("refusal", None)}
    others = [
        {"index": number, "message": {"role": "assistant", "content": one, "refusal": None}, "finish_reason": "stop"}
        for number, one in enumerate(more, 1)
    ]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}, *others],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }


@contextmanager
def serve(script: Callable[[int, dict[str, Any]], Reply]) -> Iterator[Fake]:
    """A server on a free port of this machine."""
    fake = Fake(script)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with fake.lock:
                number = len(fake.bodies)
                fake.bodies.append(body)
                fake.headers.append({name.lower(): value for name, value in self.headers.items()})
            if self.path != "/v1/chat/completions":
                self.send(404, b'{"error": {"message": "no such path"}}')
                return
            reply = fake.script(number, body)
            if isinstance(reply, str):
                reply = {"record": completion(reply, body["model"])}
            time.sleep(reply.get("delay", 0))
            record = json.dumps(reply.get("record", {"error": {"message": "no"}})).encode()
            content = reply.get("raw", record)
            self.send(reply.get("status", 200), content, reply.get("cut", 0), reply.get("headers", {}))

        def send(self, status: int, content: bytes, cut: int = 0, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):  # the client may have given up waiting
                self.wfile.write(content[: len(content) - cut])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()

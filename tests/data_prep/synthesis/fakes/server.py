"""A fake server of language models, speech and recognition: real protocols over real sockets, faults on demand.

Its "speech" is a buzz in syllables whose length fits the words; its recogniser remembers what it said by the length.
"""

import io
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

import numpy as np
import soundfile
from numpy.typing import NDArray

from tests.data_prep.synthesis.fakes.author import Author

RATE = 16000
SECONDS_PER_CHARACTER = 0.07
REPLY = json.dumps({"words": "I am glad to hear it."})


def buzz(seconds: float) -> NDArray[np.float32]:
    """Speech-like in level and rhythm."""
    time_axis = np.arange(int(seconds * RATE)) / RATE
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * time_axis)
    return (0.3 * syllables * np.sin(2 * np.pi * 150 * time_axis)).astype(np.float32)


class FakeServer:
    """Serves in threads of its own until it is left.

    Attributes:
        faults: what the next requests meet, one each; "" for none.
        always: the fault of all requests after those.
        after: what the next requests to one route meet, by the route; comes before the others.
        calls: path and fields of every request, in order.
        keys: the authorization header of every request.
        heard: transcript by number of samples.
        emotion: what the emotion route answers.
        author: who writes the chat answers, and says what they meet; None: always the same words.
        hears: transcript of the n-th recording, from 0, of what was said.
    """

    def __init__(self, faults: Sequence[str] = (), always: str = "", author: Author | None = None) -> None:
        self.faults, self.always, self.author = list(faults), always, author
        self.after: dict[str, list[str]] = {}
        self.hears: Callable[[str, int], str] = lambda said, number: said
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.keys: list[str] = []
        self.heard: dict[int, str] = {}
        self.emotion: dict[str, float] = {"happy": 0.9, "sad": 0.1}
        self.running = self.most_running = 0
        self.closing = threading.Event()
        self.lock = threading.Lock()
        fake = self

        class Handler(_Handler):
            server_state = fake

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def planned(self, path: str) -> str:
        with self.lock:
            faults = [faults for route, faults in self.after.items() if path.endswith(route) and faults]
            return faults[0].pop(0) if faults else ""

    def next_fault(self) -> str:
        with self.lock:
            return self.faults.pop(0) if self.faults else self.always

    def transcript(self, length: int) -> str:
        """What is heard in a recording of so many samples."""
        with self.lock:
            said = self.heard.get(length, "")
            before = list(self.heard)[: list(self.heard).index(length)] if said else []
            return self.hears(said, sum(self.heard[other] == said for other in before))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: FakeServer

    def log_message(self, format: str, *args: Any) -> None:
        """Be quiet."""

    def do_POST(self) -> None:
        fake = self.server_state
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fields = fields_of(self.headers.get("Content-Type", ""), body)
        with fake.lock:
            fake.calls.append((self.path, fields))
            fake.keys.append(self.headers.get("Authorization", ""))
            fake.running += 1
            fake.most_running = max(fake.most_running, fake.running)
        try:
            chat = self.path.endswith("/chat/completions")
            fault = fake.planned(self.path)
            if not fault:
                fault = fake.author.fault(fields) if chat and fake.author else fake.next_fault()
            if fault in TRANSPORT:
                TRANSPORT[fault](self)
            elif chat:
                text = fake.author.write(fields, fault) if fake.author else REPLY
                self.send_json(chat_answer(fields, fault, text))
            elif self.path.endswith("/audio/speech"):
                self.send_body(*speech_answer(fake, fields["input"], fields, fault))
            elif "/inference_" in self.path:
                self.send_body(*speech_answer(fake, fields["tts_text"], fields | {"response_format": "pcm"}, fault))
            elif self.path.endswith("/audio/transcriptions"):
                wave, _ = soundfile.read(io.BytesIO(fields["file"]))
                text = "something else entirely" if fault == "misheard" else fake.transcript(len(wave))
                self.send_json({"text": text})
            elif self.path.endswith("/emotion"):
                self.send_json([{"label": name, "score": score} for name, score in fake.emotion.items()])
            else:
                self.send_body(b'{"error": "no such route"}', "application/json", 404)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with fake.lock:
                fake.running -= 1

    def send_json(self, value: Any, status: int = 200) -> None:
        self.send_body(json.dumps(value).encode(), "application/json", status)

    def send_body(self, body: bytes, kind: str, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


def fields_of(kind: str, body: bytes) -> dict[str, Any]:
    """Of a JSON body, or a form of either kind; files as bytes."""
    if kind.startswith("application/json"):
        return dict(json.loads(body))
    if kind.startswith("application/x-www-form-urlencoded"):
        return {name: values[0] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
    if kind.startswith("audio/"):
        return {"audio": body}
    message = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    found: dict[str, Any] = {}
    for part in message.get_payload():  # type: ignore[union-attr]
        name = re.search(r'name="([^"]*)"', str(part["Content-Disposition"]))
        payload = part.get_payload(decode=True)  # type: ignore[union-attr]
        assert name is not None
        found[name[1]] = payload if part.get_filename() else payload.decode()  # type: ignore[union-attr]
    return found


def _stall(handler: _Handler) -> None:
    handler.server_state.closing.wait(20)


def _reset(handler: _Handler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()
    handler.rfile, handler.wfile = io.BytesIO(), io.BytesIO()  # type: ignore[assignment]


def _drip(handler: _Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not handler.server_state.closing.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def _cut_off(handler: _Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"mess')
    handler.close_connection = True


def _html(handler: _Handler) -> None:
    handler.send_body(b"<!DOCTYPE html><html><body>Welcome to nginx!</body></html>", "text/html")


def _huge(handler: _Handler) -> None:
    handler.send_body(b" " * 5_000_000, "application/octet-stream")


def _status(code: int, message: str = "not now", **headers: str) -> Callable[[_Handler], None]:
    def send(handler: _Handler) -> None:
        said = json.dumps({"error": {"message": message, "got": handler.headers.get("Authorization", "")}}).encode()
        handler.send_body(said, "application/json", code, **headers)

    return send


def _slow(handler: _Handler) -> None:
    time.sleep(0.05)
    handler.send_json(chat_answer({"max_tokens": 10}, "", REPLY))


TRANSPORT: dict[str, Callable[[_Handler], None]] = {
    "429": _status(429),
    "429_wait": _status(429, Retry_After="0.3"),
    "500": _status(500),
    "503": _status(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
    "400": _status(400),
    **{str(code): _status(code) for code in (401, 402, 403, 404)},
    "403_flagged": _status(403, "the model requires moderation and your input was flagged for violence"),
    "redirect_away": _status(307, Location="http://elsewhere.invalid/v1/chat/completions"),
    "redirect_here": _status(307, Location="/v1/chat/completions"),
    "timeout": _stall,
    "reset": _reset,
    "drip": _drip,
    "cut_off": _cut_off,
    "html": _html,
    "huge": _huge,
    "slow": _slow,
}


def chat_answer(fields: dict[str, Any], fault: str, text: str) -> dict[str, Any]:
    """A chat completion in OpenAI's form."""
    finish, refusal = "stop", None
    if fault == "truncated_json":
        text = text[:-8]
    elif fault == "whitespace":
        text, finish = '{"words":' + "\n" * int(fields["max_tokens"]), "length"
    elif fault == "refusal":
        text, refusal = "", "I cannot help with that."
    elif fault == "filtered":
        text, finish = "", "content_filter"
    elif fault == "no_text":
        text = ""
    if fault == "no_choices":
        return {"error": "the engine is dead"}
    message = {"role": "assistant", "content": text or None, "refusal": refusal}
    taken = int(fields.get("max_tokens", 0)) if finish == "length" else 12
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 30, "completion_tokens": taken, "total_tokens": 30 + taken},
    }


def speech_answer(fake: FakeServer, text: str, fields: dict[str, Any], fault: str) -> tuple[bytes, str]:
    """Audio in the form that was asked for, and its content type."""
    said = text
    if fault == "instruction_aloud":
        said = f"{fields.get('instructions') or fields.get('instruct_text')} {text}"
    with fake.lock:  # a length of its own, so that the recogniser knows it again
        length = round(max(4, len(said)) * SECONDS_PER_CHARACTER * RATE)
        while length in fake.heard:
            length += 1
        fake.heard[length] = said
    wave = buzz((length + 0.5) / RATE)[:length]
    wave = {
        "silence": lambda: 0 * wave,
        "clipped": lambda: np.clip(20 * wave, -1, 1),
        "long": lambda: np.tile(wave, 10),
        "short": lambda: wave[: len(wave) // 10],
        "no_samples": lambda: wave[:0],
    }.get(fault, lambda: wave)()
    if fault == "empty":
        return b"", "audio/wav"
    if fault == "garbage":
        return b"RIFF" + b"\x00" * 200, "audio/wav"
    form = fields.get("response_format", "wav")
    if form == "pcm":
        body = np.round(wave * 32767).astype("<i2").tobytes()
        return (body[:-1] if fault == "odd" else body), "audio/pcm"
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, RATE, format=form.upper(), subtype="PCM_16")
    return buffer.getvalue(), f"audio/{form}"

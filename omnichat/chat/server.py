"""A run in the browser: `python -m omnichat.chat run=runs/NAME serve=8000`. For this machine, and nothing but Python.

    GET  /                      the page
    POST /reply?session=S       a recording, as any form that libsndfile reads, or nothing; words in `text=`
                                -> a line of JSON for each token: {"style", "text"}; the last has "gates" and "seconds",
                                or {"error"}
    POST /reset?session=S       a new dialogue

It listens on 127.0.0.1 only, and answers no page but its own: others in the same browser could else speak to it.
"""

import contextlib
import json
import tempfile
from collections import OrderedDict
from collections.abc import Generator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any
from urllib.parse import parse_qs, urlsplit

from omnichat.audio import SAMPLE_RATE, audio_ref
from omnichat.chat.chat import Chat, LoadedRun
from omnichat.dialogue import DataError
from omnichat.recipes import did_you_mean
from omnichat.secrets import masked

HOST = "127.0.0.1"
PAGE = Path(__file__).with_name("page.html")
MAX_BYTES = 24 * 2**20  # of a recording: 60 s of 48 kHz stereo in 32 bits
MAX_SECONDS = 60.0
MAX_SESSIONS = 16  # dialogues that are kept, each with its cache; the one that rested longest goes first


class ChatServer(ThreadingHTTPServer):
    """Dialogues with one run, answered one at a time: they share the model.

    Args:
        run: that answers.
        port: to listen on; 0 for any that is free.
    """

    daemon_threads = True

    def __init__(self, run: LoadedRun, port: int) -> None:
        super().__init__((HOST, port), _Handler)
        self.run = run
        self._chats: OrderedDict[str, Chat] = OrderedDict()
        self._turn = Lock()

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_address[1]}"

    def reset(self, session: str) -> None:
        """Forget a dialogue."""
        with self._turn:
            self._chats.pop(session, None)

    def answer(self, session: str, recording: bytes, text: str) -> Generator[dict[str, Any], None, None]:
        """The reply as it grows, as `/reply` sends it. Closed early, the dialogue goes on from what was sent."""
        with self._turn, tempfile.TemporaryDirectory() as folder:
            chat = self._chats.pop(session, None) or Chat(self.run)
            started = perf_counter()
            try:
                audio = None
                if recording and self.run.prompt.input != "text":
                    audio = Path(folder) / "recording"
                    audio.write_bytes(recording)
                    seconds = audio_ref(audio).num_samples / SAMPLE_RATE
                    if seconds > MAX_SECONDS:
                        raise DataError("too_long", f"{seconds:.0f} s; at most {MAX_SECONDS:.0f} s are heard at once")
                line: dict[str, Any] = {}
                with contextlib.closing(chat.stream(audio, text)) as replies:
                    for reply in replies:
                        line = {"style": reply.style and reply.style.known(), "text": reply.text}
                        yield line
                yield {**line, "gates": chat.gates, "seconds": round(perf_counter() - started, 2)}
            except DataError as error:  # nothing was taken up into the dialogue
                yield {"error": f"{error.message.replace(f'{folder}/', '')} [{error.reason}]"}
            except GeneratorExit:
                self._keep(session, chat)
                raise
            self._keep(session, chat)

    def _keep(self, session: str, chat: Chat) -> None:
        self._chats[session] = chat
        while len(self._chats) > MAX_SESSIONS:
            self._chats.popitem(last=False)


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_GET(self) -> None:
        """The page."""
        if not self._is_ours() or urlsplit(self.path).path != "/":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        prompt = self.server.run.prompt
        about = {"input": prompt.input, "run": self.server.run.config.run_name, "step": self.server.run.step}
        page = PAGE.read_text(encoding="utf-8").replace("{{ABOUT}}", json.dumps(about).replace("<", "\\u003c"))
        self._begin("text/html; charset=utf-8")
        self.wfile.write(page.encode())

    def do_POST(self) -> None:
        """A turn, or a new dialogue."""
        address = urlsplit(self.path)
        given = {name: values[0] for name, values in parse_qs(address.query).items()}
        length, known = self.headers.get("Content-Length", ""), ("/reply", "/reset")
        if not self._is_ours():
            self.send_error(HTTPStatus.FORBIDDEN)
        elif address.path not in known or not given.get("session"):
            self.send_error(HTTPStatus.NOT_FOUND, f"session= is missing{did_you_mean(address.path, known)}")
        elif not length.isdecimal():
            self.send_error(HTTPStatus.LENGTH_REQUIRED)
        elif int(length) > MAX_BYTES:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_BYTES >> 20} MB")
        else:
            recording = self.rfile.read(int(length))
            self._begin("application/x-ndjson")
            if address.path == "/reset":
                self.server.reset(given["session"])
                return
            with contextlib.closing(self.server.answer(given["session"], recording, given.get("text", ""))) as lines:
                for line in lines:
                    self.wfile.write(json.dumps(masked(line)).encode() + b"\n")  # whoever left interrupts the reply
                    self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what is said is nobody else's."""

    def handle(self) -> None:
        """One request; a browser that went away is no fault."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            super().handle()

    def _is_ours(self) -> bool:
        """Whether the browser means this server, and no other page is speaking through it."""
        port = self.server.server_address[1]
        hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        origin = self.headers.get("Origin")
        return self.headers.get("Host") in hosts and (origin is None or origin in {f"http://{host}" for host in hosts})

    def _begin(self, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "default-src 'self' 'unsafe-inline' blob:")
        self.end_headers()

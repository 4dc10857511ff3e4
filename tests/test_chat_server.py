"""A run in the browser: the protocol by a plain client, and the page in a real Chromium where there is one."""

import http.client
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import soundfile

from omnichat.audio import audio_ref, load_audio
from omnichat.chat import Chat, LoadedRun, load_run
from omnichat.chat import server as serving
from omnichat.chat.__main__ import main
from omnichat.chat.server import ChatServer
from omnichat.config import load_config
from omnichat.training.fit import fit
from tests.browser import chromium

QUICK = ("data.made_up=4", "trainer.max_steps=1", "trainer.warmup_steps=1", "trainer.validate_every=0")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    """A run of one step."""
    folder = tmp_path_factory.mktemp("runs") / "served"
    fit(load_config("recipe=smoke", *QUICK, "preflight=off"), folder)
    return load_run(folder)


@pytest.fixture(scope="module")
def clips(run: LoadedRun) -> list[Path]:
    """Recordings to say."""
    made = Path(str(run.config.data.val["val"])).parent
    return sorted(made.rglob("*.wav"))[:3]


@pytest.fixture
def server(run: LoadedRun) -> Iterator[ChatServer]:
    """Listening on any free port."""
    with ChatServer(run, 0) as started:
        thread = threading.Thread(target=started.serve_forever, daemon=True)
        thread.start()
        yield started
        started.shutdown()


def ask(server: ChatServer, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    """Status and body of a POST."""
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    return response.status, response.read()


def reply(server: ChatServer, session: str, body: bytes, **more: str) -> list[dict[str, Any]]:
    """The lines that answer a recording."""
    status, content = ask(server, f"/reply?{urlencode({'session': session, **more})}", body)
    assert status == 200
    return [json.loads(line) for line in content.splitlines()]


def test_the_dialogue_is_that_of_a_chat(server: ChatServer, run: LoadedRun, clips: list[Path]) -> None:
    """Two people at once have two dialogues; each is what `Chat` alone would answer, history included."""
    chat = Chat(run)
    for clip in clips[:2]:
        expected, got = chat.reply(clip), reply(server, "a", clip.read_bytes())
        assert expected.style is not None
        assert (got[-1]["style"], got[-1]["text"]) == (expected.style.known(), expected.text)
        assert got[-1]["gates"] == chat.gates
        assert set(chat.gates) == {"whisper", "emotion2vec", "beats"}
        assert all(0 < gate < 1 for gate in chat.gates.values())
        assert len(got) > 2
        assert expected.text.startswith(got[-3]["text"])
        other = reply(server, "b", clip.read_bytes())
        assert other[-1]["text"] == expected.text
    assert ask(server, "/reset?session=a")[0] == 200
    assert reply(server, "a", clips[0].read_bytes())[-1]["text"] == Chat(run).reply(clips[0]).text


def test_bad_recordings_are_named_and_leave_the_dialogue(
    server: ChatServer, run: LoadedRun, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends a wrong file is told in the page, and goes on as if nothing had been said."""
    chat = Chat(run)
    chat.reply(clips[0])
    reply(server, "a", clips[0].read_bytes())
    (fault,) = reply(server, "a", b"<html>")
    assert "[unreadable]" in fault["error"]
    assert "/tmp" not in fault["error"]
    (fault,) = reply(server, "a", b"")
    assert "[no_audio]" in fault["error"]
    monkeypatch.setattr(serving, "MAX_SECONDS", 0.01)
    (fault,) = reply(server, "a", clips[0].read_bytes())
    assert "[too_long]" in fault["error"]
    monkeypatch.undo()
    assert reply(server, "a", clips[1].read_bytes())[-1]["text"] == chat.reply(clips[1]).text


def test_only_its_own_page_may_speak(server: ChatServer, clips: list[Path]) -> None:
    """Any other page that is open in the browser could else talk to the model; and a body has a limit."""
    port = server.server_address[1]
    path = "/reply?session=a"
    for headers, status in (
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Host": "elsewhere.example"}, 403),  # a name that was made to point here
        ({"Origin": f"http://localhost:{port}", "Host": f"localhost:{port}"}, 200),
        ({"Content-Length": "99999999"}, 413),
        ({"Content-Length": "x"}, 411),
    ):
        assert ask(server, path, clips[0].read_bytes(), **headers)[0] == status, headers
    assert ask(server, "/reply")[0] == ask(server, "/rely?session=a")[0] == 404


def test_few_dialogues_are_kept(server: ChatServer, clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a cache; pages that were closed long ago must not fill the memory."""
    monkeypatch.setattr(serving, "MAX_SESSIONS", 2)
    for session in "abc":
        reply(server, session, clips[0].read_bytes())
    assert list(server._chats) == ["b", "c"]


def test_a_port_that_cannot_be_had_is_named(
    server: ChatServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, clips: list[Path]
) -> None:
    """The second start of a demo is the usual case."""
    folder = next(parent for parent in clips[0].parents if (parent / "config.yaml").is_file())
    for port, code, said in ((str(server.server_address[1]), 1, "cannot be listened on"), ("http", 2, "is not a port")):
        monkeypatch.setattr("sys.argv", ["chat", f"run={folder}", f"serve={port}"])
        assert main() == code
        assert said in capsys.readouterr().err


def test_the_page_says_a_file_and_shows_the_reply(server: ChatServer, run: LoadedRun, clips: list[Path]) -> None:
    """What people see: chips of the style, the words, a bar for each gate; a fault in words; nothing from elsewhere."""
    expected = Chat(run).reply(clips[0])
    assert expected.style is not None
    with chromium() as browser:
        page = browser.new_page()
        asked: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.address)
        page.set_input_files("#file", str(clips[0]))
        page.wait_for_selector(".assistant[data-done]", timeout=30_000)
        assert page.locator(".assistant .chip").all_inner_texts() == list(expected.style.known().values())
        assert expected.text in page.locator(".assistant").inner_text()
        assert page.locator(".assistant meter").count() == 3
        page.set_input_files("#file", {"name": "bad.wav", "mimeType": "audio/wav", "buffer": b"<html>"})
        page.wait_for_selector(".error[data-done]", timeout=30_000)
        assert "[unreadable]" in page.locator(".error").inner_text()
        page.click("#reset")
        page.wait_for_selector("#log > div", state="detached")
        assert errors == []
        assert {url.split("/")[2] for url in asked if url.startswith("http")} == {server.address[7:]}


def test_the_microphone_is_heard(server: ChatServer, clips: list[Path]) -> None:
    """Browsers record forms that libsndfile does not read; the page makes 16 kHz mono WAV of them, sample by sample."""
    with chromium("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream") as browser:
        page = browser.new_page()
        page.goto(server.address)
        page.click("#record")
        page.wait_for_selector("#record:has-text('Stop')")
        page.wait_for_timeout(500)
        page.click("#record")
        page.wait_for_selector("#log [data-done]", timeout=30_000)
        assert page.locator(".error").count() == 0
        assert page.locator(".assistant .chip").count() == 4
        made = page.evaluate(
            "async (b) => [...new Uint8Array(await (await toWav(new Blob([new Uint8Array(b)]))).arrayBuffer())]",
            list(clips[0].read_bytes()),
        )
    sent, _ = soundfile.read(io.BytesIO(bytes(made)), dtype="float32")
    np.testing.assert_allclose(sent, load_audio(audio_ref(clips[0])), atol=2 / 32_768)

"""Voices in clips."""

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import soundfile
import torch

from data_prep.synthesis.mixing.voice import BeatsTagger, HttpTagger
from omnichat.dialogue import DataError
from omnichat.models.encoders.beats import load_beats

GOLDEN = Path(__file__).parents[3] / "golden" / "beats"
WAVE = (0.1 * np.random.default_rng(0).standard_normal(32_000)).astype(np.float32)


def relabelled(folder: Path, labels: list[str]) -> Path:
    """The small fine-tuned checkpoint with other names for its classes."""
    contents = torch.load(GOLDEN / "beats_finetuned.pt", weights_only=True)
    contents["label_dict"] = dict(enumerate(labels))
    path = folder / "beats.pt"
    torch.save(contents, path)
    return path


def test_beats_gives_the_largest_class_of_voice(tmp_path: Path) -> None:
    """Only classes below "Human voice" count: a class beside them that is sure of itself must not refuse a clip."""
    net = load_beats(GOLDEN / "beats_finetuned.pt")
    probabilities = net.probabilities(torch.from_numpy(WAVE)[None], torch.tensor([len(WAVE)]))[0]
    highest = int(probabilities.argmax())
    labels = [f"/m/other{number}" for number in range(7)]
    first, second = [number for number in range(7) if number != highest][:2]
    labels[first], labels[second] = "/m/09x0r", "/m/015lz1"  # speech, singing
    expected = float(probabilities[[first, second]].max())
    assert BeatsTagger(relabelled(tmp_path, labels)).voice(WAVE) == pytest.approx(expected, abs=1e-6)


def test_a_checkpoint_without_voices_is_refused(tmp_path: Path) -> None:
    """It would find no voice in anything."""
    with pytest.raises(DataError, match="no class of human voice") as error:
        BeatsTagger(relabelled(tmp_path, [f"/m/{number}" for number in range(7)]))
    assert error.value.reason == "bad_tagger"
    with pytest.raises(DataError, match="no class of human voice"):
        BeatsTagger(GOLDEN / "beats_pretrained.pt")
    (tmp_path / "x.pt").write_bytes(b"nothing")
    with pytest.raises(DataError):
        BeatsTagger(tmp_path / "x.pt")


class FakeTagger(BaseHTTPRequestHandler):
    """Speaks the protocol of audio classification servers; answers what the test says."""

    answer: ClassVar[tuple[int, bytes]] = (200, b"")
    heard: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        """Take a file, give scores."""
        type(self).heard.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(self.answer[0])
        self.end_headers()
        self.wfile.write(self.answer[1])

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def url() -> Iterator[str]:
    """A fake server's address."""
    server = HTTPServer(("127.0.0.1", 0), FakeTagger)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_is_asked_with_the_clip_itself(url: str) -> None:
    """What is sent must be the clip, and names or ids of classes count alike."""
    scores = [{"label": "Rain", "score": 0.99}, {"label": "Speech", "score": 0.3}, {"label": "/m/015lz1", "score": 0.4}]
    FakeTagger.answer = (200, json.dumps(scores).encode())
    FakeTagger.heard.clear()
    assert HttpTagger(url).voice(WAVE) == 0.4
    wave, rate = soundfile.read(io.BytesIO(FakeTagger.heard[0]), dtype="float32")
    assert rate == 16_000
    assert np.abs(wave - WAVE).max() < 1 / 32_000
    FakeTagger.answer = (200, b"[]")
    assert HttpTagger(url).voice(WAVE) == 0.0


@pytest.mark.parametrize(
    "answer", [(500, b"oops"), (200, b"<html>"), (200, b'{"a": 1}'), (200, b'[{"label": "Speech", "score": 7}]')]
)
def test_a_server_that_cannot_tell_stops_the_scan(url: str, answer: tuple[int, bytes]) -> None:
    """A server that is down must not pass for one that has heard no voice."""
    FakeTagger.answer = answer
    with pytest.raises(DataError) as error:
        HttpTagger(url).voice(WAVE)
    assert error.value.reason == "tagger_http"
    with pytest.raises(DataError, match="http"):
        HttpTagger("file:///etc/passwd")

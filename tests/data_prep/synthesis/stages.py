"""Small stages that do real work, and fail in each way on demand. A module of its own: workers import it."""

import asyncio
import errno
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data_prep.synthesis.blobs import write_audio
from data_prep.synthesis.contracts import Contract
from data_prep.synthesis.ledger import Item, Ledger
from data_prep.synthesis.seeds import Namer
from data_prep.synthesis.stage import Attempt, Reject, Retry, Stage


class Word(Contract):
    """What to do: `then` is the way to fail."""

    text: str
    then: str = ""


class Sung(Contract):
    """A word as a tone."""

    blob: str
    draw: float
    attempt: int


class Sing(Stage[Word, Sung]):
    """Makes a short tone of a word; each call leaves a line in `calls`."""

    name: ClassVar[str] = "sing"
    version: ClassVar[str] = "1"
    takes = Word
    gives = Sung
    max_attempts = 4

    def __init__(self, calls: Path, concurrency: int = 1, pause: float = 0.0, key: str = "a") -> None:
        self.calls, self.concurrency, self.pause, self.key = calls, concurrency, pause, key

    def identity(self) -> Mapping[str, Any]:
        return {"key": self.key}

    async def open(self) -> None:
        if self.key == "no engine":
            raise Reject("tts_engine", "no engine is installed; install one")

    async def run(self, item: Word, attempt: Attempt) -> Sung:
        descriptor = os.open(self.calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{item.text}\n".encode())
        os.close(descriptor)
        attempt.cost.calls += 1
        if self.pause:
            await asyncio.sleep(self.pause)
        kind, _, count = item.then.partition(" ")
        if kind == "reject":
            raise Reject("tts_silent", "nothing was sung")
        if kind == "retry" and attempt.number < int(count):
            raise Retry("wer", f"attempt {attempt.number}")
        if kind == "raise":
            raise KeyError(item.text)
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "full" and not Path(count).exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        draw = float(attempt.rng.random())
        wave = np.sin(np.arange(800) * (0.05 + draw / 10)).astype(np.float32) / 2
        return Sung(blob=write_audio(attempt.blobs, wave), draw=draw, attempt=attempt.number)


def items(stage: Sing, words: list[Word], seed: int = 7) -> list[Item]:
    """Items of a stage, numbered in their order."""
    name = Namer(stage, seed)
    return [Item(name(word), number, word.model_dump_json()) for number, word in enumerate(words)]


def results(ledger: Ledger) -> list[tuple[str, str | None, str]]:
    """What a ledger holds, without times."""
    return [(found.id, found.output, found.reason) for found in ledger.results("sing")]

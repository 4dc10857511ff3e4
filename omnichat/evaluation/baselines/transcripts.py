"""What a recogniser heard in each user turn: made once, kept in `transcripts.jsonl`."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from omnichat.audio import load_audio, pieces
from omnichat.dialogue import AudioRef, DataError, Dialogue
from omnichat.evaluation.baselines.reading import audio_names, user_audio
from omnichat.evaluation.replies import appending, read_lines, replace_file

FILE = "transcripts.jsonl"
NOT_UNDERSTOOD = "(not understood)"  # stands for a turn in which nothing was recognised: no model takes an empty turn


class Recogniser(Protocol):
    """Speech to words, in a batch."""

    def transcribe(self, waves: Sequence[NDArray[np.float32]], language: str, max_tokens: int) -> list[str]:
        """The words of each of (S,) at 16 kHz, up to 30 s."""


class Transcripts:
    """The transcripts of a folder.

    Args:
        folder: holds the file; a line that a kill cut short is made again.
        recogniser: makes those that are not there.
        identity: of the recogniser and its settings: transcripts of another are dropped.
        language: of the speech.
        max_tokens: of a transcript of 30 s.
        batch_size: pieces of up to 30 s that are heard at once.

    Raises:
        DataError: `bad_json` with `file:line`, for a line that is broken and not the last.
    """

    def __init__(
        self, folder: Path, recogniser: Recogniser, identity: str, language: str, max_tokens: int, batch_size: int
    ) -> None:
        self.path, self.identity = folder / FILE, identity
        self._recogniser, self._language, self._max_tokens = recogniser, language, max_tokens
        self._batch_size = batch_size
        records = [_read(line, f"{self.path}:{number}") for number, line in read_lines(self.path)]
        self._words = {audio: text for audio, recogniser, text in records if recogniser == identity}
        replace_file(self.path, "".join(self._line(name) + "\n" for name in self._words).encode())

    def hear(self, dialogues: Sequence[Dialogue]) -> None:
        """Transcribe every user turn of the dialogues that is not there yet.

        Raises:
            DataError: see `load_audio`.
        """
        refs = [ref for dialogue in dialogues for ref in user_audio(dialogue)]
        lacking = {name: ref for name, ref in zip(audio_names(refs), refs, strict=True) if name not in self._words}
        waves, owners = [], []
        for name, ref in lacking.items():
            wave = load_audio(ref)
            cut = [wave[start : start + length] for start, length in pieces(len(wave))]
            waves += cut
            owners += [name] * len(cut)
        said: dict[str, list[str]] = {name: [] for name in lacking}
        for first in range(0, len(waves), self._batch_size):
            batch = slice(first, first + self._batch_size)
            words = self._recogniser.transcribe(waves[batch], self._language, self._max_tokens)
            for name, text in zip(owners[batch], words, strict=True):
                said[name].append(text)
        self._words |= {name: " ".join(parts).strip() for name, parts in said.items()}
        with appending(self.path) as add:
            for name in said:
                add(self._line(name))

    def of(self, ref: AudioRef) -> str:
        """The words of a turn that `hear` has met."""
        return self._words[audio_names([ref])[0]] or NOT_UNDERSTOOD

    def knows(self, dialogue: Dialogue) -> bool:
        """Whether every user turn has been heard."""
        return all(name in self._words for name in audio_names(user_audio(dialogue)))

    def written(self, dialogue: Dialogue) -> Dialogue:
        """The dialogue with what was heard in the place of its user turns' words, and without their audio."""
        turns = [
            replace(turn, text=self.of(turn.audio), audio=None) if turn.role == "user" and turn.audio else turn
            for turn in dialogue.turns
        ]
        return replace(dialogue, turns=tuple(turns))

    def _line(self, name: str) -> str:
        record = {"audio": name, "recogniser": self.identity, "text": self._words[name]}
        return json.dumps(record, ensure_ascii=False)


def _read(line: str, where: str) -> tuple[str, str, str]:
    """Name of the audio, recogniser and words.

    Raises:
        DataError: `bad_json`.
    """
    try:
        record = json.loads(line)
        audio, recogniser, text = record["audio"], record["recogniser"], record["text"]
        if not all(isinstance(one, str) for one in (audio, recogniser, text)):
            raise TypeError("text expected")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"is not a transcript ({error!r}); delete the line: the same command hears that turn again"
        raise DataError("bad_json", message, where) from None
    return audio, recogniser, text

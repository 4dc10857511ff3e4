"""TensorBoard: beside the scalars, how held-out dialogues were answered, to read and to listen to."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from numpy.typing import NDArray

from omnichat.audio import SAMPLE_RATE
from omnichat.secrets import masked
from omnichat.training.reply_panels import COLUMNS, ROWS, emotion_pairs, heard_wave

PLAYERS = 8  # after each validation: the event file holds every one of them
CELL = 24  # pixels


class TensorBoard(TensorBoardLogger):
    """Scalars, a table of replies, players, and the matrix of emotions, in `tensorboard/` of the run folder."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(str(run_dir), name="tensorboard", version="")

    @rank_zero_only
    def log_replies(self, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        """Show the rows of `reply_rows`."""
        rows = masked(rows)
        board = self.experiment
        board.add_text("validation/replies", _table(rows[:ROWS]), step)
        for number, row in enumerate(rows[:PLAYERS], start=1):
            wave = heard_wave(row)
            if wave is not None:
                board.add_audio(f"validation/heard/{number}", torch.from_numpy(wave)[None], step, SAMPLE_RATE)
        names, wanted, found = emotion_pairs(rows)
        if names:
            counts = np.zeros((len(names), len(names)), dtype=np.int64)
            np.add.at(counts, (wanted, found), 1)
            board.add_text("validation/confusion", _matrix(names, counts), step)
            board.add_image("validation/confusion", _picture(counts), step, dataformats="HW")


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The players have the rows' numbers."""
    head = ["", *(name for name in COLUMNS if name != "heard")]
    lines = [[str(number), *(str(row[name]) for name in head[1:])] for number, row in enumerate(rows, start=1)]
    return _markdown([head, ["---"] * len(head), *lines])


def _matrix(names: Sequence[str], counts: NDArray[np.int64]) -> str:
    head = ["reference \\ reply", *names]
    lines = [[name, *map(str, row)] for name, row in zip(names, counts.tolist(), strict=True)]
    return _markdown([head, ["---"] * len(head), *lines])


def _picture(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Rows and columns as in the table of that name; dark is the share of the row."""
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    return np.kron(255 - np.round(255 * shares), np.ones((CELL, CELL))).astype(np.uint8)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    cells = [[escape(cell, quote=False).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)

"""Dialogues as HTML, to be listened to."""

import base64
from collections.abc import Callable
from html import escape
from pathlib import Path

from data_prep.synthesis.blobs import blob_path
from data_prep.synthesis.contracts import Line, Mixed
from omnichat.audio import SAMPLE_RATE
from omnichat.dialogue import STYLE_FIELDS

Source = Callable[[str, int], str]  # a blob and its samples -> the HTML of its player


def linked(blobs: str) -> Source:
    """Players that read blobs from their folder, given relative to the page."""
    return lambda blob, samples: _player(blob_path(Path(blobs), blob).as_posix())


def embedded(blobs: Path, room: int) -> Source:
    """Players that hold their audio, up to `room` bytes of a page in all."""
    left = room

    def player(blob: str, samples: int) -> str:
        nonlocal left
        try:
            coded = base64.b64encode(blob_path(blobs, blob).read_bytes()).decode("ascii")
        except OSError as error:
            return f'<span class="note">no audio: {escape(str(error))}</span>'
        if len(coded) > left:
            return f'<span class="note">{samples / SAMPLE_RATE:.1f} s of audio left out to keep this page small</span>'
        left -= len(coded)
        return _player(f"data:audio/flac;base64,{coded}")

    return player


def dialogue(mixed: Mixed, source: Source, below: str = "") -> str:
    """One dialogue: what it is, its turns, and what the page wants below them."""
    plan = mixed.plan
    chips = [plan.brief.topic, plan.brief.split]
    if plan.brief.sound is not None:
        chips += [f"{plan.brief.sound.kind}: {plan.brief.sound.caption}", f"placed: {mixed.placement}"]
    turns = []
    for line, piece in zip(plan.lines, mixed.pieces, strict=True):
        player = source(piece.blob, piece.num_samples) if piece is not None else ""
        kind = "" if line.kind == "turn" else f" [{line.kind}]"
        turns.append(
            f'<div class="turn {line.speaker}">{player}{escape(line.text)} '
            f'<span class="said">({escape(style(line))}){kind}</span></div>'
        )
    return "".join(
        [
            f'<div class="panel dialogue" data-id="{escape(plan.id)}"><header>',
            *(f'<span class="chip">{escape(chip)}</span>' for chip in chips),
            f'<span class="id">{escape(plan.id)}</span></header>',
            *turns,
            below,
            "</div>",
        ]
    )


def style(line: Line) -> str:
    """A style as the model reads it."""
    return ", ".join(getattr(line.style, name) or "unknown" for name in STYLE_FIELDS)


def _player(address: str) -> str:
    return f'<audio controls preload="none" src="{address}"></audio>'

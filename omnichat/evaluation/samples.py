"""Dialogues of a report: what was heard, with a player; what should have been answered; what was."""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from html import escape

import numpy as np
import soundfile

from omnichat.audio import SAMPLE_RATE, load_audio
from omnichat.dialogue import STYLE_FIELDS, AudioRef, DataError, Style, Turn
from omnichat.evaluation.figures import COLOURS
from omnichat.evaluation.replies import Answer
from omnichat.recipes import locate

SHOWN_OF_SCENE = ("scenario", "emotion", "sound", "voice")
AUDIO_BYTES = 3_200_000  # of all players together, as base64; keeps the page below 5 MB


def choose(answers: Sequence[Answer], count: int, seed: int = 0) -> list[Answer]:
    """Dialogues drawn at random, splits and scenarios in turn and emotions evenly; right or wrong alike."""
    order = np.random.default_rng(seed).permutation(len(answers))
    buckets: dict[tuple[str, str], list[Answer]] = {}
    for number in order.tolist():
        answer = answers[number]
        buckets.setdefault((answer.split, answer.scene.get("scenario", "")), []).append(answer)
    queues = [buckets[key] for key in sorted(buckets)]
    heard: Counter[str] = Counter()
    chosen: list[Answer] = []
    while len(chosen) < min(count, len(answers)):
        for queue in queues:
            if queue and len(chosen) < count:
                least = min(queue, key=lambda answer: heard[_emotion(answer)])
                queue.remove(least)
                heard[_emotion(least)] += 1
                chosen.append(least)
    return chosen


def dialogues(answers: Sequence[Answer]) -> str:
    """The dialogues as HTML. The turns that are answered get their players first; history as far as there is room."""
    turns = [(number, place) for number, a in enumerate(answers) for place in reversed(range(len(a.history)))]
    latest = {number: max(_heard(answer), default=-1) for number, answer in enumerate(answers)}
    players: dict[tuple[int, int], str] = {}
    left = AUDIO_BYTES
    for number, place in sorted(turns, key=lambda at: latest[at[0]] != at[1]):
        audio = answers[number].history[place].audio
        if audio is not None:
            players[number, place], used = _player(audio, left)
            left -= used
    return "\n".join(
        _dialogue(answer, [players.get((number, place), "") for place in range(len(answer.history))])
        for number, answer in enumerate(answers)
    )


def encoded(audio: AudioRef) -> str:
    """The audio as a `data:` address, FLAC at 16 kHz.

    Raises:
        DataError: what `load_audio` finds.
    """
    samples = load_audio(replace(audio, path=str(locate(audio.path))))
    file = io.BytesIO()
    peak = max(1.0, float(np.abs(samples).max()))
    soundfile.write(file, samples / peak, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return f"data:audio/flac;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _heard(answer: Answer) -> list[int]:
    return [place for place, turn in enumerate(answer.history) if turn.audio is not None]


def _emotion(answer: Answer) -> str:
    style = answer.reference.style
    return answer.scene.get("emotion") or (style.emotion if style is not None else None) or ""


def _player(audio: AudioRef, room: int) -> tuple[str, int]:
    """A player with its audio inside, and the bytes it takes; a sentence where that is not possible."""
    try:
        source = encoded(audio)
    except DataError as error:
        return f'<span class="note">no audio: {escape(str(error))}</span>', 0
    seconds = audio.num_samples / SAMPLE_RATE
    if len(source) > room:
        return f'<span class="note">{seconds:.1f} s of audio left out to keep this page small</span>', 0
    return f'<audio controls preload="metadata" src="{source}"></audio>', len(source)


def _dialogue(answer: Answer, players: Sequence[str]) -> str:
    reference, reply = answer.reference, answer.reply
    assert reference.style is not None, "read_answers gives every reference a style"
    chips = [f"{name}: {answer.scene[name]}" for name in SHOWN_OF_SCENE if answer.scene.get(name)]
    unreadable = f"not answered: {answer.failure}" if answer.failure else "style unreadable"
    style = (
        _chips(reply.style, reference.style) if reply.style else f'<span class="chip bad">{escape(unreadable)}</span>'
    )
    return "".join(
        [
            f'<div class="panel dialogue"><header><h3>{escape(answer.split)}</h3>',
            *(f'<span class="chip">{escape(chip)}</span>' for chip in chips),
            f'<span class="id">{escape(answer.id)}</span></header>',
            *(_turn(turn, player) for turn, player in zip(answer.history, players, strict=True)),
            f'<div class="answers"><div><div class="label">reference</div>{_chips(reference.style)}',
            f'<div>{escape(reference.text)}</div></div><div><div class="label">model</div>{style}',
            f"<div>{_marked(reply.text, reference.text)}</div></div></div>{_gates(answer)}</div>",
        ]
    )


def _gates(answer: Answer) -> str:
    meters = [
        f'<span class="{colour}">{escape(name)}<span class="meter"><i style="width:{100 * gate:.0f}%"></i></span>'
        f"{gate:.2f}</span>"
        for (name, gate), colour in zip(answer.gates.items(), COLOURS, strict=False)
    ]
    return f'<div class="gates"><span>gates</span>{"".join(meters)}</div>' if meters else ""


def _turn(turn: Turn, player: str) -> str:
    if turn.role == "user":
        return f'<div class="turn user">{player}<span class="said">{escape(turn.text)}</span></div>'
    style = ", ".join(turn.style.known().values())
    return f'<div class="turn assistant">{escape(turn.text)} <span class="said">({escape(style)})</span></div>'


def _chips(style: Style, wanted: Style | None = None) -> str:
    """The values of a style; right or wrong where there is a wanted one to compare with."""
    chips = []
    for name in STYLE_FIELDS:
        value, right = getattr(style, name), getattr(wanted, name) if wanted is not None else None
        kind = "" if right is None else " good" if value == right else " bad"
        if value is not None or right is not None:
            chips.append(f'<span class="chip{kind}" title="{name}">{escape(value or "unknown")}</span>')
    return "".join(chips)


def _marked(reply: str, reference: str) -> str:
    """The reply, with the words marked that the reference does not have there."""
    words, wanted = reply.split(), reference.split()
    parts = []
    for kind, start, stop, _, _ in SequenceMatcher(None, words, wanted, autojunk=False).get_opcodes():
        text = escape(" ".join(words[start:stop]))
        if text:
            parts.append(text if kind == "equal" else f"<mark>{text}</mark>")
    return " ".join(parts) or '<span class="note">(nothing)</span>'

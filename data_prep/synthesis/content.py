"""What a corpus holds: dialogues, hours, styles, voices and sounds, counted in one pass."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from data_prep.synthesis.contracts import Mixed
from data_prep.synthesis.store import current_emotion
from omnichat.audio import SAMPLE_RATE
from omnichat.dialogue import STYLE_FIELDS

SAMPLES = 9  # dialogues to listen to


@dataclass(slots=True)
class Content:
    """Of finished dialogues.

    Attributes:
        dialogues, turns, seconds: of each split; seconds are heard ones.
        emotions: of the current turn, by split.
        styles: of the current turn and of the reply: by "current speed" and the like.
        placements: of sounds. clips: by their id.
        voices: of spoken turns.
        lengths: dialogues by their number of turns.
        samples: some dialogues: emotions and placements differ.
    """

    dialogues: Counter[str] = field(default_factory=Counter)
    turns: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    emotions: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    styles: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    placements: Counter[str] = field(default_factory=Counter)
    clips: Counter[str] = field(default_factory=Counter)
    voices: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    samples: list[Mixed] = field(default_factory=list)


def count(mixed: Iterable[Mixed], seed: int = 0) -> Content:
    """Count dialogues; samples are drawn evenly over pairs of emotion and placement."""
    content = Content()
    rng = np.random.Generator(np.random.Philox(seed))
    drawn: dict[tuple[str, str], tuple[float, Mixed]] = {}
    for one in mixed:
        plan, split = one.plan, one.plan.brief.split
        emotion = current_emotion(one)
        content.dialogues[split] += 1
        content.turns[split] += len(plan.lines)
        content.emotions[split][emotion] += 1
        content.placements[one.placement] += 1
        content.lengths[len(plan.lines)] += 1
        content.clips[one.clip] += bool(one.clip)
        current = next(line for line in reversed(plan.lines) if line.speaker == "user")
        for name, line in (("current turn", current), ("reply", plan.lines[-1])):
            for style in STYLE_FIELDS:
                content.styles[f"{name}: {style}"][getattr(line.style, style) or "unknown"] += 1
        for line, piece in zip(plan.lines, one.pieces, strict=True):
            if piece is not None:
                content.seconds[split] += piece.num_samples / SAMPLE_RATE
                content.voices[plan.voices[line.speaker].name] += 1
        mark = rng.random()
        key = (emotion, one.placement)
        if key not in drawn or mark < drawn[key][0]:
            drawn[key] = (mark, one)
    content.samples = [one for _, one in sorted(drawn.values(), key=lambda pair: pair[0])[:SAMPLES]]
    return content

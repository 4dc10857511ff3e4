"""The quickstart's grammar as briefs and drafts: a script in all seven emotions, a sound drawn for each branch."""

from collections.abc import Mapping
from itertools import islice

import numpy as np

from data_prep.synthesis.contracts import Brief, Sound
from data_prep.synthesis.writing.draft import Draft, DraftLine
from data_prep.synthesis.writing.draws import rounds, split_sequence
from data_prep.synthesis.writing.quickstart_grammar import (
    CONTENT_WORDS,
    FOLLOW_UPS,
    NEUTRAL,
    OPENINGS,
    TEMPLATES,
    combinations,
    reply,
)
from data_prep.synthesis.writing.settings import WritingSettings
from data_prep.synthesis.writing.template import sound_name
from data_prep.synthesis.writing.topics import read_sounds
from omnichat.dialogue import EMOTIONS, GENDERS, Style

SPLITS = ("train", "val", "test_scripts", "test_voices")


def quickstart_briefs(settings: WritingSettings, scripts: int, seed: int, splits: Mapping[str, float]) -> list[Brief]:
    """Briefs whose topic is a pair of template and content word; held-out pairs are the tests'.

    Raises:
        ValueError: another split than `SPLITS`, or more scripts than the grammar has.
    """
    if unknown := sorted(set(splits) - set(SPLITS)):
        raise ValueError(f"splits: the quickstart has {', '.join(SPLITS)}, not {unknown[0]!r}")
    order = list(islice(split_sequence(splits), scripts))
    train, held_out = combinations(seed)
    half = len(held_out) // 2
    pools = {"train": train, "val": train[::-1], "test_scripts": held_out[:half], "test_voices": held_out[half:]}
    limits = {split: len(pool) for split, pool in pools.items()} | {"train": len(train) - order.count("val")}
    for split, limit in limits.items():
        if order.count(split) > limit:
            raise ValueError(
                f"scripts: {order.count(split)} of split {split!r}, the grammar has {limit}; ask for fewer"
            )
    streams = {split: _Streams(settings, split, np.random.default_rng([seed, n])) for n, split in enumerate(SPLITS)}
    pairs = {split: iter(pool) for split, pool in pools.items()}
    return [streams[split].brief(number, split, *next(pairs[split])) for number, split in enumerate(order)]


class _Streams:
    """What is drawn for the scripts of a split, each thing equally often."""

    def __init__(self, settings: WritingSettings, split: str, rng: np.random.Generator) -> None:
        self._turns = rounds(settings.history_turns, rng)
        self._genders = rounds(GENDERS, rng)
        kinds = {"audio": read_sounds("audio", None, split), "music": read_sounds("music", None, split)}
        self._scenarios = rounds(("emotion", *kinds), rng)
        # A stream for each emotion: neither emotion nor sound tells the other.
        self._sounds = {(kind, one): rounds(sounds, rng) for kind, sounds in kinds.items() for one in EMOTIONS}

    def brief(self, number: int, split: str, template: int, content: str) -> Brief:
        gender, scenario = next(self._genders), next(self._scenarios)
        drawn: tuple[Sound | None, ...] = tuple(
            None if scenario == "emotion" else next(self._sounds[scenario, emotion]) for emotion in EMOTIONS
        )
        return Brief(
            recipe="quickstart",
            number=number,
            split=split,
            topic=f"t{template:02d}-{content}",
            history_turns=next(self._turns),
            sounds=drawn,
            styles=tuple(Style(gender, emotion, "normal", "normal") for emotion in EMOTIONS),
        )


def write_quickstart(brief: Brief, rng: np.random.Generator) -> Draft:
    """The script of a brief: one or two exchanges that are drawn, the pair's sentence, the grammar's replies."""
    template, content = brief.topic[1:].split("-", 1)
    assert content in CONTENT_WORDS
    assistant = str(rng.choice(GENDERS))
    pairs = [OPENINGS[rng.integers(len(OPENINGS))], FOLLOW_UPS[rng.integers(len(FOLLOW_UPS))]]
    styles = {"user": Style(brief.styles[0].gender, *NEUTRAL), "assistant": Style(assistant, *NEUTRAL)}
    history = [
        DraftLine(speaker, styles[speaker].known(), text)
        for pair in pairs[: brief.history_turns // 2]
        for speaker, text in zip(styles, pair, strict=True)
    ]
    replies = []
    for style, sound in zip(brief.styles, brief.sounds, strict=True):
        assert style.emotion is not None
        answer, text = reply(style.emotion, content, sound_name(sound) if sound else "", assistant)
        replies.append(DraftLine("assistant", answer.known(), text))
    current = TEMPLATES[int(template)].format(content)
    currents = [DraftLine("user", style.known(), current) for style in brief.styles]
    return Draft(tuple(history), tuple(currents), tuple(replies), current)

"""The template writer: scripts from a grammar, in a small vocabulary, without a model.

What is said before the reply depends on the topic alone. The reply depends on how the current turn is spoken and on
what else is heard, by the rules of `reply_style` and the sentences of `data/grammar.yaml`; it repeats the content word,
so that a model has to hear words, voice and sound alike to give it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import yaml

from data_prep.synthesis.contracts import Brief, Sound
from data_prep.synthesis.writing.draft import Draft, DraftLine
from data_prep.synthesis.writing.topics import Topic, data_text
from omnichat.dialogue import GENDERS, Style

NEUTRAL = {"emotion": "neutral", "speed": "normal", "pitch": "normal"}
# The user's emotion -> the reply's, and speed and pitch where they don't follow the user's. Joy, surprise, fear,
# disgust and sorrow are shared; anger is answered calmly, sorrow gently.
REPLY_STYLES: dict[str, dict[str, str]] = {
    "neutral": {"emotion": "neutral"},
    "happy": {"emotion": "happy", "pitch": "high"},
    "angry": {"emotion": "neutral", "speed": "slow", "pitch": "low"},
    "sad": {"emotion": "sad", "speed": "slow", "pitch": "low"},
    "surprised": {"emotion": "surprised", "pitch": "high"},
    "fearful": {"emotion": "fearful"},
    "disgusted": {"emotion": "disgusted"},
}
SMALL_WORDS = frozenset(
    "a an and are as at by for from in is it of on or over some someone something the then to with".split()
)


@lru_cache(maxsize=1)
def grammar() -> Mapping[str, Any]:
    """The shipped sentences."""
    loaded: Mapping[str, Any] = yaml.safe_load(data_text("grammar.yaml"))
    return loaded


def write_template(brief: Brief, topics: Sequence[Topic], rng: np.random.Generator) -> Draft:
    """The script of a brief.

    Content word and sentence of the current turn follow from the script's number, so that no two scripts of a run share
    both before all pairs of the topic are used up; the history is drawn.

    Args:
        brief: with the styles of the branches.
        topics: those that take turns, each with kind and words.
        rng: draws the history and the assistant's gender.
    """
    place, topic = next((n, topic) for n, topic in enumerate(topics) if topic.name == brief.topic)
    kind = grammar()["kinds"][topic.kind]
    word, sentence = _pair(topic.words, kind["current"], place, brief.number // len(topics))
    user = dict(brief.styles[0].known())
    assistant_gender = str(rng.choice(GENDERS))
    exchanges = _exchanges(kind["details"], brief.history_turns // 2, rng)
    history = [
        DraftLine(speaker, NEUTRAL | {"gender": gender}, text.format(word))
        for exchange in exchanges
        for speaker, gender, text in zip(
            ("user", "assistant"), (user["gender"], assistant_gender), exchange, strict=True
        )
    ]
    currents = [DraftLine("user", style.known(), sentence.format(word)) for style in brief.styles]
    replies = [
        DraftLine(
            "assistant",
            reply_style(style, assistant_gender).known(),
            _heard(kind["replies"][style.emotion].format(word), brief.sound),
        )
        for style in brief.styles
    ]
    return Draft(tuple(history), tuple(currents), tuple(replies))


def reply_style(heard: Style, gender: str) -> Style:
    """How a turn spoken in the style `heard` is answered.

    The emotion by `REPLY_STYLES`; speed and pitch are the user's own, except that an angry or sad user is answered
    slowly and in a low voice, a happy or surprised one in a high voice.
    """
    assert heard.emotion is not None
    return replace(heard, **(REPLY_STYLES[heard.emotion] | {"gender": gender}))


def sound_name(sound: Sound) -> str:
    """What a reply calls a sound: the shipped name where the caption has one, else the caption's first words.

    "Rain falls on a roof" -> "rain"; "Motor noise is followed by a horn" -> "motor noise".
    """
    words = re.findall(r"[a-z']+", sound.caption.lower())
    for name in grammar()["captions"][sound.kind]:
        if name in words or f"{name}s" in words:
            return str(name)
    kept: list[str] = []
    for word in re.findall(r"[a-z']+|[,.;:]", sound.caption.lower()):
        small = word in SMALL_WORDS or not word[0].isalpha()
        if len(kept) == 2 or (kept and small):
            break
        if not small:
            kept.append(word)
    return " ".join(kept) or "sound"


def _heard(reply: str, sound: Sound | None) -> str:
    if sound is None:
        return reply
    text: str = grammar()["heard"].format(reply=reply.rstrip(".!"), sound=sound_name(sound))
    return text


def _pair(words: Sequence[str], sentences: Sequence[str], place: int, visit: int) -> tuple[str, str]:
    """Content word and sentence at a topic's visit: a walk along diagonals through all pairs.

    Each word and each sentence comes equally often; topics begin at different sentences.
    """
    diagonal, column = divmod(visit % (len(words) * len(sentences)), len(sentences))
    return words[(column + diagonal) % len(words)], sentences[(column + place) % len(sentences)]


def _exchanges(details: list[list[str]], count: int, rng: np.random.Generator) -> list[list[str]]:
    """An opening, an introduction of the topic, then details of it."""
    chosen = [group[rng.integers(len(group))] for group in (grammar()["openings"], grammar()["introductions"])][:count]
    rest = rng.permutation(len(details))[: max(0, count - 2)]
    return chosen + [details[index] for index in rest]

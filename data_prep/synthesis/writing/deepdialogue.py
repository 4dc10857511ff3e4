"""Dialogues of DeepDialogue's kind: a domain, a walk through emotions, two models that speak turn by turn, a judge.

After DeepDialogue (arXiv 2505.19978): 41 domains, 20 emotions, pairs of models, a graph of which emotion follows which,
a filter at the end. The last two turns are the current turn and the reply; there is one branch.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import yaml
from pydantic import Field

from data_prep.synthesis.contracts import Brief
from data_prep.synthesis.stage import Attempt, Retry
from data_prep.synthesis.writing.asking import REFUSAL, Asker, Shape
from data_prep.synthesis.writing.draft import Draft, DraftLine
from data_prep.synthesis.writing.prompts import prompt, sentences_rule
from data_prep.synthesis.writing.settings import WritingSettings
from data_prep.synthesis.writing.topics import data_text
from omnichat.data.corpora.emotions import emotion_map
from omnichat.dialogue import GENDERS, shown

TRIES_OF_A_TURN = 3  # before the whole dialogue is begun again


class TurnAnswer(Shape):
    """A model's next turn."""

    text: str


class Verdict(Shape):
    """A judge's points, 0 to 10."""

    coherence: int = Field(ge=0, le=10)
    natural: int = Field(ge=0, le=10)
    emotion: int = Field(ge=0, le=10)

    @property
    def score(self) -> float:
        """0 to 1: the worst point counts, as a dialogue is not saved by its other merits."""
        return min(self.coherence, self.natural, self.emotion) / 10


@lru_cache(maxsize=1)
def world() -> Mapping[str, Any]:
    """Domains and emotions as shipped."""
    loaded: Mapping[str, Any] = yaml.safe_load(data_text("deepdialogue.yaml"))
    return loaded


def walk(start: str, turns: int, rng: np.random.Generator) -> list[str]:
    """Emotions of `turns` turns along the graph, the first of them `start`."""
    path = [start]
    while len(path) < turns:
        row = world()["emotions"][path[-1]]["next"]
        shares = np.array(list(row.values()))
        path.append(str(rng.choice(list(row), p=shares / shares.sum())))
    return path


def write_dialogue_template(brief: Brief, rng: np.random.Generator) -> Draft:
    """The dialogue of a brief from sentences for each emotion, about the domain's words."""
    path, genders = _course(brief, rng)
    # One thing is talked about; others only where all has been said of it.
    words = [str(word) for word in rng.permutation(world()["domains"][brief.topic])]
    said: set[str] = set()
    lines = []
    for number, emotion in enumerate(path):
        sentences = [str(text) for text in rng.permutation(world()["emotions"][emotion]["sentences"])]
        texts = (sentence.format(word) for word in words for sentence in sentences)
        text = next(text for text in texts if text not in said)
        said.add(text)
        lines.append(_line(number, len(path), emotion, genders, text))
    return _draft(lines)


async def write_dialogue_with_models(
    brief: Brief, settings: WritingSettings, askers: Sequence[Asker], attempt: Attempt
) -> Draft:
    """The dialogue of a brief by one or two models, then judged.

    Args:
        brief: with domain and first emotion.
        settings: for the judge's threshold.
        askers: the models, who take turns; the first one judges.
        attempt: its randomness walks the graph.

    Raises:
        Retry: `judge`, or what `Asker.ask` raises after `TRIES_OF_A_TURN` tries of one turn.
    """
    path, genders = _course(brief, attempt.rng)
    lines: list[DraftLine] = []
    for number, emotion in enumerate(path):
        line = _line(number, len(path), emotion, genders, "")
        rules = prompt(
            "deepdialogue_turn",
            domain=brief.topic,
            speaker=line.speaker.capitalize(),
            gender=line.style["gender"],
            emotion=emotion,
            max_words=settings.max_words,
            sentences=sentences_rule(settings.sentences),
            said=_told(lines, path) if lines else "Nothing was said yet: you begin.",
        )
        text = await _turn(askers[number % len(askers)], rules, attempt)
        lines.append(_line(number, len(path), emotion, genders, text))
    if settings.judge_threshold is None:
        return _draft(lines)
    verdict = await askers[0].ask(prompt("judge", said=_told(lines, path)), "Your points, please.", Verdict, attempt)
    if verdict.score < settings.judge_threshold:
        message = f"{verdict.score:.1f} is below {settings.judge_threshold}: {verdict.model_dump()}"
        raise Retry("judge", message)
    return _draft(lines)


async def _turn(asker: Asker, rules: str, attempt: Attempt) -> str:
    """A turn; a fault costs this turn alone, not those before it."""
    for left in reversed(range(TRIES_OF_A_TURN)):
        try:
            text = (await asker.ask(rules, "Your next turn, please.", TurnAnswer, attempt)).text
        except Retry:
            if not left:
                raise
            continue
        if not REFUSAL.match(text):
            return text
    raise Retry("llm_refusal", shown(text))


def _course(brief: Brief, rng: np.random.Generator) -> tuple[list[str], dict[str, str]]:
    """The emotion of each turn, and the speakers' genders."""
    assert brief.start_emotion is not None
    path = walk(brief.start_emotion, brief.history_turns + 2, rng)
    return path, {speaker: str(rng.choice(GENDERS)) for speaker in ("user", "assistant")}


def _line(number: int, turns: int, emotion: str, genders: Mapping[str, str], text: str) -> DraftLine:
    """A turn in its style; the assistant has the last one."""
    speaker = "assistant" if (turns - number) % 2 else "user"
    spoken = world()["emotions"][emotion]
    feeling = emotion_map("deepdialogue")[emotion] or "neutral"
    style = {"gender": genders[speaker], "emotion": feeling, "speed": spoken["speed"], "pitch": spoken["pitch"]}
    return DraftLine(speaker, style, text)


def _told(lines: Sequence[DraftLine], path: Sequence[str]) -> str:
    return "\n".join(
        f"{line.speaker.capitalize()} ({emotion}): {line.text}" for line, emotion in zip(lines, path, strict=False)
    )


def _draft(lines: Sequence[DraftLine]) -> Draft:
    return Draft(tuple(lines[:-2]), (lines[-2],), (lines[-1],))

"""DailyTalk spoken anew: real dialogues and emotions, where only the corpus's lists are at hand and not its recordings.

A script is a dialogue of the corpus: its words, its emotions, its two speakers' genders. Its split is the corpus's own.
In `also_as` the last user turn can be spoken in further emotions. The reply keeps the words that were given to the real
emotion; its own emotion answers the one that is heard, by `REPLY_STYLES`. So those branches tell whether a
model hears the difference, and not whether its words are right.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.synthesis.contracts import Branch, Brief, Line, Script
from data_prep.synthesis.mixing.clips import POOLS, Pool, pool_of
from data_prep.synthesis.stage import Reject
from data_prep.synthesis.writing.template import REPLY_STYLES
from omnichat.data.corpora.dailytalk import CORPUS, listed
from omnichat.data.corpora.emotions import emotion_map
from omnichat.data.corpora.reading import Choices, Part, RolePolicy
from omnichat.dialogue import Style, Turn

RECIPE = "dailytalk_respoken"


def respoken_briefs(corpus: Path | None, scripts: int, seed: int, splits: Iterable[str]) -> list[Brief]:
    """A brief for each dialogue that is to be spoken, drawn from the corpus's own split.

    Args:
        corpus: DailyTalk's lists, or its release.
        scripts: how many.
        seed: of the draw.
        splits: where the next script is to go, without end; one that has no dialogue left is passed over.

    Raises:
        ValueError: no corpus is named, or it has fewer dialogues.
        DataError: it cannot be read.
    """
    spoken = _spoken(_named(corpus))
    rng = np.random.default_rng([seed, 23])
    pools: dict[Pool, list[int]] = {pool: [] for pool in POOLS}
    for number in sorted(spoken):
        pools[_pool(number)].append(number)
    left = {pool: [numbers[index] for index in rng.permutation(len(numbers))] for pool, numbers in pools.items()}
    found: list[Brief] = []
    idle = 0
    for split in splits:
        if len(found) == scripts:
            break
        idle += 1
        if idle > 1000:  # no split that comes has a dialogue left
            there = ", ".join(f"{pool} {len(numbers)}" for pool, numbers in pools.items())
            raise ValueError(f"scripts: {scripts} are asked for, but DailyTalk has {there}; ask for {len(found)}")
        if not left[pool_of(split)]:
            continue
        number, idle = left[pool_of(split)].pop(), 0
        turns = max(0, len(spoken[number]) - 2)
        topic = f"dailytalk {number}"
        found.append(Brief(recipe=RECIPE, number=len(found), split=split, topic=topic, history_turns=turns))
    return found


def respoken_script(brief: Brief, corpus: Path | None, also_as: Iterable[str], roles: RolePolicy) -> Script:
    """The dialogue of a brief. What comes after the last answer is left out.

    Raises:
        Reject: `turns_count` where turns are missing, `speaker_order` where nobody answers.
    """
    number = int(brief.topic.rpartition(" ")[2])
    part = Part(brief.topic, (_named(corpus),), (None, ((number, number, _spoken(_named(corpus))[number]),)))
    reading = CORPUS.read(part, Choices(roles, emotion_map("dailytalk")))
    if reading.rejects:
        reason = "turns_count" if reading.rejects[0].reason in ("missing_turn", "no_turns") else "speaker_order"
        raise Reject(reason, str(reading.rejects[0]))
    turns = list(reading.dialogues[0].turns)
    while len(turns) >= 2 and (turns[-2].role, turns[-1].role) != ("user", "assistant"):
        turns.pop()
    if len(turns) < 2:
        raise Reject("speaker_order", f"{brief.topic}: no turn of the user is answered")
    *history, current, reply = turns
    own = current.style.emotion
    others = [emotion for emotion in also_as if emotion != own]
    branches = [Branch(style=current.style, reply=_line(reply))]
    for emotion in others:
        answer = replace(reply.style, emotion=REPLY_STYLES[emotion]["emotion"])
        style = Style(current.style.gender, emotion)
        branches.append(Branch(style=style, reply=_line(replace(reply, style=answer))))
    return Script(brief=brief, history=tuple(map(_line, history)), current=current.text, branches=tuple(branches))


def corpus_fingerprint(corpus: Path | None) -> str:
    """SHA-256 of the words and labels: what a script depends on is the content, not where it lies."""
    return hashlib.sha256(repr(sorted(_spoken(_named(corpus)).items())).encode()).hexdigest()[:16]


def _line(turn: Turn) -> Line:
    return Line(speaker=turn.role, text=turn.text, style=turn.style)


def _named(corpus: Path | None) -> Path:
    if corpus is None:
        raise ValueError("writing.corpus: name the folder of DailyTalk's lists or of its release")
    return corpus


@lru_cache(maxsize=2)
def _spoken(corpus: Path) -> Mapping[int, list[dict[str, Any]]]:
    """What is said in each dialogue. Recordings are not looked at."""
    return {number: spoken for part in CORPUS.parts(corpus) for number, _, spoken in part.content[1]}


def _pool(number: int) -> Pool:
    return "test" if number in listed("test") else "val" if number in listed("val") else "train"

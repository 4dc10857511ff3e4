"""Two-track scripts: interruptions and signs of listening."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.synthesis.stage import Attempt, Retry
from data_prep.synthesis.writing.asking import Asker
from data_prep.synthesis.writing.briefs import briefs
from data_prep.synthesis.writing.interact import write_interact_with_model
from data_prep.synthesis.writing.settings import WritingSettings
from data_prep.synthesis.writing.validate import validate
from tests.data_prep.synthesis.writing.fakes import FakeChat

SETTINGS = WritingSettings(recipe="interact", history_turns=(4, 6, 8))


def test_who_is_interrupted_breaks_off_and_who_interrupts_begins_before(write: Callable[..., Any]) -> None:
    """Times that contradict each other can't be mixed into two tracks."""
    kinds: Counter[str] = Counter()
    for script in write(SETTINGS, briefs(SETTINGS, 200, 0, {"train": 1.0})):
        own = Counter(line.kind for line in script.history)
        assert own["turn"] + own["interruption"] == script.brief.history_turns
        assert own["interruption"] + own["backchannel"] >= 1
        kinds += own
        assert script.history[0].gap == 0
        turns = [line for line in script.history if line.kind != "backchannel"]
        for before, line in itertools.pairwise(turns):
            assert (before.cut < 1) == (line.kind == "interruption")
            assert before.speaker != line.speaker
        for before, line in zip(script.history, script.history[1:], strict=False):
            assert (line.gap < 0) == (line.kind != "turn")
            if line.kind == "backchannel":
                assert line.speaker != before.speaker
                assert before.cut == 1
    assert kinds["interruption"] > 50
    assert kinds["backchannel"] > 50


def test_more_overlap_where_more_is_asked_for(write: Callable[..., Any]) -> None:
    """A share that changes nothing would be a setting in name only."""

    def overlaps(share: float) -> int:
        settings = SETTINGS.model_copy(update={"overlap_share": share})
        scripts = write(settings, briefs(settings, 60, 0, {"train": 1.0}))
        return sum(line.kind != "turn" for script in scripts for line in script.history)

    assert overlaps(0.1) < overlaps(0.5) < overlaps(1.0)


def test_a_models_marks_become_times() -> None:
    """The words after the mark are known but not spoken: the share before it must be right."""
    settings = SETTINGS.model_copy(update={"writer": "llm"})
    brief = next(one for one in briefs(settings, 20, 0, {"train": 1.0}) if one.history_turns == 4)
    style = ", ".join(brief.styles[0].known().values())
    gender = brief.styles[0].gender
    calm = "male, neutral, normal, normal"
    turns = [
        f"User ({gender}, neutral, normal, normal): I wanted to tell you [interrupt] about the old house.",
        f"Assistant ({calm}): Before you go on, is this about the garden?",
        f"User ({gender}, neutral, normal, normal): It is about the garden and the roof of the house.",
        f"User ({gender}, neutral, normal, normal): [listening] I see.",
        f"Assistant ({calm}): Then let us start with the roof.",
        f"User ({style}): They are going to take it down this week.",
        f"Assistant ({calm}): What would you like to do about that?",
    ]
    attempt = Attempt(0, np.random.default_rng(0), Path())

    def ask(answer: list[str]) -> Any:
        chat = FakeChat([{"turns": answer}])
        draft = asyncio.run(write_interact_with_model(brief, settings, Asker(chat, 900, 1.0), attempt))
        assert style in chat.asked[0]["messages"][0]["content"]
        return validate(draft, brief, settings)

    with pytest.raises(Retry, match="backchannel by the speaker"):
        ask(turns)
    turns[3] = f"Assistant ({calm}): [listening] I see."
    script = ask(turns)
    first, second, _, listening, _ = script.history
    assert first.text == "I wanted to tell you about the old house."
    assert first.cut == pytest.approx(len("I wanted to tell you") / len(first.text), abs=0.02)
    assert (second.kind, listening.kind, listening.text) == ("interruption", "backchannel", "I see.")
    assert second.gap < 0
    assert listening.gap < 0
    with pytest.raises(Retry) as caught:
        ask(turns[:1])
    assert caught.value.reason == "turns_count"

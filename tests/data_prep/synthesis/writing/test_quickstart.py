"""The quickstart's corpus as the pipeline would make it."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from data_prep.quickstart.corpus import Options, branches, plan
from data_prep.quickstart.scripts import REPLIES
from data_prep.synthesis.writing.briefs import briefs
from data_prep.synthesis.writing.deduplicate import duplicates
from data_prep.synthesis.writing.plans import plans, voice_pools
from data_prep.synthesis.writing.settings import WritingSettings
from omnichat.dialogue import EMOTIONS
from tests.data_prep.synthesis.writing.test_plans import VOICES

SETTINGS = WritingSettings(recipe="quickstart", history_turns=(2, 4), sentences=3)
SPLITS = {"train": 100 / 181, "val": 9 / 181, "test_scripts": 36 / 181, "test_voices": 36 / 181}


def test_words_and_splits_are_the_quickstarts(write: Callable[..., Any]) -> None:
    """A corpus made by the pipeline must hold out what the old one holds out, and say what it says."""
    scripts = write(SETTINGS, briefs(SETTINGS, 181, 0, SPLITS))
    old = plan(Options())
    for split, scenes in old.items():
        own = [script for script in scripts if script.brief.split == split]
        assert sorted(script.current for script in own) == sorted(scene.script.current for scene in scenes)
    replies = {
        dialogue.turns[-1].text.partition(" i hear")[0] for scene in old["train"] for dialogue in branches(scene)
    }
    for script in scripts:
        if script.brief.split == "train":
            assert {branch.reply.text.partition(" i hear")[0] for branch in script.branches} <= replies
    assert not duplicates(dict(enumerate(scripts)))


def test_branches_have_all_emotions_and_sounds_of_their_own(write: Callable[..., Any]) -> None:
    """Sounds that hung on the script would be learnt from its words."""
    scripts = write(SETTINGS, briefs(SETTINGS, 181, 0, SPLITS))
    pools = voice_pools(list(SPLITS), VOICES)
    heard: Counter[tuple[str, str]] = Counter()
    for script in scripts:
        made = plans(script, pools[script.brief.split], 0)
        assert [one.lines[-2].style.emotion for one in made] == list(EMOTIONS)
        for one in made:
            sound = one.brief.sound
            assert (sound is None) == ("i hear the" not in one.lines[-1].text)
            assert one.lines[-1].style.emotion == REPLIES[one.lines[-2].style.emotion][0]
            heard[one.lines[-2].style.emotion, sound.caption if sound else ""] += 1
    audio = [count for (_, caption), count in heard.items() if caption == "rain falls"]
    assert len(audio) == len(EMOTIONS)
    assert max(audio) - min(audio) <= 4  # one for each split


def test_what_the_grammar_lacks_is_told() -> None:
    """A run must not end in the middle for want of words."""
    with pytest.raises(ValueError, match=r"split .train., the grammar has 196"):
        briefs(SETTINGS, 400, 0, SPLITS)
    with pytest.raises(ValueError, match="not 'test'"):
        briefs(SETTINGS, 10, 0, {"train": 0.9, "test": 0.1})
    with pytest.raises(ValidationError, match="sentences=3"):
        WritingSettings(recipe="quickstart")

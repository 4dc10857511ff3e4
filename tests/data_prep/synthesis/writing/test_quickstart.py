"""The quickstart's corpus as the pipeline would make it."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from data_prep.synthesis.writing.briefs import briefs
from data_prep.synthesis.writing.deduplicate import duplicates
from data_prep.synthesis.writing.plans import plans, voice_pools
from data_prep.synthesis.writing.quickstart_grammar import CONTENT_WORDS, REPLIES
from data_prep.synthesis.writing.settings import WritingSettings
from omnichat.dialogue import EMOTIONS
from tests.data_prep.synthesis.writing.test_plans import VOICES

SETTINGS = WritingSettings(recipe="quickstart", history_turns=(2, 4), sentences=3)
SPLITS = {"train": 100 / 181, "val": 9 / 181, "test_scripts": 36 / 181, "test_voices": 36 / 181}


def test_sizes_and_splits(write: Callable[..., Any]) -> None:
    """A test set under 200, or a sentence or voice on both sides, would make the scores worthless."""
    scripts = write(SETTINGS, briefs(SETTINGS, 181, 0, SPLITS))
    pools = voice_pools(list(SPLITS), VOICES)
    made = {
        split: [one for script in scripts if script.brief.split == split for one in plans(script, pools[split], 0)]
        for split in SPLITS
    }
    assert {split: len(own) for split, own in made.items()} == {
        "train": 700, "val": 63, "test_scripts": 252, "test_voices": 252,
    }  # fmt: skip
    sentences = {split: {one.lines[-2].text for one in own} for split, own in made.items()}
    voices = {split: {one.voices["user"].name for one in own} for split, own in made.items()}
    for split in ("val", "test_scripts", "test_voices"):
        assert not sentences["train"] & sentences[split]
    assert not sentences["test_scripts"] & sentences["test_voices"]
    assert not voices["train"] & voices["test_voices"]
    assert voices["test_scripts"] <= voices["train"]
    assert {one.brief.topic.partition("-")[2] for one in made["train"]} == set(CONTENT_WORDS)
    assert not duplicates(dict(enumerate(scripts)))


def test_text_cannot_know_the_emotion(write: Callable[..., Any]) -> None:
    """The seven branches of a script share every word and style up to the current turn's style."""
    for script in write(SETTINGS, briefs(SETTINGS, 40, 0, SPLITS)):
        made = plans(script, VOICES, 0)
        assert len({tuple((line.text, line.style) for line in one.lines[:-2]) for one in made}) == 1
        assert len({one.lines[-2].text for one in made}) == 1
        assert len({one.group for one in made}) == 1


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

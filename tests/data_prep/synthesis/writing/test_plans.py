"""From scripts to dialogues with voices."""

from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest

from data_prep.synthesis.backends.embedded.espeak import Espeak
from data_prep.synthesis.contracts import Voice
from data_prep.synthesis.writing.briefs import briefs
from data_prep.synthesis.writing.plans import plans, voice_pools
from data_prep.synthesis.writing.settings import WritingSettings

SPLITS = {"train": 0.8, "test": 0.2}
VOICES = [Voice(name=f"{gender}{number}", gender=gender) for gender in ("male", "female") for number in range(6)]
Write = Callable[..., Any]


def test_branches_share_everything_but_the_current_style_and_the_reply(write: Write) -> None:
    """Else the words or the history's audio could tell which emotion comes, and more would be spoken than need be."""
    settings = WritingSettings()
    for script in write(settings, briefs(settings, 20, 0, SPLITS)):
        made = plans(script, VOICES, 0)
        assert [plan.id for plan in made] == [f"sharechat_emotion-{script.brief.number:06d}-{n}" for n in range(3)]
        assert len({plan.group for plan in made}) == 1
        assert all(plan.lines[:-2] == script.history for plan in made)
        assert {plan.lines[-2].text for plan in made} == {script.current}
        assert len({plan.lines[-2].style for plan in made}) == len({plan.lines[-1] for plan in made}) == 3
        assert all(plan.voices == made[0].voices for plan in made)
        for plan in made:
            assert all(line.style.gender == plan.voices[line.speaker].gender for line in plan.lines)
            assert plan.voices["user"] != plan.voices["assistant"]


def test_voices_are_kept_apart_and_all_used(write: Write) -> None:
    """A test on unseen voices with a voice of training in it would be none."""
    settings = WritingSettings()
    pools = voice_pools(("train", "val", "test", "test_scripts", "test_voices"), VOICES)
    assert not set(pools["train"]) & set(pools["test"])
    assert pools["train"] == pools["val"] == pools["test_scripts"]
    assert pools["test"] == pools["test_voices"]
    assert set(pools["train"]) | set(pools["test"]) == set(VOICES)
    heard = Counter(
        plans(script, pools["train"], 0)[0].voices["user"].name
        for script in write(settings, briefs(settings, 150, 0, SPLITS))
    )
    assert len(heard) == len(pools["train"])
    train = [Voice(name=voice.name, gender=voice.gender) for voice in Espeak.train_voices]
    unseen = [Voice(name=voice.name, gender=voice.gender) for voice in Espeak.unseen_voices]
    pools = voice_pools(("train", "test"), train, unseen)
    assert (set(pools["train"]), set(pools["test"])) == (set(train), set(unseen))


def test_a_missing_voice_is_told_with_the_split(write: Write) -> None:
    """A backend with women's voices only must not end in an index error at script 3,000."""
    settings = WritingSettings()
    scripts = write(settings, briefs(settings, 10, 0, SPLITS))
    with pytest.raises(ValueError, match=r"no male voice for the \w+ of script \d+ in split 'train'"):
        list(chain.from_iterable(plans(script, [VOICES[-1]], 0) for script in scripts))

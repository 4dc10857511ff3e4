"""The template writer's scripts."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from data_prep.synthesis.contracts import Sound
from data_prep.synthesis.mixing.sounds import SOUNDS
from data_prep.synthesis.writing.briefs import briefs
from data_prep.synthesis.writing.quickstart_grammar import OPENINGS, REPLIES
from data_prep.synthesis.writing.settings import SUBSETS, WritingSettings
from data_prep.synthesis.writing.template import grammar, reply_style, sound_name
from data_prep.synthesis.writing.topics import read_topics
from data_prep.tiny_weights.words import REPLY_WORDS, VOCABULARY
from omnichat.dialogue import Style

SPLITS = {"train": 0.8, "val": 0.1, "test": 0.1}
Write = Callable[..., Any]


@pytest.mark.parametrize("recipe", SUBSETS)
def test_hundreds_of_scripts_none_like_another(write: Write, recipe: str) -> None:
    """A corpus of a few sentences again and again would be learnt by heart, and its test would test nothing."""
    settings = WritingSettings.model_validate({"recipe": recipe})
    scripts = write(settings, briefs(settings, 400, 0, SPLITS))
    assert len({script.current for script in scripts}) == 400
    assert len({tuple(line.text for line in script.history) for script in scripts}) > 390
    test = {script.current for script in scripts if script.brief.split == "test"}
    assert not test & {script.current for script in scripts if script.brief.split == "train"}
    assert Counter(len(script.history) for script in scripts).keys() == {4, 6, 8}


@pytest.mark.parametrize("recipe", SUBSETS)
def test_the_reply_is_decided_by_voice_words_and_sound(write: Write, recipe: str) -> None:
    """Each of the three must be needed, and all three enough: else there is nothing to hear, or nothing to learn."""
    settings = WritingSettings.model_validate({"recipe": recipe})
    answers = defaultdict(set)
    for script in write(settings, briefs(settings, 200, 1, SPLITS)):
        for branch in script.branches:
            assert branch.reply.style == reply_style(branch.style, branch.reply.style.gender)
            sound = script.brief.sound
            assert sound is None or sound_name(sound) in branch.reply.text
            answers[script.current, branch.style.emotion, sound and sound.caption].add(branch.reply.text)
            word = next(word for word in script.current.rstrip(".").split() if f" {word}" in branch.reply.text)
            assert word in script.current
        assert len({branch.reply.text for branch in script.branches}) == 3
    assert all(len(replies) == 1 for replies in answers.values())


def test_replies_to_the_angry_are_calm_whatever_their_pace() -> None:
    """The rule as documented: an angry or sad user slowly and low, a happy one high, else the user's own pace."""
    assert reply_style(Style("male", "angry", "fast", "high"), "female") == Style("female", "neutral", "slow", "low")
    assert reply_style(Style("male", "happy", "slow", "low"), "male") == Style("male", "happy", "slow", "high")
    assert reply_style(Style("male", "fearful", "fast", "low"), "male") == Style("male", "fearful", "fast", "low")


def test_the_tiny_weights_know_the_words() -> None:
    """Words the shipped tiny experts and LLM have never met can't be learnt from a few hundred dialogues."""
    texts = [text for pair in (*grammar()["openings"], *grammar()["introductions"]) for text in pair]
    for kind in grammar()["kinds"].values():
        texts += [text for pair in kind["details"] for text in pair] + kind["current"] + list(kind["replies"].values())
    words = [word for text in texts for word in re.findall(r"[a-z']+", text)]
    words += [word for topic in read_topics(None, for_template=True) for word in topic.words]
    own = re.findall(r"[a-z']+", " ".join(text for pair in OPENINGS for text in pair))
    known = {*VOCABULARY, *REPLY_WORDS, *own, *(word for reply in REPLIES.values() for word in reply[3].split())}
    unknown = Counter(word for word in words if word not in known)
    assert unknown.total() / len(words) < 0.12, unknown
    content = [word for topic in read_topics(None, for_template=True) for word in topic.words]
    assert sum(word in known for word in content) / len(content) > 0.95


@pytest.mark.parametrize(
    ("caption", "name"),
    [
        ("Rain falls on a roof", "rain"),
        ("Birds chirp and a man speaks", "bird"),
        ("Motor noise is followed by a horn honking", "motor noise"),
        ("A pigeon, cooing", "pigeon"),
        ("!", "sound"),
    ],
)
def test_sounds_are_called_by_a_name_from_the_caption(caption: str, name: str) -> None:
    """Real captions are sentences; a reply that reads one out would teach the caption and not the sound."""
    assert sound_name(Sound(kind="audio", caption=caption)) == name


def test_every_synthesised_sound_has_a_caption_with_its_name() -> None:
    """A sound without one would never be heard; one without its name could not be called by it."""
    for kind, captions in grammar()["captions"].items():
        assert set(captions) == set(SOUNDS[kind])
        for name, caption in captions.items():
            assert sound_name(Sound(kind=kind, caption=caption)) == name

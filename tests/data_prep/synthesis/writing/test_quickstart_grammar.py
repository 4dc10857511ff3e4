"""Words, replies and the split by combinations."""

from collections import Counter

import pytest

from data_prep.synthesis.mixing.sounds import SOUND_NAMES
from data_prep.synthesis.writing.quickstart_grammar import (
    CONTENT_WORDS,
    REPLIES,
    TEMPLATES,
    combinations,
    reply,
    stage_directions,
)


def test_reply_says_content_and_sound_and_has_a_full_style() -> None:
    """A reply that leaves out a content word or sound would make its score unreachable."""
    style, text = reply("angry", "market", "rain", "female")
    assert (style.gender, style.emotion, style.speed, style.pitch) == ("female", "neutral", "slow", "low")
    assert text == "please stay calm. we can fix it at the market. i hear the rain."
    assert reply("angry", "market", "", "female")[1] == "please stay calm. we can fix it at the market."


def test_no_word_of_the_frame_is_a_content_word_or_sound() -> None:
    """A frame that contains one would count it as heard in every reply."""
    frames = " ".join([*TEMPLATES, *(words for *_, words in REPLIES.values())]).replace(".", "").split()
    assert not set(frames) & {*CONTENT_WORDS, *SOUND_NAMES}


def test_a_constant_guess_scores_low() -> None:
    """If one reply emotion prevailed, the emotion score would say nothing; text can do no better than this."""
    replies = Counter(reply_emotion for reply_emotion, *_ in REPLIES.values())
    best = max(replies.values()) / len(REPLIES)
    assert len(replies) >= 5
    assert 2 * best / (1 + best) * best < 0.2  # weighted F1 of always the commonest


@pytest.mark.parametrize("seed", [0, 1])
def test_held_out_pairs_are_new_but_their_parts_are_not(seed: int) -> None:
    """A held-out pair seen in training is a leak; a word never trained cannot be answered."""
    train, held_out = combinations(seed)
    assert not set(train) & set(held_out)
    assert len(train) + len(held_out) == len(TEMPLATES) * len(CONTENT_WORDS)
    for pairs in (train, held_out):
        assert {word for _, word in pairs} == set(CONTENT_WORDS)
        assert {template for template, _ in pairs} == set(range(len(TEMPLATES)))
    # A prefix is balanced too: the corpus takes only as many as it is asked for.
    assert {word for _, word in train[: len(CONTENT_WORDS)]} == set(CONTENT_WORDS)


def test_stage_directions_stand_before_the_words() -> None:
    """The tiny language model is taught on them: sound, then emotion, then what is said."""
    assert stage_directions("we go.", "angry") == "(angry) we go."
    assert stage_directions("we go.", "angry", "rain") == "[rain] (angry) we go."

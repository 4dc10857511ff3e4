"""What every speech engine keeps to."""

import numpy as np
import pytest

from data_prep.synthesis.backends.embedded.backend import ENGINES
from data_prep.synthesis.backends.embedded.engine import Engine, Utterance, speak
from data_prep.synthesis.backends.embedded.prosody import PROSODIES
from data_prep.synthesis.contracts import Voice
from omnichat.dialogue import Style

WORDS = "we are going to the market."
BREATHY = Voice(
    name="en-us+f3", gender="female"
)  # its breath noise comes from a generator that espeak-ng seeds with the time


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    running: Engine = request.getfixturevalue(request.param)
    return running


@pytest.mark.parametrize("name", ENGINES)
def test_voices_are_enough_of_both_sexes_and_unseen_ones_are_other_ones(name: str) -> None:
    """A voice in both groups would make the score on unseen voices a score on seen ones."""
    groups = (ENGINES[name].train_voices, ENGINES[name].unseen_voices)
    train, unseen = ({voice.name for voice in voices} for voices in groups)
    assert not train & unseen
    assert len(train) >= 8
    assert len(unseen) >= 4
    for voices in groups:
        assert {voice.gender for voice in voices} == {"male", "female"}


def test_every_voice_speaks(engine: Engine) -> None:
    """A voice that falls back to another, or settings that do not reach the samples, would show only in the scores."""
    voices = (*engine.train_voices, *engine.unseen_voices)
    said = [engine.say(WORDS, voice, PROSODIES["neutral"]).pcm for voice in voices]
    assert len({pcm.tobytes() for pcm in said}) == len(voices)
    assert all(0.8 < len(pcm) / 16_000 < 2.5 for pcm in said)


def test_same_request_same_samples_whatever_came_before(engine: Engine) -> None:
    """An engine may carry state from one utterance to the next; the corpus must not depend on the order of work."""
    for voice in (*engine.train_voices[:1], *([BREATHY] if BREATHY in engine.train_voices else [])):
        first = speak(engine, WORDS, voice, Style(emotion="fearful"), np.random.default_rng(5))
        speak(engine, "something else entirely.", engine.unseen_voices[0], Style(emotion="happy"))
        again = speak(engine, WORDS, voice, Style(emotion="fearful"), np.random.default_rng(5))
        with type(engine)() as other:
            elsewhere = speak(other, WORDS, voice, Style(emotion="fearful"), np.random.default_rng(5))
        assert np.array_equal(first.pcm, again.pcm)
        assert np.array_equal(first.pcm, elsewhere.pcm)
        assert first.phones == again.phones == elsewhere.phones


def test_resampled_phones_keep_their_places() -> None:
    """A nameless or empty phone must not shift the others, nor must another rate."""
    utterance = Utterance.resampled(np.zeros(800, np.float32), 8_000, [("_", 0), ("a", 100), ("", 300), ("b", 500)])
    assert len(utterance.pcm) == 1600
    assert utterance.phones == (("_", 0, 200), ("a", 200, 600), ("b", 1000, 1600))

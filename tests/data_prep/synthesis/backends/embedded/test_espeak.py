"""The worker and its client."""

import io
import itertools
import json
import os
import signal

import numpy as np
import pytest

from data_prep.synthesis.backends.embedded.engine import EngineError, speak
from data_prep.synthesis.backends.embedded.espeak import TRAIN_VOICES, Espeak
from data_prep.synthesis.backends.embedded.espeak_worker import Library, _answer
from data_prep.synthesis.backends.embedded.prosody import PROSODIES
from data_prep.synthesis.contracts import Voice
from omnichat.dialogue import Style

WORDS = "we are going to the market."


def test_phones_cover_the_words_in_order(espeak: Espeak) -> None:
    """Wrong phone times would train the phone expert on wrong labels."""
    utterance = speak(espeak, WORDS, TRAIN_VOICES[0], Style(emotion="neutral"))
    names = [name for name, _, _ in utterance.phones]
    assert names[:2] == ["w", "i:"]
    assert [name for name in names if name in "mktN"][-4:] == ["t", "m", "k", "t"]
    bounds = [(start, end) for _, start, end in utterance.phones]
    assert all(start < end for start, end in bounds)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(bounds))
    assert bounds[0][0] == 0
    assert bounds[-1][1] == len(utterance.pcm)
    # The vowel of "market" is the loudest stretch, the closure of its "k" is near silence.
    level = {name: np.abs(utterance.pcm[start:end]).mean() for name, start, end in utterance.phones}
    assert level["A@"] > 3 * level["k"]


def test_a_refused_request_is_named_and_the_worker_goes_on(espeak: Espeak) -> None:
    """A misspelt voice must not be spoken by a default one."""
    with pytest.raises(EngineError, match=r"no voice 'en-us\+nobody'"):
        espeak.say(WORDS, Voice(name="en-us+nobody", gender="male"), PROSODIES["neutral"])
    with pytest.raises(EngineError, match="no sound"):
        espeak.say("", TRAIN_VOICES[0], PROSODIES["neutral"])
    assert len(espeak.say(WORDS, TRAIN_VOICES[0], PROSODIES["neutral"]).pcm) > 10_000


def test_a_dead_worker_is_a_clear_error(espeak: Espeak) -> None:
    """A killed worker must neither hang the corpus nor end it with a broken pipe's traceback."""
    with Espeak() as engine:
        engine._process.kill()
        engine._process.wait()
        for _ in range(2):
            with pytest.raises(EngineError, match=r"ended early \(status -9\)"):
                engine.say(WORDS, TRAIN_VOICES[0], PROSODIES["neutral"])


def test_an_engine_that_crashes_costs_one_utterance() -> None:
    """A crash inside the library must be told as such, with the words it happened on."""

    class Dying(Library):
        def __init__(self) -> None:
            pass

        def say(self, request: dict[str, object]) -> tuple[bytes, list[tuple[str, int]]]:
            os.kill(os.getpid(), signal.SIGKILL)

    out = io.BytesIO()
    _answer(Dying(), json.dumps({"text": WORDS}).encode(), out)
    error = json.loads(out.getvalue())["error"]
    assert "died with status -9" in error
    assert WORDS in error


@pytest.mark.parametrize("library", ["/nowhere/libespeak-ng.so", "libm.so.6"])
def test_a_wrong_library_is_named(library: str) -> None:
    """A path that is no espeak-ng must be told by its name, not by a traceback."""
    with pytest.raises(EngineError, match=library):
        Espeak(library)

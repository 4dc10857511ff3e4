"""What the tests of the corpus commands share."""

from collections.abc import Iterator

import pytest
from tokenizers import Tokenizer

from data_prep.synthesis.backends.embedded.engine import EngineError
from data_prep.synthesis.backends.embedded.espeak import Espeak
from data_prep.synthesis.backends.embedded.flite import Flite
from omnichat.prompt import Prompt


@pytest.fixture
def prompt(tokenizer: Tokenizer) -> Prompt:
    """A prompt without a system message."""
    return Prompt(tokenizer)


@pytest.fixture(scope="session")
def espeak() -> Iterator[Espeak]:
    """One worker for all tests that speak."""
    try:
        engine = Espeak()
    except EngineError as error:
        pytest.skip(f"needs espeak-ng: {error}")
    with engine:
        yield engine


@pytest.fixture(scope="session")
def flite() -> Iterator[Flite]:
    """One for all tests."""
    try:
        engine = Flite()
    except EngineError as error:
        pytest.skip(f"needs flite: {error}")
    with engine:
        yield engine

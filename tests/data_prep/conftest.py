"""What the tests of the corpus commands share."""

import pytest
from tokenizers import Tokenizer

from omnichat.prompt import Prompt


@pytest.fixture
def prompt(tokenizer: Tokenizer) -> Prompt:
    """A prompt without a system message."""
    return Prompt(tokenizer)

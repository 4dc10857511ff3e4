"""What the tests of the data share: a prompt with a small tokenizer, and a made-up store."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from omnichat.data.made_up import made_up_dialogues
from omnichat.prompt import Prompt


@pytest.fixture
def prompt(tokenizer: Tokenizer) -> Prompt:
    """A prompt without a system message."""
    return Prompt(tokenizer)


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    """The JSONL of a store of nine made-up dialogues."""
    made_up_dialogues(tmp_path / "made_up", 9)
    return tmp_path / "made_up" / "train.jsonl"

"""What language models are told: a folder of text files for each version, in our own words.

The rules are those of the paper's prompts (OmniChat, Figs 11-13). A version that scripts were written with is not
changed any more: a better prompt is a new version.
"""

import hashlib
from functools import lru_cache
from importlib.resources import files
from string import Template

VERSION = "v1"


def prompt(name: str, **values: object) -> str:
    """The prompt `name` with its $fields filled in.

    Raises:
        KeyError: a field without a value.
    """
    return Template(_text(name)).substitute(values).strip()


def sentences_rule(most: int) -> str:
    """How many sentences a turn may have, as the prompts put it."""
    return "exactly one sentence" if most == 1 else f"one to {most} sentences"


@lru_cache(maxsize=32)
def _text(name: str) -> str:
    return files(__package__).joinpath(VERSION, f"{name}.txt").read_text(encoding="utf-8")


def prompts_fingerprint() -> str:
    """Version and hash of all prompts: other prompts make other scripts."""
    folder = files(__package__).joinpath(VERSION)
    texts = [
        path.name + path.read_text(encoding="utf-8") for path in sorted(folder.iterdir(), key=lambda one: one.name)
    ]
    return f"{VERSION}-{hashlib.sha256(''.join(texts).encode()).hexdigest()[:12]}"

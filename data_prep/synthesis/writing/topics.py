"""What scripts are about: topics, and the captions of sounds; shipped ones or files of the user's."""

import hashlib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml

from data_prep.synthesis.contracts import Contract, Sound
from data_prep.synthesis.mixing.captions import sounds_of
from omnichat.dialogue import DataError, shown

KINDS = ("place", "thing", "food", "matter", "person")


class Topic(Contract):
    """Something to talk about.

    Attributes:
        name: what a language model is told.
        kind: which sentences of the grammar fit; None where only a language model can write about it.
        words: content words for those sentences.
    """

    name: str
    kind: Literal["place", "thing", "food", "matter", "person"] | None = None
    words: tuple[str, ...] = ()


@lru_cache(maxsize=8)
def read_topics(path: Path | None, for_template: bool) -> tuple[Topic, ...]:
    """The topics of a file, or the shipped ones.

    Args:
        path: YAML (a list of names, or of objects as in `data/topics.yaml`) or text (a name a line); None: shipped.
        for_template: only those with a kind and words.

    Raises:
        DataError: `no_file`, `bad_topics`.
    """
    where = "data/topics.yaml" if path is None else str(path)
    text = data_text("topics.yaml") if path is None else _text_of(path)
    if path is None or path.suffix in (".yaml", ".yml"):
        try:
            entries: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise DataError("bad_topics", f"not YAML: {' '.join(str(error).split())}", where) from None
    else:
        entries = [line.strip() for line in text.splitlines() if line.strip()]
    if not isinstance(entries, list) or not entries:
        raise DataError("bad_topics", "must be a list of topics; one a line will do in a .txt file", where)
    topics: dict[str, Topic] = {}
    for number, entry in enumerate(entries, 1):
        try:
            topic = Topic(**({"name": entry} if isinstance(entry, str) else entry))
        except (TypeError, ValueError):
            message = f"topic {number} is {shown(entry)}; write a name, or {{name:, kind:, words: [...]}}"
            raise DataError("bad_topics", f"{message}, kind one of {', '.join(KINDS)}", where) from None
        if topic.name in topics:
            raise DataError("bad_topics", f"topic {number}, {shown(topic.name)}, stands there twice", where)
        topics[topic.name] = topic
    usable = tuple(topic for topic in topics.values() if not for_template or (topic.kind and topic.words))
    if not usable:
        message = "no topic has kind and words, which the template writer needs; add them, or set writer=llm"
        raise DataError("bad_topics", message, where)
    return usable


def read_sounds(kind: Literal["audio", "music"], path: Path | None, split: str) -> tuple[Sound, ...]:
    """The sounds that scripts of a split may be about: those of a captions file, or the synthesised ones.

    Args:
        kind: of the sounds.
        path: of a table that `mixing.captions` reads; None: the captions in `data/grammar.yaml`, of which the catalogue
            has recordings for every split.
        split: of the store. No clip is heard in two of train, val and test.

    Raises:
        DataError: see `mixing.captions.sounds_of`.
    """
    if path is not None:
        return sounds_of(path, kind, split)
    captions: dict[str, str] = yaml.safe_load(data_text("grammar.yaml"))["captions"][kind]
    return tuple(Sound(kind=kind, caption=caption) for caption in captions.values())


def data_text(name: str) -> str:
    """A shipped file of this package's `data` folder."""
    return files(__package__).joinpath("data", name).read_text(encoding="utf-8")


def fingerprint(path: Path | None, shipped: str) -> str:
    """SHA-256 of a user's file, or of the shipped one: what a script depends on is the content, not the name."""
    text = data_text(shipped) if path is None else _text_of(path)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError("bad_encoding", "not UTF-8", str(path)) from None
    except OSError as error:
        raise DataError("no_file", f"{error.strerror}; correct the path", str(path)) from None

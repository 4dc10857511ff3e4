"""Does a reply name what it should: the sound in the background, the word that the dialogue is about.

Text metrics hardly see it (one word of ten), and it is the only sign that a word or a sound was heard at all.
"""

import re
from collections.abc import Sequence

from omnichat.metrics.statistic import Statistic, mean


def names_in(text: str, names: Sequence[str]) -> set[str]:
    """The names that occur in the text as whole words, whatever their case."""
    return {name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)}


def naming_accuracy(replies: Sequence[str], wanted: Sequence[str], references: Sequence[str]) -> Statistic:
    """Share of replies that name the right one, and none of the others that the reference does not name.

    The second half keeps a reply that lists every name from being right everywhere.

    Args:
        replies: the words of the replies.
        wanted: what each should name; "" where there is nothing to be named, which does not count.
        references: the words of the references.
    """
    names = sorted({name for name in wanted if name})
    hits = [
        float(name in (found := names_in(reply, names)) and found <= names_in(reference, names) | {name})
        if name
        else None
        for reply, name, reference in zip(replies, wanted, references, strict=True)
    ]
    return mean(hits, f"named and no other|whole words|case:no|names:{len(names)}|omnichat:1")


def false_alarms(replies: Sequence[str], wanted: Sequence[str | None]) -> Statistic:
    """Share of replies that name something where there is nothing to be named (""; None does not count)."""
    names = sorted({name for name in wanted if name})
    hits = [
        float(bool(names_in(reply, names))) if name == "" else None for reply, name in zip(replies, wanted, strict=True)
    ]
    return mean(hits, f"named though absent|whole words|case:no|names:{len(names)}|omnichat:1")


def chance(wanted: Sequence[str]) -> float:
    """What guessing among the names that occur would get: 1 / number of names."""
    return 1 / len({name for name in wanted if name})

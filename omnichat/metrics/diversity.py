"""How varied and how long replies are: a model that always says the same scores well where references are alike."""

from collections.abc import Sequence

from omnichat.metrics.statistic import Missing, Statistic, Whole, ratio


def distinct(replies: Sequence[str], n: int) -> Whole | Missing:
    """Distinct n-grams by all n-grams of all replies (Li et al. 2016, "A diversity-promoting objective function").

    It falls with the number of replies, so compare sets of one size only. It has no interval: a bootstrap draws replies
    twice, which lowers it.
    """
    grams = [gram for reply in replies for gram in _grams(reply.lower().split(), n)]
    if not grams:
        return Missing(f"no reply has {n} words")
    return Whole(
        len(set(grams)) / len(grams), f"distinct-{n}|case:no|tok:spaces|replies:{len(replies)}|omnichat:1", len(replies)
    )


def length_ratio(references: Sequence[str], replies: Sequence[str]) -> Statistic:
    """Words of all replies by words of all references."""
    counts = [(len(reply.split()), len(ref.split())) for ref, reply in zip(references, replies, strict=True)]
    return ratio(counts, "words of replies / words of references|tok:spaces|omnichat:1")


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[place : place + n]) for place in range(len(words) - n + 1)]

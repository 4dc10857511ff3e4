"""Whether the words that were heard are the words that were to be said.

Both sides pass Whisper's English normaliser (openai-whisper whisper/normalizers/english.py, in transformers), and, as
that leaves false errors between right sentences, a few rules of ours before it.
"""

import re
from functools import lru_cache
from typing import Any

# A sigh or hesitation may be heard or not, and is spelled in many ways. "oh" would become a zero.
INTERJECTIONS = re.compile(
    r"\b(?:o+h+|a+h+|u+h+m*|u+m+|e+r+m*|h+m+|m+h*m+|e+h+|a+w+|hu+h+|uh-?huh|mm-?hmm+|ooh|whoa|wow|phew|ugh|psst|shh+)\b",
    re.IGNORECASE,
)
RULES = (
    (re.compile(r"[’‘`´]"), "'"),
    (re.compile(r"[–—…]"), " "),
    (re.compile(r"\bo'?\s?clock\b", re.I), "oclock"),
    (INTERJECTIONS, " "),
    (re.compile(r"\s*&\s*"), " and "),
    (re.compile(r"\b([ap])\.?\s?m\b\.?", re.I), r"\1m"),
    (re.compile(r"(\d):00\b"), r"\1"),
    (re.compile(r"(\d):(\d\d)\b"), r"\1 \2"),
    (re.compile(r"\bokay\b", re.I), "ok"),
    (re.compile(r"\balright\b", re.I), "all right"),
    (re.compile(r"\b(?:yeah|yep|yup)\b", re.I), "yes"),
    (re.compile(r"\b'?cause\b", re.I), "because"),
    (re.compile(r"\bcannot\b", re.I), "can not"),
    (re.compile(r"\bet cetera\b", re.I), "etc"),
    (re.compile(r"\bgrey"), "gray"),
)
# British endings to American ones; Whisper writes either. Words of other origin that end so are the same on both sides.
ENDINGS = (
    (re.compile(r"([a-z]{2,})our(s|ed|ing|ite|ites|able|hood|hoods|ful|ly)?$"), r"\1or\2"),
    (re.compile(r"([a-z]{3,})is(e|es|ed|ing|ation|ations)$"), r"\1iz\2"),
    (re.compile(r"([a-z]{3,})yse(s|d)?$"), r"\1yze\2"),
    (re.compile(r"(cent|theat|met|lit|fib)re(s)?$"), r"\1er\2"),
    (re.compile(r"([a-z]{3,}[aeiou])ll(ed|ing|er|ers)$"), r"\1l\2"),
    (re.compile(r"^program(?:me)(s)?$"), r"program\1"),
    (re.compile(r"^(def|off)ence$"), r"\1ense"),
    (re.compile(r"^mum(s|my)?$"), r"mom\1"),
)


MOST_PARTS = 4  # of a word that is written as several: "brother in law" is three


def normalised(text: str) -> list[str]:
    """The words of a text in the form in which they are compared."""
    for pattern, instead in RULES:
        text = pattern.sub(instead, text)
    return [_american(word) for word in _normaliser()(text).split() if any(c.isalnum() for c in word)]


def word_errors(reference: str, heard: str) -> tuple[int, int]:
    """Words of the reference, and errors in what was heard: words that differ, lack or are too many.

    The edit distance over words, but for words that differ only in where they are parted ("every day", "everyday"):
    they are right. A reference without words
    ("Hmm...") has none, and no errors whatever was heard.
    """
    wanted, got = normalised(reference), normalised(heard)
    if not wanted:
        return 0, 0
    best = [[0] * (len(got) + 1) for _ in range(len(wanted) + 1)]
    for i in range(len(wanted) + 1):
        for j in range(len(got) + 1):
            if not i or not j:
                best[i][j] = i + j
                continue
            least = min(best[i - 1][j - 1] + (wanted[i - 1] != got[j - 1]), best[i - 1][j] + 1, best[i][j - 1] + 1)
            for parts in range(2, MOST_PARTS + 1):
                if j >= parts and wanted[i - 1] == "".join(got[j - parts : j]):
                    least = min(least, best[i - 1][j - parts])
                if i >= parts and got[j - 1] == "".join(wanted[i - parts : i]):
                    least = min(least, best[i - parts][j - 1])
            best[i][j] = least
    return len(wanted), best[-1][-1]


def _american(word: str) -> str:
    for pattern, instead in ENDINGS:
        word = pattern.sub(instead, word)
    return word


@lru_cache
def _normaliser() -> Any:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})

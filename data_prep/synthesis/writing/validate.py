"""The rules that a script keeps, whoever wrote it: one check for each reason of the stage `scripts`.

Mended without a word, as it changes nothing that is heard: case and spaces of styles and speakers, nouns for emotions
("happiness"), spaces and line ends, typographic quotes and dashes, quotes around a whole turn, a missing full stop.
Everything else is a fault, and the script is written again.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import combinations, pairwise
from typing import get_args

from data_prep.synthesis.contracts import Branch, Brief, Line, Script, Speaker
from data_prep.synthesis.stage import Retry
from data_prep.synthesis.writing import english
from data_prep.synthesis.writing.draft import Draft, DraftLine
from data_prep.synthesis.writing.settings import WritingSettings
from omnichat.data.corpora.emotions import emotion_map
from omnichat.dialogue import STYLE_FIELDS, STYLE_VALUES, Style, shown

SAME_SIGN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "…": "...", "\u00a0": " ", "–": "-", "—": "-"})
QUOTES = re.compile(r"""(["'`])(.*)\1""", re.DOTALL)
SENTENCE_END = re.compile(r"""([.!?]+)["')]*(?=\s|$)""")
ABBREVIATIONS = re.compile(r"\b(?:mr|mrs|ms|dr|st|prof|vs|etc|e\.g|i\.e|a\.m|p\.m|jr|sr|no)\.$", re.IGNORECASE)
# What a speech engine would read aloud: brackets, markup, a speaker's name before the words, pictures.
DIRECTIONS = (
    re.compile(r"[()\[\]{}<>*_#|~^=\\]"),
    re.compile(r"^\s*(?:user|assistant|speaker|human|bot|ai|person|system)\s*[\w]?\s*:", re.IGNORECASE),
    re.compile(r"\b(?:current|history)[ _]turn|\bresponse_of\b|\bstyle[ _]\d", re.IGNORECASE),
)
HEARING = frozenset(
    "hear heard hearing listen listening sound sounds sounding noise noises noisy music song tune".split()
)
# Private or harmful things that must not be put into anybody's mouth; short on purpose, the prompt and the model's own
# rules do the most of it.
UNSAFE = (
    re.compile(r"https?:|www\.|\w@\w|\d[\d ()-]{6,}\d"),
    re.compile(
        r"\b(?:fuck\w*|cunt|nigg\w+|faggot\w*|rape[ds]?|porn\w*|kill (?:yourself|myself)|suicide)\b", re.IGNORECASE
    ),
)
Turns = list[DraftLine]


def validate(draft: Draft, brief: Brief, settings: WritingSettings) -> Script:
    """The script of a draft, mended and checked.

    Raises:
        Retry: the first rule that is broken, with the turn and what stands there.
    """
    history = tuple(_mended(line) for line in draft.history)
    currents = tuple(_mended(line) for line in draft.currents)
    replies = tuple(_mended(line) for line in draft.replies)
    _check_counts(history, currents, replies, brief, settings)
    _check_order(history, currents, replies)
    # Every turn once, whatever branch it stands in.
    turns = {f"history turn {n}": line for n, line in enumerate(history, 1)}
    turns |= {f"current turn, style {n}": line for n, line in enumerate(currents, 1)}
    turns |= {f"reply {n}": line for n, line in enumerate(replies, 1)}
    for place, line in turns.items():
        _check_style(line, place)
    _check_genders(turns)
    for place, line in turns.items():
        check_turn(line.text, place, settings)
    _check_script_language([line.text for line in turns.values()])
    _check_branches(normalise(draft.words) or currents[0].text, currents, replies, brief)
    _check_repeats(history, currents, replies)
    if brief.sound is not None and not any(mentions(line.text, brief.sound.caption) for line in replies):
        raise Retry("sound_ignored", f"no reply speaks of {shown(brief.sound.caption)}")
    return Script(
        brief=brief,
        history=tuple(_line(line) for line in history),
        current=currents[0].text,
        branches=tuple(
            Branch(style=Style(**current.style), reply=_line(reply))
            for current, reply in zip(currents, replies, strict=True)
        ),
    )


def check_turn(text: str, place: str, settings: WritingSettings) -> None:
    """The rules for a turn by itself.

    Raises:
        Retry: `unsafe`, `stage_directions`, `language`, `not_one_sentence`.
    """
    _check_unsafe(text, place)
    _check_directions(text, place)
    _check_language(text, place)
    _check_sentence(text, place, settings)


def normalise(text: str) -> str:
    """A turn as it is kept; see the top of this module."""
    text = " ".join(unicodedata.normalize("NFC", text).translate(SAME_SIGN).split())
    if (whole := QUOTES.fullmatch(text)) and whole[1] not in whole[2]:
        text = whole[2].strip()
    return text if not text or text[-1] in ".!?" or not text[-1].isalnum() else f"{text}."


def count_sentences(text: str) -> int:
    """Sentences by their end marks: "dr. smith is here..." is one, "oh no! what now?" two."""
    count = start = 0
    for end in SENTENCE_END.finditer(text):
        after = text[end.end() :].lstrip()
        pause = end[1].startswith("...") and after[:1].islower()
        if not pause and not ABBREVIATIONS.search(text[: end.end(1)]):
            count += bool(re.search(r"\w", text[start : end.end()]))
            start = end.end()
    return count + bool(re.search(r"\w", text[start:]))


def mentions(text: str, caption: str) -> bool:
    """Whether a turn has to do with a sound: a word of the caption by its stem, or a word of hearing."""
    words = re.findall(r"[a-z']+", text.lower())
    about = {_stem(word) for word in re.findall(r"[a-z]+", caption.lower()) if word not in english.COMMON}
    return any(word in HEARING or _stem(word) in about for word in words)


def _stem(word: str) -> str:
    for ending in ("ing", "ies", "ed", "es", "s", "ly", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


@lru_cache(maxsize=1)
def _nouns() -> Mapping[str, str | None]:
    return emotion_map("sharechat_demo").labels


def _mended(line: DraftLine) -> DraftLine:
    style = {name: str(value).strip().lower() for name, value in line.style.items()}
    if "emotion" in style:
        style["emotion"] = _nouns().get(style["emotion"]) or style["emotion"]
    return DraftLine(line.speaker.strip().lower(), style, normalise(line.text), line.kind, line.gap, line.cut)


def _line(line: DraftLine) -> Line:
    return Line.model_validate(
        {"speaker": line.speaker, "text": line.text, "style": Style(**line.style)}
        | {"kind": line.kind, "gap": line.gap, "cut": line.cut}
    )


def _check_counts(
    history: tuple[DraftLine, ...],
    currents: tuple[DraftLine, ...],
    replies: tuple[DraftLine, ...],
    brief: Brief,
    settings: WritingSettings,
) -> None:
    count = sum(line.kind != "backchannel" for line in history)
    if count != brief.history_turns:
        raise Retry("turns_count", f"{count} turns before the current one, asked for {brief.history_turns}")
    if not len(currents) == len(replies) == settings.branches:
        message = f"{len(currents)} styles and {len(replies)} replies, asked for {settings.branches} of each"
        raise Retry("turns_count", message)


def _check_order(history: tuple[DraftLine, ...], currents: Iterable[DraftLine], replies: Iterable[DraftLine]) -> None:
    """Turn about, the current turn the user's; a backchannel is the listener's; who is interrupted stops."""
    turns = [line for line in history if line.kind != "backchannel"]
    for before, line in pairwise((*turns, *currents)):
        if (before.cut < 1) != (line.kind == "interruption"):
            raise Retry("speaker_order", f"{shown(before.text)} breaks off without an interruption, or it without that")
    for number, line in enumerate(history, 1):
        if line.speaker not in get_args(Speaker):
            raise Retry("speaker_order", f"history turn {number}: {shown(line.speaker)} is not user or assistant")
    expected = "assistant"
    for number, line in reversed(list(enumerate(history, 1))):
        if line.kind == "backchannel":
            if number == 1 or history[number - 2].speaker == line.speaker:
                raise Retry("speaker_order", f"history turn {number}: a backchannel by the speaker himself")
            continue
        if line.speaker != expected:
            raise Retry("speaker_order", f"history turn {number}: is the {line.speaker}'s, must be the {expected}'s")
        expected = "user" if expected == "assistant" else "assistant"
    for name, lines, speaker in (("current turn", currents, "user"), ("reply", replies, "assistant")):
        for number, line in enumerate(lines, 1):
            if line.speaker != speaker:
                raise Retry("speaker_order", f"{name} {number}: is {shown(line.speaker)}, must be the {speaker}'s")


def _check_style(line: DraftLine, place: str) -> None:
    for name in STYLE_FIELDS:
        if line.style.get(name) not in STYLE_VALUES[name]:
            message = f"{place}: {name} {shown(line.style.get(name))} is not one of {', '.join(STYLE_VALUES[name])}"
            raise Retry("style_out_of_set", message)
    if unknown := set(line.style) - set(STYLE_FIELDS):
        raise Retry("style_out_of_set", f"{place}: a style has no {shown(min(unknown))}")


def _check_genders(turns: Mapping[str, DraftLine]) -> None:
    first: dict[str, str] = {}
    for place, line in turns.items():
        gender = first.setdefault(line.speaker, line.style["gender"])
        if line.style["gender"] != gender:
            raise Retry("gender_drift", f"{place}: the {line.speaker} was {gender} and is {line.style['gender']} now")


def _check_unsafe(text: str, place: str) -> None:
    for pattern in UNSAFE:
        if found := pattern.search(text):
            raise Retry("unsafe", f"{place}: {shown(found[0])}")


def _check_directions(text: str, place: str) -> None:
    for pattern in DIRECTIONS:
        if found := pattern.search(text):
            raise Retry("stage_directions", f"{place}: {shown(found[0])} in {shown(text)}")
    for sign in text if not (text.isascii() and text.isprintable()) else "":
        if unicodedata.category(sign) in ("So", "Sk", "Cs", "Co", "Cc", "Cf"):
            raise Retry("stage_directions", f"{place}: {unicodedata.name(sign, repr(sign))} in {shown(text)}")


def _check_language(text: str, place: str) -> None:
    others = [letter for letter in text if letter.isalpha() and not letter.isascii()]
    foreign = [letter for letter in others if "LATIN" not in unicodedata.name(letter, "")]
    words = re.findall(r"[^\W\d_]+", text.lower())
    # "café" and a name are English enough; a sentence without any common word is not.
    if foreign or len(others) > max(1, len(words) // 3) or (len(words) > 6 and not english.COMMON & set(words)):
        raise Retry("language", f"{place}: not English: {shown(text)}")


def _check_script_language(texts: list[str]) -> None:
    words = re.findall(r"[^\W\d_]+", " ".join(texts).lower())
    share = sum(word in english.COMMON for word in words) / max(1, len(words))
    if share < english.LEAST_SHARE:
        raise Retry("language", f"only {share:.0%} of the words are common English ones, as in {shown(texts[0])}")


def _check_sentence(text: str, place: str, settings: WritingSettings) -> None:
    count, words = count_sentences(text), len(text.split())
    if not 1 <= count <= settings.sentences:
        raise Retry("not_one_sentence", f"{place}: {count} sentences, at most {settings.sentences}: {shown(text)}")
    if words > settings.max_words:
        raise Retry("not_one_sentence", f"{place}: {words} words, at most {settings.max_words}: {shown(text)}")


def _check_branches(words: str, currents: tuple[DraftLine, ...], replies: tuple[DraftLine, ...], brief: Brief) -> None:
    for number, line in enumerate(currents, 1):
        if plain(line.text) != plain(words):
            message = f"style {number} says {shown(line.text)}, the current turn is {shown(words)}"
            raise Retry("branch_text_differs", message)
    for (one, first), (two, second) in combinations(enumerate(currents, 1), 2):
        if first.style == second.style:
            raise Retry("branches_alike", f"styles {one} and {two} are both {', '.join(first.style.values())}")
    for (one, first), (two, second) in combinations(enumerate(replies, 1), 2):
        if plain(first.text) == plain(second.text):
            raise Retry("branches_alike", f"replies {one} and {two} are both {shown(first.text)}")
    for number, (line, style) in enumerate(zip(currents, brief.styles, strict=False), 1):
        asked = {name: value for name, value in style.known().items() if name != "gender"}
        given = {name: line.style[name] for name in asked}
        if given != asked:
            message = f"style {number} is {', '.join(given.values())}, asked for {', '.join(asked.values())}"
            raise Retry("style_out_of_set", message)


def _check_repeats(
    history: tuple[DraftLine, ...], currents: tuple[DraftLine, ...], replies: tuple[DraftLine, ...]
) -> None:
    for number, reply in enumerate(replies, 1):
        said: dict[str, str] = {}
        for line in (*history, currents[0], reply):
            text = plain(line.text)
            # "yes." and "thank you." may come again, and so may a listener's backchannel.
            if text in said and len(text.split()) > 2 and line.kind != "backchannel":
                raise Retry("repeated_turn", f"{shown(line.text)} is said twice before or in reply {number}")
            said[text] = line.text


def plain(text: str) -> str:
    """A turn's words alone: what must differ between two turns."""
    return " ".join(re.findall(r"[\w']+", text.lower()))

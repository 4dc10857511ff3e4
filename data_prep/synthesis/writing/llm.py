"""Scripts of the ShareChatX subsets by a language model: one call, one history, three styles, three replies.

The keys of the answer are the paper's (OmniChat, Figs 11-13).
"""

import re
from typing import Any

from data_prep.synthesis.contracts import Brief
from data_prep.synthesis.stage import Attempt, Retry
from data_prep.synthesis.writing.asking import REFUSAL, Asker, Shape
from data_prep.synthesis.writing.draft import Draft, DraftLine
from data_prep.synthesis.writing.prompts import prompt, sentences_rule
from data_prep.synthesis.writing.settings import WritingSettings
from omnichat.dialogue import STYLE_FIELDS, Style, shown

HEADED = re.compile(r"\s*(?P<speaker>[^\s(\[:]*)\s*[(\[](?P<style>[^)\]]*)[)\]]\s*:?\s*(?P<text>.*)", re.DOTALL)


class ScriptAnswer(Shape):
    """What the model is to answer."""

    history_turns: list[str]
    current_turn: str
    current_turn_style_1: str
    current_turn_style_2: str
    current_turn_style_3: str
    response_of_current_style_1: str
    response_of_current_style_2: str
    response_of_current_style_3: str


def answer_schema(history_turns: int) -> dict[str, Any]:
    """The answer's JSON schema: all keys, nothing else, the right number of turns."""
    fields: dict[str, Any] = {name: {"type": "string"} for name in ScriptAnswer.model_fields}
    count = {"minItems": history_turns, "maxItems": history_turns}
    fields["history_turns"] = {"type": "array", "items": {"type": "string"}, **count}
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


async def write_with_model(brief: Brief, settings: WritingSettings, asker: Asker, attempt: Attempt) -> Draft:
    """The script of a brief, as the model wrote it.

    Raises:
        Retry: see `Asker.ask`; `llm_schema`, `llm_refusal` for turns that are none.
    """
    rule = "" if brief.sound is None else prompt(f"sharechat_{brief.sound.kind}", caption=brief.sound.caption)
    rules = prompt(
        "sharechat",
        history_turns=brief.history_turns,
        max_words=settings.max_words,
        sentences=sentences_rule(settings.sentences),
        styles=styles_rule(brief.styles),
        sound_rule=rule,
    )
    request = prompt("sharechat_request", topic=brief.topic)
    answer = await asker.ask(rules, request, ScriptAnswer, attempt, answer_schema(brief.history_turns))
    return draft_of(answer)


def draft_of(answer: ScriptAnswer) -> Draft:
    """The turns of an answer.

    Raises:
        Retry: `llm_schema` for a turn without its style, `llm_refusal` for a turn that declines.
    """
    fields = answer.model_dump()
    history = [headed_line(text, f"history_turns {n}") for n, text in enumerate(answer.history_turns, 1)]
    words = bare_words(answer.current_turn)
    names = [f"current_turn_style_{n}" for n in (1, 2, 3)]
    currents = [headed_line(fields[name], name, "user", words) for name in names]
    names = [f"response_of_current_style_{n}" for n in (1, 2, 3)]
    replies = [headed_line(fields[name], name, "assistant") for name in names]
    return Draft(tuple(history), tuple(currents), tuple(replies), words)


def headed_line(text: str, place: str, speaker: str = "", words: str = "") -> DraftLine:
    """`User (female, happy, fast, high): words` as a line; `speaker` and `words` stand in where there are none.

    Raises:
        Retry: `llm_schema`, `llm_refusal`.
    """
    if REFUSAL.match(text):
        raise Retry("llm_refusal", f"{place}: {shown(text)}")
    match = HEADED.fullmatch(text)
    values = [value.strip() for value in match["style"].split(",")] if match else []
    if match is None or len(values) != len(STYLE_FIELDS):
        form = f"SPEAKER ({', '.join(STYLE_FIELDS)}): WORDS"
        raise Retry("llm_schema", f"{place}: {shown(text)} is not of the form {form}")
    style = dict(zip(STYLE_FIELDS, values, strict=True))
    return DraftLine(match["speaker"] or speaker, style, match["text"].strip() or words)


def bare_words(text: str) -> str:
    """A turn's words without speaker and style."""
    match = HEADED.fullmatch(text)
    return match["text"].strip() if match else re.sub(r"^\s*user\s*:\s*", "", text, flags=re.IGNORECASE).strip()


def styles_rule(styles: tuple[Style, ...]) -> str:
    """What is prescribed of the styles; nothing where the model may choose."""
    if not styles:
        return "Choose three that suit the topic, and vary them from script to script."
    asked = "; ".join(f"style {n}: {spelled(style)}" for n, style in enumerate(styles, 1))
    return f"They are, in this order: {asked}."


def spelled(style: Style) -> str:
    """A style as it stands before a turn, without its brackets."""
    return ", ".join(style.known().values())

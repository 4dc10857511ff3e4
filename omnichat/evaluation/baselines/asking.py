"""What a model that was never trained on the task is told, and the dialogue as its messages."""

from collections.abc import Callable, Sequence
from typing import Any

from omnichat.dialogue import STYLE_VALUES, DataError, Dialogue, Turn, shown
from omnichat.prompt import UNKNOWN, styled

_FIELDS = "\n".join(f"{name}: {', '.join(values)} or {UNKNOWN}" for name, values in STYLE_VALUES.items())
INSTRUCTION = f"""You are one of two people who speak with each other. Give your next turn of the conversation: \
how you say it, then what you say, in one or two short sentences. Let the way you speak suit how the other one speaks \
and feels.
Write one line of exactly this form, and nothing else:
({", ".join(STYLE_VALUES)}): words
The four values in brackets are taken from these lists:
{_FIELDS}
For example:
(female, happy, normal, high): That is lovely to hear!"""

Message = dict[str, Any]


def messages(dialogue: Dialogue, say: Callable[[Turn], list[Message]], instruction: str = INSTRUCTION) -> list[Message]:
    """The dialogue up to the turn to be answered, as a chat template takes it.

    Turns of one role in a row become one message: most templates take none that do not alternate.

    Args:
        dialogue: ends in the turn to be answered.
        say: a user turn as parts of a message ({"type": "text" | "audio", ...}).
        instruction: of the system.
    """
    found: list[Message] = [{"role": "system", "content": [{"type": "text", "text": instruction}]}]
    for turn in dialogue.turns[:-1]:
        parts = say(turn) if turn.role == "user" else text_part(styled(turn.style, turn.text))
        if found[-1]["role"] == turn.role:
            found[-1]["content"] += parts
        else:
            found.append({"role": turn.role, "content": parts})
    return found


def text_part(text: str) -> list[Message]:
    """Words of the data as a part of a message; what could be read as a mark of the template is no longer one."""
    return [{"type": "text", "text": text.replace("<|", "< |")}]


def as_text(parts: Sequence[Message]) -> list[Message]:
    """Messages of text alone with their content as one string, which every chat template takes."""
    return [{"role": part["role"], "content": "\n".join(piece["text"] for piece in part["content"])} for part in parts]


def without_system(found: Sequence[Message]) -> list[Message]:
    """The same for templates that know no system message: the instruction opens the first turn of the user."""
    system, first, *rest = found
    if first["role"] != "user":
        return [{"role": "user", "content": system["content"]}, first, *rest]
    return [{"role": "user", "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def rendered(template: Callable[[list[Message]], str], found: list[Message], dialogue: Dialogue) -> str:
    """The messages by a chat template, with the system message or, where it refuses that, without.

    Raises:
        DataError: `bad_template` where it takes neither; names the dialogue.
    """
    try:
        return template(found)
    except Exception:  # Jinja's errors, and whatever else a template raises
        try:
            return template(without_system(found))
        except Exception as error:
            message = f"the model's chat template takes no such dialogue ({error}); give another model"
            raise DataError("bad_template", message, f"dialogue {shown(dialogue.id)}") from None


def check_length(count: int, new: int, limit: int | None, dialogue: Dialogue) -> None:
    """Raise where a prompt and its reply leave the model's context.

    Raises:
        DataError: `too_long`.
    """
    if limit is not None and count + new > limit:
        message = f"its prompt has {count} tokens, and {new} may follow; the model reads {limit}: give another model"
        raise DataError("too_long", message, f"dialogue {shown(dialogue.id)}")

"""What is done with a dialogue that is longer than the model's context. No turn is ever cut, and no audio."""

from bisect import bisect_left
from dataclasses import replace
from typing import Literal

from omnichat.dialogue import DataError, Dialogue
from omnichat.prompt import Prompt, Tokens

Overlong = Literal["error", "drop_oldest_turns", "drop_dialogue"]
LAST_ROUND_TOO_LONG = "last_round_too_long"
OVERLONG: tuple[Overlong, ...] = ("error", "drop_oldest_turns", "drop_dialogue")


def without_oldest(dialogue: Dialogue, first_turn: int) -> Dialogue:
    """The dialogue from `first_turn` on."""
    return replace(dialogue, turns=dialogue.turns[first_turn:]) if first_turn else dialogue


def round_starts(dialogue: Dialogue) -> list[int]:
    """The turns at which a round begins, but for the first; see `shorten`."""
    roles = [turn.role for turn in dialogue.turns]
    return [n for n in range(1, len(roles)) if roles[n] == "user" and roles[n - 1] == "assistant"]


def shorten(dialogue: Dialogue, prompt: Prompt) -> tuple[int, Tokens]:
    """Leave out as few of the oldest rounds as bring the dialogue within `prompt.max_tokens`.

    A round is what the user says, in one turn or several, and the answer to it; what the assistant says before the
    first user turn is a round of its own. The last round always stays.

    Returns:
        The first turn that is kept, 0 where all fit, and the rendered rest.

    Raises:
        DataError: `last_round_too_long` where the last round alone is over the limit; what `Prompt.render` finds.
    """
    try:
        return 0, prompt.render(dialogue)
    except DataError as error:
        if error.reason != "too_long":
            raise
    starts = round_starts(dialogue)

    def fits(start: int) -> bool:
        try:
            prompt.render(without_oldest(dialogue, start))
        except DataError as error:
            if error.reason != "too_long":
                raise
            return False
        return True

    number = bisect_left(starts, True, key=fits)  # the fewer turns are kept, the shorter it is
    if number == len(starts):
        message = (
            f"what the user says last and its answer are over the limit of {prompt.max_tokens} tokens by themselves; "
            "raise max_tokens, or set overlong=drop_dialogue"
        )
        raise DataError(LAST_ROUND_TOO_LONG, message, f"dialogue {dialogue.id!r}")
    return starts[number], prompt.render(without_oldest(dialogue, starts[number]))

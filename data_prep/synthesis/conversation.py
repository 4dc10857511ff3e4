"""Which recording of each turn a dialogue takes: the pooled word error rate of a conversation decides.

A function of the dialogue and its recordings alone, so that shards and whole runs choose alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from data_prep.synthesis.config import ConversationSettings
from data_prep.synthesis.contracts import Plan, Speech, Utterance

# The recording of a turn and a take; None: refused; KeyError: not made yet.
Recordings = Callable[[Utterance, int], Speech | None]


@dataclass(slots=True)
class Choice:
    """What becomes of a dialogue.

    Attributes:
        speech: of each line, None for those that are not spoken.
        asked: recordings that were looked at.
        missing: how many of them are still to be made; no more can be said before.
        reason, message: why there will be no dialogue; "" while there may be one.
    """

    speech: list[Speech | None] = field(default_factory=list)
    asked: list[tuple[Utterance, int]] = field(default_factory=list)
    missing: int = 0
    reason: str = ""
    message: str = ""


def utterances(plan: Plan, speak_assistant: bool) -> list[Utterance | None]:
    """What is to be spoken of each line; None for what is only read."""
    return [
        Utterance(text=line.text, style=line.style, voice=plan.voices[line.speaker])
        if line.speaker == "user" or speak_assistant
        else None
        for line in plan.lines
    ]


def choose(
    plan: Plan,
    spoken: Sequence[Utterance | None],
    recordings: Recordings,
    settings: ConversationSettings,
    first: int = 0,
) -> Choice:
    """Choose the recordings of a dialogue, and name those that are still to be made.

    While the word errors of all turns together are above the limit, the turn with most errors is spoken again; of its
    recordings the one with fewest errors counts.

    Args:
        plan: the dialogue.
        spoken: see `utterances`.
        recordings: that there are.
        settings: the limit, and how often a turn may be spoken.
        first: the take to begin with; not 0 where an earlier one was refused by hand.
    """
    choice = Choice([None] * len(spoken))
    takes = {number: first for number, one in enumerate(spoken) if one is not None}
    refused = []
    for number, take in takes.items():
        choice.asked.append((_utterance(spoken, number), take))
        try:
            found = recordings(*choice.asked[-1])
        except KeyError:
            choice.missing += 1
            continue
        choice.speech[number] = found
        if found is None:
            refused.append(number)
    if refused:
        turns = ", ".join(map(str, refused))
        choice.reason, choice.message = "turn_missing", f"{plan.id}: turn {turns} could not be spoken; see stage speak"
    while not choice.missing and not choice.reason:
        known = [(number, speech) for number, speech in enumerate(choice.speech) if speech is not None]
        words, errors = sum(one.words for _, one in known), sum(one.errors for _, one in known)
        if errors <= settings.max_wer * words:
            break
        again = [number for number, one in known if one.errors and takes[number] + 1 < first + settings.max_takes]
        if not again:
            choice.reason = "wer"
            choice.message = f"{plan.id}: {errors} errors in {words} words after {settings.max_takes} takes of a turn"
            break
        worst = max(again, key=lambda number: (_speech(choice, number).errors, -takes[number], -number))
        takes[worst] += 1
        choice.asked.append((_utterance(spoken, worst), takes[worst]))
        try:
            found = recordings(*choice.asked[-1])
        except KeyError:
            choice.missing += 1
            break
        if found is not None and found.errors < _speech(choice, worst).errors:
            choice.speech[worst] = found
    return choice


def _utterance(spoken: Sequence[Utterance | None], number: int) -> Utterance:
    one = spoken[number]
    assert one is not None
    return one


def _speech(choice: Choice, number: int) -> Speech:
    one = choice.speech[number]
    assert one is not None
    return one

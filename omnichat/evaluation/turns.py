"""Which turns of a dialogue are answered, and what stands before them.

`last`: the last turn, after the corpus's own (the paper's protocol). `gold_history`: every assistant turn after a user
turn, each after the corpus's own. `own_history`: the same turns, after what the model itself answered before. Turns
that are not to be learnt (`learn` false) are not answered: they are no reference, and stay in the history as they are.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from omnichat.dialogue import Dialogue, Reply, Style, Turn

Turns = Literal["last", "gold_history", "own_history"]


@dataclass(slots=True)
class Work:
    """A dialogue of a set.

    Attributes:
        dialogue: as far as the model is shown it.
        store_place: where it stands in its store, for errors.
        first_turn: how many turns of the stored dialogue are left out before it, for errors.
        places: the turns to be answered.
        replies: what the model answered so far, by place.
    """

    dialogue: Dialogue
    store_place: str
    first_turn: int
    places: list[int]
    replies: dict[int, Reply] = field(default_factory=dict)

    def upto(self, place: int, turns: Turns) -> Dialogue:
        """The dialogue that ends in the turn to be answered."""
        said = list(self.dialogue.turns[: place + 1])
        if turns == "own_history":
            for earlier in self.places:
                if earlier < place:
                    said[earlier] = as_turn(self.replies[earlier])
        return replace(self.dialogue, turns=tuple(said))


def answered_places(dialogue: Dialogue, turns: Turns) -> list[int]:
    """The assistant turns to be answered; one that opens the dialogue answers nobody."""
    last = len(dialogue.turns) - 1
    if turns == "last":
        return [last]
    pairs = zip(dialogue.turns, dialogue.turns[1:], strict=False)
    answers = [n for n, (before, turn) in enumerate(pairs, 1) if (before.role, turn.role) == ("user", "assistant")]
    return [place for place in answers if dialogue.turns[place].learn]


def rounds(work: list[Work], turns: Turns) -> list[list[tuple[Work, int]]]:
    """What can be answered side by side, one after the other: with the model's own history, a turn a round."""
    if turns != "own_history":
        return [[(one, place) for one in work for place in one.places]]
    most = max((len(one.places) for one in work), default=0)
    return [[(one, one.places[number]) for one in work if number < len(one.places)] for number in range(most)]


def as_turn(reply: Reply) -> Turn:
    """A reply as a turn of the history; where its style could not be read, all of its fields are unknown."""
    return Turn("assistant", reply.text, reply.style or Style())


def set_name(split: str, turns: Turns) -> str:
    """The name of a set of replies: replies to all turns stand beside those to the last, not in their place."""
    return split if turns == "last" else f"{split}.{turns}"

"""A constant reply: the most frequent style, in the most frequent words."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omnichat.dialogue import STYLE_FIELDS, STYLE_VALUES, Dialogue, Reply, Style
from omnichat.evaluation.answering import Asked, Written, short_hash
from omnichat.evaluation.baselines.reading import read_dialogues
from omnichat.evaluation.turns import Turns, Work, answered_places
from omnichat.prompt import parse_reply, styled
from omnichat.schema import EvaluationConfig

OF_THE_SET = "the set itself"


class Majority:
    """The same reply to every dialogue of a set, as `answer_stores` asks it.

    Args:
        settings: of the evaluation.
        train: the stores that are counted; none: each set is answered with its own majority, which no model could
            know, and which is the most that a constant reply can get there.
    """

    def __init__(self, settings: EvaluationConfig, train: Sequence[Path]) -> None:
        self.turns: Turns = settings.turns
        self.batch_size = settings.batch_size
        self.train = train
        self._of_training = constant_reply(self._counted(train)) if train else None
        self._by_place: dict[str, str] = {}
        self._replies: dict[str, str] = {}
        self.model = short_hash(["majority", self._of_training])

    def about(self) -> dict[str, Any]:
        """See `Answerer`."""
        counted = ", ".join(map(str, self.train)) or OF_THE_SET
        said = {"all": self._of_training} if self._of_training else dict(self._replies)
        decoding = {"method": "constant", "majority of": counted}
        return {"step": 0, "parameters": {}, "decoding": decoding, "replies_by_set": said}

    def read(self, name: str, store: Path) -> tuple[list[Work], int]:
        """See `Answerer`."""
        found = read_dialogues(store, self.turns, heard=False)
        reply = self._of_training or constant_reply((one.dialogue, one.places) for one in found)
        self._replies[name] = reply
        self._by_place |= {one.store_place: reply for one in found}
        return found, len(found)

    def prompt_hash(self, asked: Asked) -> str:
        """See `Answerer`: the reply itself, which is all there is."""
        return short_hash(self._by_place[asked.work.store_place])

    def write(self, batch: Sequence[Asked]) -> list[Written]:
        """See `Answerer`."""
        return [Written(self._by_place[asked.work.store_place]) for asked in batch]

    def parse(self, raw: str) -> Reply:
        """See `Answerer`."""
        return parse_reply(raw)

    def _counted(self, stores: Sequence[Path]) -> Iterable[tuple[Dialogue, list[int]]]:
        for store in stores:
            for one in read_dialogues(store, self.turns, heard=False):
                yield one.dialogue, answered_places(one.dialogue, self.turns)


def constant_reply(dialogues: Iterable[tuple[Dialogue, Sequence[int]]]) -> str:
    """The reply that fits most of the answered turns, field by field: each one's most frequent value, and words.

    Of equally frequent values the first in the paper's order is taken, of words those that come first. A field that
    no turn knows stays unknown.
    """
    answers = [dialogue.turns[place] for dialogue, places in dialogues for place in places]
    style = {}
    for name in STYLE_FIELDS:
        counts = Counter(value for turn in answers if (value := getattr(turn.style, name)) is not None)
        if counts:
            style[name] = max(STYLE_VALUES[name], key=lambda value: counts[value])
    words = Counter(turn.text.strip() for turn in answers).most_common(1)[0][0]
    return styled(Style(**style), words)

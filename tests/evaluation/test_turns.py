"""Which turns are answered."""

from omnichat.dialogue import Dialogue, Turn
from omnichat.evaluation.turns import answered_places

USER, ANSWER = Turn("user", "hi"), Turn("assistant", "hello")


def test_answers_to_a_user_are_answered_but_for_those_that_are_not_learnt() -> None:
    """A turn that its corpus rules out is no reference: answered right, it would count as wrong."""
    bad = Turn("assistant", "go away", learn=False)
    dialogue = Dialogue("d", (ANSWER, USER, ANSWER, USER, bad, USER, ANSWER, ANSWER))
    assert answered_places(dialogue, "last") == [7]
    for turns in ("gold_history", "own_history"):
        assert answered_places(dialogue, turns) == [2, 6]  # type: ignore[arg-type]

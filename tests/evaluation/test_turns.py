"""Which turns are answered, in which order, and what stands before each."""

from omnichat.dialogue import Dialogue, Reply, Style, Turn
from omnichat.evaluation.turns import Work, answered_places, rounds, set_name

SAD = Style(emotion="sad")
USER, ANSWER = Turn("user", "hi"), Turn("assistant", "hello")


def dialogue(*roles: str) -> Dialogue:
    """Turns of these roles; each says its number."""
    return Dialogue("d", tuple(Turn(role, str(n)) for n, role in enumerate(roles)))  # type: ignore[arg-type]


LONG = dialogue("assistant", "user", "assistant", "assistant", "user", "user", "assistant", "user", "assistant")


def texts(one: Dialogue) -> list[str]:
    """What the turns say."""
    return [turn.text for turn in one.turns]


def test_answers_are_asked_for_where_a_user_spoke_before() -> None:
    """Fails when an opening, or the second of two assistant turns, is scored as an answer to what nobody said."""
    assert answered_places(LONG, "last") == [8]
    assert answered_places(LONG, "gold_history") == [2, 6, 8]
    assert answered_places(LONG, "own_history") == [2, 6, 8]


def test_answers_to_a_user_are_answered_but_for_those_that_are_not_learnt() -> None:
    """A turn that its corpus rules out is no reference: answered right, it would count as wrong."""
    bad = Turn("assistant", "go away", learn=False)
    dialogue = Dialogue("d", (ANSWER, USER, ANSWER, USER, bad, USER, ANSWER, ANSWER))
    assert answered_places(dialogue, "last") == [7]
    for turns in ("gold_history", "own_history"):
        assert answered_places(dialogue, turns) == [2, 6]  # type: ignore[arg-type]


def test_what_stands_before_an_answer() -> None:
    """Fails when the model is shown what comes after the turn, or its own words where the corpus's are promised."""
    work = Work(LONG, "x:1", 0, [2, 6, 8], {2: Reply(SAD, "mine"), 6: Reply(None, "(broken")})
    assert texts(work.upto(6, "gold_history")) == list("0123456")
    assert texts(work.upto(2, "own_history")) == list("012")
    own = work.upto(8, "own_history")
    assert texts(own) == ["0", "1", "mine", "3", "4", "5", "(broken", "7", "8"]
    assert own.turns[2] == Turn("assistant", "mine", SAD)
    assert own.turns[6].style == Style(), "a style that could not be read is none"
    assert texts(work.upto(6, "own_history")) == ["0", "1", "mine", "3", "4", "5", "6"], "the turn itself stays"
    assert texts(LONG) == list("012345678"), "the stored dialogue is as it was"


def test_own_answers_come_one_round_after_the_other() -> None:
    """Fails when a turn is asked for before the replies that stand in its history, or is left out."""
    one, two = Work(LONG, "x:1", 0, [2, 6, 8]), Work(dialogue("user", "assistant"), "x:2", 0, [1])
    assert rounds([one, two], "gold_history") == [[(one, 2), (one, 6), (one, 8), (two, 1)]]
    assert rounds([one, two], "own_history") == [[(one, 2), (two, 1)], [(one, 6)], [(one, 8)]]
    assert rounds([], "own_history") == []


def test_sets_of_all_turns_have_names_of_their_own() -> None:
    """Fails when replies to all turns take the place of those to the last."""
    assert [set_name("test", turns) for turns in ("last", "gold_history", "own_history")] == [
        "test", "test.gold_history", "test.own_history",
    ]  # fmt: skip

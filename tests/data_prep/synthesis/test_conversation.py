"""Which recordings a dialogue takes."""

from data_prep.synthesis.config import ConversationSettings
from data_prep.synthesis.contracts import Brief, Line, Plan, Speech, Utterance, Voice
from data_prep.synthesis.conversation import Choice, choose, utterances
from omnichat.dialogue import Style

ANN, BOB = Voice(name="ann", gender="female"), Voice(name="bob", gender="male")
TURNS = ("one two three four five six seven eight nine ten", "a b c d e f g h i j", "k l m n o p q r s t")


def plan() -> Plan:
    lines = []
    for text in TURNS:
        lines.append(Line(speaker="user", text=text, style=Style("female", "sad", "slow", "low")))
        lines.append(Line(speaker="assistant", text="I see.", style=Style("male", "neutral", "normal", "normal")))
    brief = Brief(recipe="sharechat_emotion", number=3, split="train", topic="t", history_turns=4)
    return Plan(id="p", group="g", brief=brief, branch=0, lines=tuple(lines), voices={"user": ANN, "assistant": BOB})


def chosen(errors: dict[tuple[int, int], int | None], first: int = 0, takes: int = 3) -> Choice:
    """Choose among recordings of turns 0, 1, 2 by (turn, take); None is a refused one."""

    def find(utterance: Utterance, take: int) -> Speech | None:
        turn = TURNS.index(utterance.text)
        found = errors[turn, take]
        return None if found is None else Speech(blob=f"{turn}.{take}", num_samples=10, words=10, errors=found)

    settings = ConversationSettings(max_wer=0.05, max_takes=takes)
    return choose(plan(), utterances(plan(), False), find, settings, first)


def blobs(choice: Choice) -> list[str]:
    return [speech.blob for speech in choice.speech if speech is not None]


def test_assistant_turns_are_spoken_on_demand() -> None:
    """They cost as much as the user's, and training only reads them."""
    assert [one is not None for one in utterances(plan(), False)] == [True, False] * 3
    assert [one.voice.name for one in utterances(plan(), True) if one is not None] == ["ann", "bob"] * 3


def test_one_error_in_thirty_words_passes() -> None:
    """The limit is of the conversation, not of a turn: one wrong word in ten would be 10 %."""
    choice = chosen({(0, 0): 1, (1, 0): 0, (2, 0): 0})
    assert (choice.reason, blobs(choice)) == ("", ["0.0", "1.0", "2.0"])


def test_only_the_worst_turn_is_spoken_again() -> None:
    """All of a conversation again would cost four times as much, for a worse yield."""
    start = {(0, 0): 1, (1, 0): 4, (2, 0): 0}
    asked = chosen(start)
    assert asked.missing == 1
    assert asked.asked[-1][0].text == TURNS[1]
    assert asked.asked[-1][1] == 1
    assert blobs(chosen(start | {(1, 1): 0})) == ["0.0", "1.1", "2.0"]


def test_the_best_take_counts_and_takes_end() -> None:
    """A worse second take must not replace the first, and no turn is spoken without end."""
    takes = {(0, 0): 0, (1, 0): 3, (2, 0): 0, (1, 1): 6, (1, 2): 2}
    choice = chosen(takes)
    assert choice.reason == "wer"
    assert blobs(choice) == ["0.0", "1.2", "2.0"]
    assert choice.message == "p: 2 errors in 30 words after 3 takes of a turn"
    assert not choice.missing


def test_a_second_take_that_is_refused_is_no_loss() -> None:
    """There is a recording already; only it is not good enough by itself."""
    assert blobs(chosen({(0, 0): 0, (1, 0): 2, (2, 0): 0, (1, 1): None, (1, 2): 0})) == ["0.0", "1.2", "2.0"]


def test_a_turn_that_cannot_be_spoken_ends_the_dialogue() -> None:
    """A dialogue with a silent turn would teach that silence has an answer."""
    choice = chosen({(0, 0): 0, (1, 0): None, (2, 0): 0})
    assert choice.reason == "turn_missing"
    assert "turn 2" in choice.message


def test_refused_by_hand_it_begins_with_the_next_take() -> None:
    """Who refused a recording does not want to hear it again."""
    assert blobs(chosen({(turn, 1): 0 for turn in range(3)}, first=1)) == ["0.1", "1.1", "2.1"]
    assert chosen({(turn, 0): 0 for turn in range(3)}, first=1).missing == 3

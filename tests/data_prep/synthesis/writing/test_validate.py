"""The rules of a script: each fault is found, and called by its name."""

import json
import lzma
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.synthesis.contracts import REASONS, Sound
from data_prep.synthesis.stage import Retry
from data_prep.synthesis.writing.briefs import briefs
from data_prep.synthesis.writing.draft import Draft, DraftLine
from data_prep.synthesis.writing.settings import WritingSettings
from data_prep.synthesis.writing.template import write_template
from data_prep.synthesis.writing.topics import read_topics
from data_prep.synthesis.writing.validate import check_turn, count_sentences, mentions, normalise, validate

SAMPLES = Path(__file__).parents[5] / "shared" / "samples"
SETTINGS = WritingSettings(recipe="sharechat_audio", history_turns=(6,))
BRIEF = briefs(SETTINGS, 1, 0, {"train": 1.0})[0].model_copy(
    update={"sound": Sound(kind="audio", caption="A kettle whistles")}
)
GOOD = write_template(BRIEF, read_topics(None, for_template=True), np.random.default_rng(0))
Change = Callable[[Draft], Draft]


def changed(part: str, number: int, **values: Any) -> Change:
    """The draft with one line of it changed."""

    def change(draft: Draft) -> Draft:
        lines = list(getattr(draft, part))
        lines[number] = replace(lines[number], **values)
        return replace(draft, **{part: tuple(lines)})

    return change


def said(text: str) -> Change:
    return changed("history", 3, text=text)


def styled(part: str, number: int, **values: str) -> Change:
    def change(draft: Draft) -> Draft:
        style = {**getattr(draft, part)[number].style, **values}
        return changed(part, number, style=style)(draft)

    return change


def deaf(draft: Draft) -> Draft:
    replies = tuple(replace(line, text=f"all right, that is {n} times.") for n, line in enumerate(draft.replies))
    return replace(draft, replies=replies)


def spanish(draft: Draft) -> Draft:
    texts = ["hola, ¿me oyes bien?", "claro que te escucho.", "quiero hablar del mercado.", "¿y qué pasa con eso?"]
    texts += ["mi hermano trabaja allí.", "entonces lo conoces bien."]
    lines = [replace(line, text=text) for line, text in zip(draft.history, texts, strict=True)]
    currents = tuple(replace(line, text="vamos al mercado.") for line in draft.currents)
    replies = tuple(replace(line, text=f"vale, music {n}, cuéntame todo.") for n, line in enumerate(draft.replies))
    return Draft(tuple(lines), currents, replies)


FAULTS: dict[str, tuple[str, Change]] = {
    "a turn is missing": ("turns_count", lambda draft: replace(draft, history=draft.history[2:])),
    "a turn too many": ("turns_count", lambda draft: replace(draft, history=draft.history[:1] + draft.history)),
    "a branch is missing": ("turns_count", lambda draft: replace(draft, replies=draft.replies[:2])),
    "the assistant speaks twice": ("speaker_order", changed("history", 2, speaker="assistant")),
    "a third speaker": ("speaker_order", changed("history", 0, speaker="waiter")),
    "the user answers himself": ("speaker_order", changed("replies", 1, speaker="user")),
    "the assistant asks": ("speaker_order", changed("currents", 0, speaker="assistant")),
    "another gender": (
        "gender_drift",
        lambda draft: styled("history", 1, gender="male" if draft.history[1].style["gender"] == "female" else "female")(
            draft
        ),
    ),
    "an emotion of its own": ("style_out_of_set", styled("replies", 0, emotion="bored")),
    "a field is missing": ("style_out_of_set", changed("history", 0, style={"gender": "male"})),
    "a field too many": ("style_out_of_set", styled("history", 0, accent="british")),
    "another style than asked for": (
        "style_out_of_set",
        lambda draft: replace(draft, currents=(draft.currents[1], draft.currents[0], draft.currents[2])),
    ),
    "other words in a branch": ("branch_text_differs", changed("currents", 2, text="we are lost in the woods.")),
    "one style twice": ("branches_alike", lambda draft: changed("currents", 1, style=draft.currents[0].style)(draft)),
    "one reply twice": ("branches_alike", lambda draft: changed("replies", 1, text=draft.replies[0].text)(draft)),
    "two sentences": ("not_one_sentence", said("yes, i know. it is near.")),
    "a question after": ("not_one_sentence", said("I know it! What about you?")),
    "no words": ("not_one_sentence", said(" ... ")),
    "an endless sentence": ("not_one_sentence", said("and so on " * 20)),
    "another script": ("language", said("я вас слышу хорошо.")),
    "a sentence in German": ("language", said("mein bruder arbeitet seit langer zeit dort drüben.")),
    "all in Spanish": ("language", spanish),
    "stage directions": ("stage_directions", said("(sighs) yes, i know.")),
    "markup": ("stage_directions", said("yes, i *really* know.")),
    "the speaker's name": ("stage_directions", said("Assistant: yes, i know.")),
    "a picture": ("stage_directions", said("yes, i know 😀")),
    "a key read aloud": ("stage_directions", said("this is the response of current turn one.")),
    "the same again": ("repeated_turn", lambda draft: changed("history", 4, text=draft.history[2].text)(draft)),
    "the reply repeats": ("repeated_turn", lambda draft: changed("replies", 2, text=draft.history[3].text)(draft)),
    "nobody hears the sound": ("sound_ignored", deaf),
    "a telephone number": ("unsafe", said("call me at 0171 555 0123 today.")),
    "an address": ("unsafe", said("write to me at someone@example.org please.")),
    "a curse": ("unsafe", said("oh fuck this.")),
}


def test_a_good_script_passes() -> None:
    """The faults below mean something only if the script they are made from has none."""
    script = validate(GOOD, BRIEF, SETTINGS)
    assert len(script.history) == 6
    assert script.current == GOOD.currents[0].text
    assert [branch.style for branch in script.branches] == list(BRIEF.styles)


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_reason(name: str) -> None:
    """The report counts reasons: a wrong one sends its reader to the wrong place."""
    reason, change = FAULTS[name]
    with pytest.raises(Retry) as caught:
        validate(change(GOOD), BRIEF, SETTINGS)
    assert caught.value.reason == reason, caught.value.message
    assert caught.value.message


def test_every_rule_of_the_table_is_tested() -> None:
    """A reason nobody can ever see is a gap in the checks."""
    elsewhere = {reason for reason in REASONS if reason.startswith("llm_")} | {"judge"}  # of the model, not its words
    rules = {reason for reason, (stage, _) in REASONS.items() if stage == "scripts"}
    assert rules - elsewhere == {reason for reason, _ in FAULTS.values()}


def test_what_is_not_heard_is_mended() -> None:
    """A script that cost a call must not be thrown away for a typographic quote."""
    for written, kept in (
        ("  It’s  here\n", "It's here."),
        ('"It is here."', "It is here."),
        ("Well… I know", "Well... I know."),
        ("“Here”, he said — now!", '"Here", he said - now!'),
    ):
        assert normalise(written) == kept
    draft = changed("history", 0, speaker=" User ")(
        styled("currents", 0, emotion=" " + BRIEF.styles[0].emotion.upper())(GOOD)
    )
    assert validate(draft, BRIEF, SETTINGS).branches[0].style == BRIEF.styles[0]
    happy = BRIEF.model_copy(update={"styles": ()})
    assert (
        validate(styled("history", 0, emotion="Happiness")(GOOD), happy, SETTINGS).history[0].style.emotion == "happy"
    )


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Dr. Smith is here.", 1),
        ("It costs 3.50 today.", 1),
        ("Well... i don't know.", 1),
        ("Really?!", 1),
        ("oh no! be careful.", 2),
        ("no period at all", 1),
        ('He said "stop!" and left.', 2),
        ("...", 0),
        ("I came at 5 p.m. and left.", 1),
    ],
)
def test_sentences_are_counted(text: str, count: int) -> None:
    """Abbreviations and decimals are no ends. A quoted exclamation counts as one: such turns are rare, and retried."""
    assert count_sentences(text) == count


def test_a_reply_has_to_do_with_the_sound_by_a_word_of_it() -> None:
    """A model may speak of the birds, or of what it hears; the weather is something else."""
    assert mentions("those bird songs are lovely.", "A bird is singing")
    assert mentions("what is that noise?", "A bird is singing")
    assert not mentions("it is a lovely day.", "A bird is singing")


def test_two_sentences_where_they_are_allowed() -> None:
    """The published examples have up to two, against their own prompt: a setting decides."""
    two = said("yes, i know. it is near.")(GOOD)
    assert validate(two, BRIEF, SETTINGS.model_copy(update={"sentences": 2})).history[3].text.endswith("near.")


def test_a_backchannel_is_the_listeners() -> None:
    """Otherwise a speaker would agree with himself, on his own track."""
    listener = DraftLine("assistant", GOOD.history[1].style, "mhm.", kind="backchannel")
    history = (GOOD.history[0], listener, *GOOD.history[1:])
    assert len(validate(replace(GOOD, history=history), BRIEF, SETTINGS).history) == 7
    own = replace(listener, speaker="user", style=GOOD.history[0].style)
    with pytest.raises(Retry, match="backchannel"):
        validate(replace(GOOD, history=(GOOD.history[0], own, *GOOD.history[1:])), BRIEF, SETTINGS)


def real_turns() -> dict[str, list[str]]:
    """What people and models said in published dialogues."""
    turns: dict[str, list[str]] = {}
    for path in sorted(SAMPLES.glob("sharechatx_demo/res/*/dialogue.json")):
        talk = json.loads(path.read_text(encoding="utf-8"))
        turns.setdefault("sharechatx", []).extend(turn["text"] for turn in talk["turns"] if turn["text"])
    for path in sorted(SAMPLES.glob("deepdialogue/json_only/*/*/*.json")):
        talk = json.loads(path.read_text(encoding="utf-8"))
        turns.setdefault("deepdialogue", []).extend(turn["text"] for turn in talk["conversation"])
    if (packed := SAMPLES / "dailytalk" / "train_by_dialogue.jsonl.xz").is_file():
        with lzma.open(packed, "rt", encoding="utf-8") as lines:
            turns["dailytalk"] = [turn["text"] for line in lines for turn in json.loads(line)["turns"]]
    return turns


def test_real_turns_are_not_refused() -> None:
    """A check that takes real speech for a fault would quietly narrow what scripts may say."""
    turns = real_turns()
    if not turns:
        pytest.skip("needs the samples")
    settings = SETTINGS.model_copy(update={"sentences": 10, "max_words": 200})
    refused: dict[str, list[str]] = {}
    for corpus, texts in turns.items():
        for text in texts[:6000]:
            try:
                check_turn(normalise(text), "turn", settings)
            except Retry as fault:
                # DailyTalk's transcripts do hold stage directions, all in brackets: those are found, and rightly.
                if not (fault.reason == "stage_directions" and set("(\\") & set(text)):
                    refused.setdefault(corpus, []).append(fault.message)
    assert not refused.get("sharechatx")
    assert not refused.get("deepdialogue")
    assert len(refused.get("dailytalk", [])) <= 3, refused

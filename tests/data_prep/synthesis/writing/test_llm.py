"""Scripts by a language model: what it is asked, what is made of its answers."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.synthesis.backends.chat import Completion
from data_prep.synthesis.contracts import Brief, Script, Sound
from data_prep.synthesis.stage import Attempt, Retry
from data_prep.synthesis.writing.asking import Asker, parse
from data_prep.synthesis.writing.briefs import briefs
from data_prep.synthesis.writing.llm import ScriptAnswer, headed_line, write_with_model
from data_prep.synthesis.writing.prompts import prompt, prompts_fingerprint
from data_prep.synthesis.writing.settings import SUBSETS, WritingSettings
from data_prep.synthesis.writing.template import write_template
from data_prep.synthesis.writing.topics import read_sounds, read_topics
from data_prep.synthesis.writing.validate import validate
from tests.data_prep.synthesis.writing.fakes import FakeChat, as_answer

SETTINGS = WritingSettings(recipe="sharechat_audio", writer="llm")
TOPICS = read_topics(None, for_template=True)
SAMPLES = Path(__file__).parents[5] / "shared" / "samples"


def attempt(seed: int = 0) -> Attempt:
    return Attempt(0, np.random.default_rng(seed), Path())


def good() -> tuple[Brief, dict[str, Any]]:
    brief = next(one for one in briefs(SETTINGS, 200, 0, {"train": 1.0}) if one.topic in {t.name for t in TOPICS})
    return brief, as_answer(write_template(brief, TOPICS, np.random.default_rng(0)), brief)


def written(answer: Any, brief: Brief, settings: WritingSettings = SETTINGS) -> tuple[Script, FakeChat, Attempt]:
    chat, one = FakeChat([answer]), attempt()
    draft = asyncio.run(write_with_model(brief, settings, Asker(chat, 2000, 0.8), one))
    return validate(draft, brief, settings), chat, one


def test_a_script_comes_of_an_answer_by_the_papers_keys() -> None:
    """The round from brief to prompt to answer to script, with its cost."""
    brief, answer = good()
    script, chat, one = written(answer, brief)
    assert script.current == answer["current_turn"]
    assert [branch.style for branch in script.branches] == list(brief.styles)
    assert (one.cost.calls, one.cost.tokens_in) == (1, 100)
    assert one.cost.tokens_out > 50
    asked = chat.asked[0]
    rules, request = (message["content"] for message in asked["messages"])
    assert f"exactly {brief.history_turns} turns" in rules
    assert brief.topic in request
    assert brief.sound is not None
    assert brief.sound.caption in rules
    assert all(", ".join(style.known().values()) in rules for style in brief.styles)
    assert set(asked["schema"]["required"]) == set(ScriptAnswer.model_fields)
    assert asked["schema"]["properties"]["history_turns"]["minItems"] == brief.history_turns


def test_another_attempt_asks_with_another_seed() -> None:
    """A server that obeys the seed would otherwise give the refused answer ten times."""
    brief, answer = good()
    chat = FakeChat([answer, answer, answer])
    for seed in (0, 0, 1):
        asyncio.run(write_with_model(brief, SETTINGS, Asker(chat, 2000, 0.8), attempt(seed)))
    first, again, other = (asked["seed"] for asked in chat.asked)
    assert first == again != other


def test_forms_that_mean_the_same_are_taken() -> None:
    """A call is not thrown away for a code fence, words around the object, brackets, or a turn given by its style."""
    brief, answer = good()
    expected = written(answer, brief)[0]
    text = json.dumps(answer)
    fenced = f"```json\n{text}\n```"
    assert written(fenced, brief)[0] == written(f"Here it is:\n{text}\nEnjoy!", brief)[0] == expected
    for number in (1, 2, 3):
        head = answer[f"current_turn_style_{number}"].partition("):")[0]
        answer[f"current_turn_style_{number}"] = head.replace("User (", "[") + "]"
    answer["current_turn"] = f"User: {answer['current_turn']}"
    assert written(answer, brief)[0] == expected


FAULTS: dict[str, tuple[Any, str]] = {
    "cut off": (Completion('{"history_turns": ["User (ma', "length", 10, 2000), "llm_length"),
    "looping": (Completion('{"history_turns": [' + " \n" * 3000, "length", 10, 2000), "llm_length"),
    "truncated": ('{"history_turns": ["User (male, ', "llm_json"),
    "prose": ("Sure! User: hello. Assistant: hi.", "llm_json"),
    "nothing": ("", "llm_json"),
    "nested without end": ("[" * 100_000, "llm_json"),
    "a list": ("[1, 2]", "llm_schema"),
    "a key is missing": ({"history_turns": []}, "llm_schema"),
    "declined": ("I'm sorry, but I can't help with that.", "llm_refusal"),
    "declined in JSON": ({"error": "I cannot create this dialogue."}, "llm_refusal"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_script_has_its_reason(name: str) -> None:
    """The report tells a model that is cut off from one that declines: the cures differ."""
    answer, reason = FAULTS[name]
    with pytest.raises(Retry) as caught:
        written(answer, good()[0])
    assert caught.value.reason == reason
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("current_turn", "something else is said.", "branch_text_differs"),
        ("current_turn_style_2", "User: no style at all.", "llm_schema"),
        ("current_turn_style_2", "User (male, happy): two values.", "llm_schema"),
        ("response_of_current_style_3", "I'm sorry, but I can't continue this.", "llm_refusal"),
        ("history_turns", ["User (male, happy, fast, high): hello."], "turns_count"),
    ],
)
def test_turns_that_are_none_have_their_reason(key: str, value: Any, reason: str) -> None:
    """A schema is kept by models that don't keep its meaning."""
    brief, answer = good()
    with pytest.raises(Retry) as caught:
        written(answer | {key: value}, brief)
    assert caught.value.reason == reason


def test_sorry_in_a_dialogue_is_no_refusal() -> None:
    """People say they are sorry; replies to sad turns most of all."""
    for text in ("I'm so sorry to hear that.", "Sorry, I am late.", "I can't find my keys anywhere.", "I am sorry."):
        line = headed_line(f"Assistant (male, sad, slow, low): {text}", "reply")
        assert line.text == text
        assert parse(
            json.dumps({name: "x" for name in ScriptAnswer.model_fields} | {"history_turns": [text]}), ScriptAnswer
        )


@pytest.mark.parametrize("recipe", SUBSETS)
def test_free_styles_leave_the_choice_to_the_model(recipe: str) -> None:
    """The paper's way must stay possible, to compare with."""
    settings = WritingSettings.model_validate({"recipe": recipe, "writer": "llm", "styles": "free"})
    brief = briefs(settings, 1, 0, {"train": 1.0})[0]
    assert not brief.styles
    chat = FakeChat(["{}"])
    with pytest.raises(Retry):
        asyncio.run(write_with_model(brief, settings, Asker(chat, 2000, 0.8), attempt()))
    assert "Choose three" in chat.asked[0]["messages"][0]["content"]


@pytest.mark.parametrize(("kind", "file", "count"), [("audio", "audiocaps/val.csv", 300), ("music", "", 4000)])
def test_real_captions_are_read_and_put_into_the_prompt(kind: Any, file: str, count: int, tmp_path: Path) -> None:
    """Captions with quotes, dollars, commas and brackets, as people wrote them, must reach the model whole."""
    path = SAMPLES / file
    if kind == "music":
        packed = SAMPLES / "musiccaps" / "musiccaps-public.csv.xz"
        if packed.is_file():
            import lzma

            path = tmp_path / "musiccaps.csv"
            path.write_bytes(lzma.decompress(packed.read_bytes()))
    if not path.is_file():
        pytest.skip("needs the samples")
    sounds = read_sounds(kind, path, "train")
    assert len(sounds) > count
    for sound in sounds:
        assert sound.clip
        rule = prompt(f"sharechat_{kind}", caption=sound.caption)
        assert sound.caption in rule
        assert "$" not in rule.replace(sound.caption, "")
    assert not sounds[0].caption.startswith("[")


def test_a_caption_that_looks_like_a_field_is_left_alone() -> None:
    """Text of the user's is no template."""
    assert "a $caption of $5" in prompt("sharechat_audio", caption="a $caption of $5")
    assert Sound(kind="audio", caption="x").clip == ""


def test_prompts_have_a_version_and_a_hash() -> None:
    """A changed prompt must not go on in a run that was begun with another."""
    assert prompts_fingerprint().startswith("v1-")
    assert prompts_fingerprint() == prompts_fingerprint()

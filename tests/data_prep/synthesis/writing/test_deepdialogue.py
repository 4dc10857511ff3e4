"""Dialogues of DeepDialogue's kind."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.synthesis.stage import Attempt, Retry
from data_prep.synthesis.writing.asking import Asker
from data_prep.synthesis.writing.briefs import briefs
from data_prep.synthesis.writing.deduplicate import duplicates
from data_prep.synthesis.writing.deepdialogue import TRIES_OF_A_TURN, walk, world, write_dialogue_with_models
from data_prep.synthesis.writing.plans import plans
from data_prep.synthesis.writing.settings import WritingSettings
from data_prep.synthesis.writing.validate import validate
from omnichat.data.corpora.emotions import emotion_map
from omnichat.dialogue import EMOTIONS
from tests.data_prep.synthesis.writing.fakes import FakeChat
from tests.data_prep.synthesis.writing.test_plans import VOICES

SETTINGS = WritingSettings(recipe="deepdialogue", history_turns=(1, 2, 3, 4, 5, 6, 7))
SAMPLES = Path(__file__).parents[5] / "shared" / "samples" / "deepdialogue"


def test_the_graph_is_one() -> None:
    """Rows are probabilities, every emotion can be reached from every other, and each is one of the seven."""
    emotions = world()["emotions"]
    assert len(emotions) == 20
    assert len(world()["domains"]) == 41
    reach = np.zeros((20, 20))
    for row, (name, about) in enumerate(emotions.items()):
        assert sum(about["next"].values()) == pytest.approx(1, abs=1e-9), name
        assert emotion_map("deepdialogue")[name] in EMOTIONS
        assert len(set(about["sentences"])) >= 5
        for other, share in about["next"].items():
            reach[row, list(emotions).index(other)] = share
    assert (np.linalg.matrix_power(reach, 20) > 0).all()
    # In the long run no emotion of the seven is out of sight.
    steady = np.linalg.matrix_power(reach, 500)[0]
    for emotion in EMOTIONS:
        share = sum(
            part for part, name in zip(steady, emotions, strict=True) if emotion_map("deepdialogue")[name] == emotion
        )
        assert share > 0.01, emotion


def test_a_walk_keeps_to_the_graph() -> None:
    """A step that the graph does not have would be an emotion out of nowhere."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        path = walk("curious", 9, rng)
        assert len(path) == 9
        assert all(after in world()["emotions"][before]["next"] for before, after in itertools.pairwise(path))


def test_templates_run_without_a_model(write: Callable[..., Any]) -> None:
    """The whole recipe has to run anywhere; and not to say the same thing again and again."""
    made = briefs(SETTINGS, 400, 0, {"train": 0.9, "test": 0.1})
    assert {brief.topic for brief in made} == set(world()["domains"])
    starts = Counter(brief.start_emotion for brief in made if brief.split == "train")
    assert max(starts.values()) - min(starts.values()) <= 1
    scripts = write(SETTINGS, made)
    assert {len(script.history) for script in scripts} == {1, 2, 3, 4, 5, 6, 7}
    assert len(duplicates(dict(enumerate(scripts)))) <= 8
    for script in scripts:
        (plan,) = plans(script, VOICES, 0)
        assert plan.lines[-1].speaker == "assistant"
        speakers = [line.speaker for line in plan.lines]
        assert all(one != other for one, other in itertools.pairwise(speakers))


def test_two_models_take_turns_and_a_judge_decides() -> None:
    """Each model must hear what was said, and a dialogue below the threshold must not pass."""
    brief = next(one for one in briefs(SETTINGS, 30, 0, {"train": 1.0}) if one.history_turns == 4)
    texts = iter(f"Number {n} is what I would like to say about that." for n in range(100))
    first = FakeChat(
        lambda messages: (
            {"coherence": 9, "natural": 7, "emotion": 8}
            if "editor" in messages[0]["content"]
            else {"text": next(texts)}
        )
    )
    second = FakeChat(lambda messages: {"text": next(texts)})
    askers = [Asker(chat, 200, 1.0) for chat in (first, second)]
    attempt = Attempt(0, np.random.default_rng(0), Path())
    draft = asyncio.run(write_dialogue_with_models(brief, SETTINGS, askers, attempt))
    script = validate(draft, brief, SETTINGS)
    assert len(script.history) == 4
    assert (len(first.asked), len(second.asked)) == (4, 3)
    assert attempt.cost.calls == 7
    last = second.asked[-1]["messages"][0]["content"]
    assert all(line.text in last for line in draft.history)
    strict = SETTINGS.model_copy(update={"judge_threshold": 0.8})
    with pytest.raises(Retry, match=r"0\.7 is below 0\.8") as caught:
        asyncio.run(write_dialogue_with_models(brief, strict, askers, attempt))
    assert caught.value.reason == "judge"


def test_a_fault_costs_a_turn_and_not_the_dialogue() -> None:
    """Eight calls thrown away for one bad answer would make long dialogues rare."""
    settings = SETTINGS.model_copy(update={"judge_threshold": None})
    brief = next(one for one in briefs(settings, 30, 0, {"train": 1.0}) if one.history_turns == 2)

    def run(answers: Sequence[Any]) -> FakeChat:
        chat = FakeChat(answers)
        attempt = Attempt(0, np.random.default_rng(0), Path())
        asyncio.run(write_dialogue_with_models(brief, settings, [Asker(chat, 200, 1.0)], attempt))
        return chat

    said: list[Mapping[str, str]] = [{"text": f"That is thing number {n}."} for n in range(4)]
    chat = run([said[0], "no json", "I'm sorry, but I can't do that.", said[1], {"words": "?"}, *said[2:]])
    assert len(chat.asked) == 7
    assert len({asked["seed"] for asked in chat.asked}) == 7
    with pytest.raises(Retry) as caught:
        run([said[0], *["no json"] * TRIES_OF_A_TURN])
    assert caught.value.reason == "llm_json"


def test_the_published_dialogues_are_of_this_world() -> None:
    """Domains and emotions are facts about a corpus: they are held to its examples."""
    files = sorted(SAMPLES.glob("json_only/*/*/*.json")) + sorted(SAMPLES.glob("static/conversations/*/*/*.json"))
    if not files:
        pytest.skip("needs the samples")
    for path in files:
        talk = json.loads(path.read_text(encoding="utf-8"))
        assert talk["domain"].replace("_", " ").lower() in world()["domains"], path
        assert {turn["emotion"] for turn in talk["conversation"]} <= set(world()["emotions"]), path

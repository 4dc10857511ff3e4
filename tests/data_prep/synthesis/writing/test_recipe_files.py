"""The shipped recipes, as far as words go."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

import data_prep.synthesis
from data_prep.synthesis.backends.chat import ChatSettings
from data_prep.synthesis.backends.speech import SpeechSettings
from data_prep.synthesis.mixing.settings import MixSettings
from data_prep.synthesis.writing.briefs import briefs
from data_prep.synthesis.writing.script_stage import ScriptStage
from data_prep.synthesis.writing.settings import WritingSettings

FILES = sorted(Path(data_prep.synthesis.__file__).with_name("recipes").glob("*.yaml"))
RECIPES: dict[str, dict[str, Any]] = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES}
WRITTEN = [name for name, recipe in RECIPES.items() if recipe["writing"]["recipe"] != "dailytalk_respoken"]


@pytest.mark.parametrize("name", WRITTEN)
def test_recipes_are_whole(name: str) -> None:
    """A recipe that names a model without a server, or an unknown key, fails at the user's and not here."""
    recipe = RECIPES[name]
    settings = WritingSettings.model_validate(recipe["writing"])
    chat = ChatSettings.model_validate(recipe["chat"]) if "chat" in recipe else None
    speech = SpeechSettings.model_validate(recipe["speech"])
    MixSettings.model_validate(recipe.get("mix", {}))
    assert ScriptStage(settings, chat).identity()
    assert recipe["name"] == name
    assert sum(recipe["splits"].values()) == pytest.approx(1, abs=1e-6)
    counts = Counter(brief.split for brief in briefs(settings, min(recipe["scripts"], 300), 0, recipe["splits"]))
    assert set(counts) == set(recipe["splits"])
    for unseen in (False, True) if speech.server else ():
        voices = Counter(speaker.gender for speaker in speech.server.speakers if speaker.unseen is unseen)
        assert min(voices["male"], voices["female"]) >= 2, "two speakers of one gender need two voices"
    if settings.recipe == "interact":
        assert recipe["speak_assistant"], "two tracks need both speakers"


def test_full_recipes_have_the_papers_sizes() -> None:
    """The paper: 80,152, 27,005 and 21,443 dialogues, of them 3,731, 1,555 and 1,243 for the test."""
    for name, dialogues, test in (("emotion", 80152, 3731), ("audio", 27005, 1555), ("music", 21443, 1243)):
        recipe = RECIPES[f"sharechat_{name}"]
        assert abs(3 * recipe["scripts"] - dialogues) <= 3
        assert 3 * recipe["scripts"] * recipe["splits"]["test"] == pytest.approx(test, rel=0.01)


def test_the_quickstart_has_its_splits() -> None:
    """The shares are rounded: they must still give the counts that the quickstart has."""
    recipe = RECIPES["quickstart"]
    made = briefs(WritingSettings.model_validate(recipe["writing"]), recipe["scripts"], 0, recipe["splits"])
    counts = Counter(brief.split for brief in made)
    assert counts == {"train": 100, "val": 9, "test_scripts": 36, "test_voices": 36}

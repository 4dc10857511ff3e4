"""The writing stage against a server that speaks the real protocol."""

import asyncio
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from data_prep.synthesis.backends.chat import ChatSettings
from data_prep.synthesis.contracts import Brief, Script
from data_prep.synthesis.stage import Attempt, Retry
from data_prep.synthesis.writing.briefs import briefs
from data_prep.synthesis.writing.script_stage import ScriptStage
from data_prep.synthesis.writing.settings import WritingSettings
from data_prep.synthesis.writing.template import write_template
from data_prep.synthesis.writing.topics import read_topics
from tests.data_prep.synthesis.fakes.server import FakeServer
from tests.data_prep.synthesis.writing.fakes import as_answer

SETTINGS = WritingSettings(writer="llm", topics=None)
TOPICS = read_topics(None, for_template=True)


def brief_and_answer() -> tuple[Brief, dict[str, object]]:
    names = {topic.name for topic in TOPICS}
    brief = next(one for one in briefs(SETTINGS, 100, 0, {"train": 1.0}) if one.topic in names)
    return brief, as_answer(write_template(brief, TOPICS, np.random.default_rng(0)), brief)


def run(stage: ScriptStage, brief: Brief, attempts: int) -> tuple[list[Script | str], Attempt]:
    """What the attempts gave: a script, or the reason of the refusal."""

    async def all_of_them() -> list[Script | str]:
        await stage.open()
        found: list[Script | str] = []
        for number in range(attempts):
            attempt = Attempt(number, np.random.default_rng(number), Path())
            try:
                found.append(await stage.run(brief, attempt))
            except Retry as refused:
                found.append(refused.reason)
        await stage.close()
        last.append(attempt)
        return found

    last: list[Attempt] = []
    return asyncio.run(all_of_them()), last[0]


def test_faults_of_a_server_end_in_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way over a socket: what a server does wrong has its reason, and the next attempt may succeed."""
    brief, answer = brief_and_answer()
    monkeypatch.setattr("tests.data_prep.synthesis.fakes.server.REPLY", json.dumps(answer))
    with FakeServer(["truncated_json", "whitespace", "refusal", "filtered"]) as server:
        chat = ChatSettings(model="m", endpoints=(f"{server.address}/v1",), retries=0)
        stage: ScriptStage = pickle.loads(pickle.dumps(ScriptStage(SETTINGS, chat)))
        found, attempt = run(stage, brief, 5)
    assert found[:4] == ["llm_json", "llm_length", "llm_refusal", "llm_refusal"]
    assert isinstance(found[4], Script)
    assert found[4].current == answer["current_turn"]
    assert (attempt.cost.calls, attempt.cost.tokens_in) == (1, 30)
    assert len({fields["seed"] for _, fields in server.calls}) == 5
    shape = server.calls[0][1]["response_format"]["json_schema"]["schema"]
    assert shape["additionalProperties"] is False


def test_what_changes_a_script_is_in_the_stages_identity(tmp_path: Path) -> None:
    """A run that goes on with another model, prompt or grammar must write anew; one with another address must not."""
    chat = ChatSettings(model="m", endpoints=("http://a/v1",))
    own = ScriptStage(SETTINGS, chat).identity()
    assert ScriptStage(SETTINGS, chat.model_copy(update={"endpoints": ("http://b/v1",)})).identity() == own
    for changed in ({"model": "n"}, {"temperature": 0.1}, {"extra": {"top_p": 0.5}}):
        assert ScriptStage(SETTINGS, chat.model_copy(update=changed)).identity() != own
    graph = ScriptStage(WritingSettings(recipe="deepdialogue", writer="llm"), chat).identity()["deepdialogue"]
    assert graph == ScriptStage(WritingSettings(recipe="deepdialogue")).identity()["deepdialogue"]
    template = ScriptStage(WritingSettings())
    topics = tmp_path / "topics.yaml"
    topics.write_text("- {name: fishing, kind: place, words: [river, lake]}\n")
    assert ScriptStage(WritingSettings(topics=topics)).identity() != template.identity()
    copy = tmp_path / "copy.yaml"
    copy.write_text(topics.read_text())
    assert (
        ScriptStage(WritingSettings(topics=topics)).identity() == ScriptStage(WritingSettings(topics=copy)).identity()
    )
    assert template.identity()["grammar"] not in str(own)


def test_a_model_that_is_not_named_is_missed_at_once() -> None:
    """Not in a worker, at the first script."""
    with pytest.raises(ValueError, match="needs the section chat:"):
        ScriptStage(SETTINGS)

"""The stage that writes: a brief in, a checked script out."""

from collections.abc import Mapping
from typing import Any

from data_prep.synthesis.backends.chat import ChatSettings, make_chat
from data_prep.synthesis.contracts import Brief, Script
from data_prep.synthesis.stage import Attempt, Stage
from data_prep.synthesis.writing.asking import Asker
from data_prep.synthesis.writing.deepdialogue import write_dialogue_template, write_dialogue_with_models
from data_prep.synthesis.writing.draft import Draft
from data_prep.synthesis.writing.interact import write_interact_template, write_interact_with_model
from data_prep.synthesis.writing.llm import write_with_model
from data_prep.synthesis.writing.prompts import prompts_fingerprint
from data_prep.synthesis.writing.quickstart import write_quickstart
from data_prep.synthesis.writing.respoken import RECIPE as RESPOKEN
from data_prep.synthesis.writing.respoken import corpus_fingerprint, respoken_script
from data_prep.synthesis.writing.settings import WritingSettings
from data_prep.synthesis.writing.template import REPLY_STYLES, write_template
from data_prep.synthesis.writing.topics import fingerprint, read_topics
from data_prep.synthesis.writing.validate import validate


class ScriptStage(Stage[Brief, Script]):
    """Writes and checks scripts; what breaks a rule is written again with another seed.

    Args:
        settings: who writes, and what.
        chat: the language model, for `writer: llm`.

    Raises:
        ValueError: `writer: llm` without a model.
    """

    name = "scripts"
    version = "1"
    takes = Brief
    gives = Script

    def __init__(self, settings: WritingSettings, chat: ChatSettings | None = None) -> None:
        if settings.writer == "llm" and chat is None:
            raise ValueError("writer: llm needs the section chat: with model and endpoints")
        self.settings = settings
        self.chat = chat if settings.writer == "llm" else None
        self.max_attempts = settings.max_attempts
        if self.chat is not None:
            self.concurrency = self.chat.concurrency * len(self.chat.endpoints)
        self._askers: list[Asker] = []

    def identity(self) -> Mapping[str, Any]:
        """Settings, the content of the files they name, the model and its prompts."""
        settings = self.settings.model_dump(mode="json", exclude={"topics", "captions", "corpus", "max_attempts"})
        if self.settings.recipe == RESPOKEN:
            answers = {"reply_styles": REPLY_STYLES} if self.settings.also_as else {}
            return settings | answers | {"corpus": corpus_fingerprint(self.settings.corpus)}
        if self.chat is None:
            files = {name: fingerprint(None, f"{name}.yaml") for name in ("grammar", "deepdialogue")}
            return settings | files | {"topics": fingerprint(self.settings.topics, "topics.yaml")}
        asked = {"model", "temperature", "max_tokens", "format", "extra"}
        if self.settings.recipe == "deepdialogue":  # its graph of emotions
            settings |= {"deepdialogue": fingerprint(None, "deepdialogue.yaml")}
        return settings | {"prompts": prompts_fingerprint()} | self.chat.model_dump(mode="json", include=asked)

    async def open(self) -> None:
        """Connect to the models."""
        if self.chat is None:
            return
        for model in dict.fromkeys(self.settings.models) or (self.chat.model,):
            chat = make_chat(self.chat.of(model))
            await chat.open()
            self._askers.append(Asker(chat, self.chat.max_tokens, self.chat.temperature))

    async def run(self, item: Brief, attempt: Attempt) -> Script:
        """One script.

        Raises:
            Retry: it breaks a rule, or no usable answer came.
        """
        if self.settings.recipe == RESPOKEN:
            return respoken_script(item, self.settings.corpus, self.settings.also_as, self.settings.roles)
        draft = await (self._ask(item, attempt) if self.chat is not None else self._compose(item, attempt))
        return validate(draft, item, self.settings)

    async def close(self) -> None:
        """Disconnect."""
        for asker in self._askers:
            await asker.chat.close()
        self._askers.clear()

    async def _ask(self, brief: Brief, attempt: Attempt) -> Draft:
        if self.settings.recipe == "deepdialogue":
            return await write_dialogue_with_models(brief, self.settings, self._askers, attempt)
        write = write_interact_with_model if self.settings.recipe == "interact" else write_with_model
        return await write(brief, self.settings, self._askers[0], attempt)

    async def _compose(self, brief: Brief, attempt: Attempt) -> Draft:
        if self.settings.recipe == "deepdialogue":
            return write_dialogue_template(brief, attempt.rng)
        if self.settings.recipe == "quickstart":
            return write_quickstart(brief, attempt.rng)
        topics = read_topics(self.settings.topics, for_template=True)
        if self.settings.recipe == "interact":
            return write_interact_template(brief, topics, self.settings, attempt.rng)
        return write_template(brief, topics, attempt.rng)

"""The stage that writes: a brief in, a checked script out."""

from collections.abc import Mapping
from typing import Any

from data_prep.synthesis.contracts import Brief, Script
from data_prep.synthesis.stage import Attempt, Stage
from data_prep.synthesis.writing.respoken import RECIPE as RESPOKEN
from data_prep.synthesis.writing.respoken import corpus_fingerprint, respoken_script
from data_prep.synthesis.writing.settings import WritingSettings
from data_prep.synthesis.writing.template import write_template
from data_prep.synthesis.writing.topics import fingerprint, read_topics
from data_prep.synthesis.writing.validate import validate


class ScriptStage(Stage[Brief, Script]):
    """Writes and checks scripts; what breaks a rule is written again with another seed.

    Args:
        settings: who writes, and what.
    """

    name = "scripts"
    version = "1"
    takes = Brief
    gives = Script

    def __init__(self, settings: WritingSettings) -> None:
        self.settings = settings
        self.max_attempts = settings.max_attempts

    def identity(self) -> Mapping[str, Any]:
        """Settings, and the content of the files they name."""
        settings = self.settings.model_dump(mode="json", exclude={"topics", "captions", "corpus", "max_attempts"})
        if self.settings.recipe == RESPOKEN:
            settings["corpus"] = corpus_fingerprint(self.settings.corpus)
        return settings | {
            "topics": fingerprint(self.settings.topics, "topics.yaml"),
            "grammar": fingerprint(None, "grammar.yaml"),
        }

    async def run(self, item: Brief, attempt: Attempt) -> Script:
        """One script.

        Raises:
            Retry: it breaks a rule.
        """
        if self.settings.recipe == RESPOKEN:
            return respoken_script(item, self.settings.corpus, self.settings.also_as, self.settings.roles)
        draft = write_template(item, read_topics(self.settings.topics, for_template=True), attempt.rng)
        return validate(draft, item, self.settings)

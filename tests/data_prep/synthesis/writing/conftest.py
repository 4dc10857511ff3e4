"""Scripts as the template writer gives them."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_prep.synthesis.contracts import Brief, Script
from data_prep.synthesis.stage import Attempt
from data_prep.synthesis.writing.script_stage import ScriptStage
from data_prep.synthesis.writing.settings import WritingSettings

SPLITS = {"train": 0.8, "val": 0.1, "test": 0.1}


def attempt(number: int, seed: int = 0, folder: Path = Path()) -> Attempt:
    return Attempt(0, np.random.default_rng([seed, number]), folder)


@pytest.fixture(scope="session")
def write() -> Callable[[WritingSettings, list[Brief]], list[Script]]:
    """Writes the scripts of briefs as the runner does, one attempt each."""

    def written(settings: WritingSettings, briefs: list[Brief]) -> list[Script]:
        stage = ScriptStage(settings)

        async def all_of_them() -> list[Script]:
            return [await stage.run(brief, attempt(brief.number)) for brief in briefs]

        return asyncio.run(all_of_them())

    return written

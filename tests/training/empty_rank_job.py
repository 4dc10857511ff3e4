"""One run in which some dialogues have no targets: `python empty_rank_job.py RUN_DIR ID,... [OVERRIDE...]`.

By test_ranks.py, as two ranks; Lightning starts the second with the same command.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from omnichat.config import load_config
from omnichat.dialogue import Dialogue
from omnichat.prompt import IGNORE, Prompt, Tokens
from omnichat.training.fit import fit


def silence(patch: pytest.MonkeyPatch, ids: set[str]) -> None:
    """These dialogues teach nothing, wherever they are read: no store can hold such ones today."""
    render = Prompt.render

    def rendered(self: Prompt, dialogue: Dialogue, generation: bool = False) -> Tokens:
        tokens = render(self, dialogue, generation)
        if dialogue.id not in ids:
            return tokens
        return replace(tokens, labels=np.full_like(tokens.labels, IGNORE), kinds=np.zeros_like(tokens.kinds))

    patch.setattr(Prompt, "render", rendered)


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        silence(patch, set(sys.argv[2].split(",")))
        sys.exit(fit(load_config(*sys.argv[3:]), sys.argv[1]))

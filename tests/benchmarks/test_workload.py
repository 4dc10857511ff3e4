"""The dialogues that are measured on."""

import numpy as np
import pytest

from benchmarks.workload import MEAN_SECONDS, MEAN_TURNS, draw_dialogues
from omnichat.audio import SAMPLE_RATE


def test_dialogues_have_the_corpus_statistics() -> None:
    """Fails when dialogues are longer or shorter than ShareChatX's, which would flatter an arm."""
    dialogues = draw_dialogues(1000)
    turns = [len(dialogue.turns) for dialogue in dialogues]
    assert np.mean(turns) == pytest.approx(MEAN_TURNS, rel=0.01)
    seconds = [turn.audio.num_samples / SAMPLE_RATE for d in dialogues for turn in d.turns if turn.audio]
    assert np.mean(seconds) == pytest.approx(MEAN_SECONDS, rel=0.02)
    assert np.std(np.log(seconds)) == pytest.approx(0.45, rel=0.05)
    assert all(d.turns[-1].role == "assistant" and len(d.turns) % 2 == 0 for d in dialogues)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_a_few_dialogues_are_typical(count: int) -> None:
    """Fails when the few dialogues of a run have far more or fewer turns than the corpus, or change from run to run."""
    dialogues = draw_dialogues(count)
    assert np.mean([len(dialogue.turns) for dialogue in dialogues]) == pytest.approx(MEAN_TURNS, abs=0.5)
    assert dialogues == draw_dialogues(count)

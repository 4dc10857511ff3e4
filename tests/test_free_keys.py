"""The keys that may differ between two configs: each is a key, and the lists agree where they must."""

import pytest

from omnichat.config import known_keys, load_config
from omnichat.free_keys import RESUMED, RESUMED_FIXED, SAME_MODEL, SAME_RESULT, free_for_weights, free_on_resume


def test_every_name_is_that_of_a_key_or_a_section() -> None:
    """A key that was renamed would be compared again, and a run refused, or made again, for nothing."""
    sections = {key.rpartition(".")[0] for key in known_keys()} | set(load_config("recipe=smoke").model_dump())
    for name in (*RESUMED, *RESUMED_FIXED, *SAME_RESULT, *SAME_MODEL):
        assert name in set(known_keys()) | sections, name


def test_what_changes_no_result_may_change_on_resume() -> None:
    """An experiment would take a run for the one that it wants, and then be refused to go on with it."""
    # A section that is free frees its keys.
    assert [key for key in SAME_RESULT if not (free_on_resume(key) or free_on_resume(key.partition(".")[0]))] == []


@pytest.mark.parametrize(
    ("key", "resume", "weights"),
    [
        ("trainer.learning_rate", True, False),
        ("trainer.tokens_per_step", False, False),
        ("data.alpha", False, False),
        ("seed", False, False),
        ("model.llm.checkpoint", False, True),
        ("model.llm.dtype", False, True),
        ("model.queries", False, False),
    ],
)
def test_what_is_learnt_is_not_free(key: str, resume: bool, weights: bool) -> None:
    """Steps of two different runs, or weights in a model of other shapes, would be mixed without a word."""
    assert key in known_keys()
    assert (free_on_resume(key), free_for_weights(key)) == (resume, weights)

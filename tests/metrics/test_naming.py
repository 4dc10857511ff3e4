"""Naming the sound and the content word."""

import pytest

from omnichat.metrics.naming import chance, false_alarms, names_in, naming_accuracy


def test_whole_words_in_any_case() -> None:
    """`bell` is not heard in `bellows`; a name at the start or before a full stop is."""
    assert names_in("I hear the bellows.", ["bell"]) == set()
    assert names_in("Bell! I hear a dog.", ["bell", "dog", "rain"]) == {"bell", "dog"}
    assert names_in("the car horn (far away)", ["car horn"]) == {"car horn"}


def test_right_name_alone_is_right() -> None:
    """Right, wrong, none, and both the right and a wrong one; no name wanted does not count."""
    replies = ["i hear the dog.", "i hear the dog.", "all right.", "the dog, or the rain.", "i hear the dog."]
    wanted = ["dog", "rain", "dog", "dog", ""]
    metric = naming_accuracy(replies, wanted, [f"i hear the {name}." for name in wanted])
    assert metric.value == pytest.approx(1 / 4)
    assert metric.n == 4


def test_listing_every_name_is_never_right() -> None:
    """Otherwise one reply would be right in every dialogue."""
    names = ["dog", "rain", "bell"]
    metric = naming_accuracy(["dog rain bell"] * 3, names, names)
    assert metric.value == 0


def test_a_second_name_of_the_reference_is_allowed() -> None:
    """A reference that speaks of the bell in the rain may be repeated."""
    metric = naming_accuracy(["a bell in the rain", "rain"], ["bell", "rain"], ["a bell in the rain", "rain"])
    assert metric.value == 1


def test_the_name_itself_is_right_where_the_reference_puts_it_otherwise() -> None:
    """A reference may say `barking` of the dog."""
    metric = naming_accuracy(["i hear the dog", "rain"], ["dog", "rain"], ["what a barking!", "rain"])
    assert metric.value == 1


def test_false_alarms_count_silent_scenes_only() -> None:
    """Scenes known to be silent; a scene that says nothing of sounds is not one."""
    replies = ["i hear the dog.", "all right.", "i hear the dog.", "i hear the dog."]
    metric = false_alarms(replies, ["", "", None, "dog"])
    assert metric.value == 0.5
    assert metric.n == 2


def test_chance_is_one_over_the_names_that_occur() -> None:
    """The level that a named sound has to beat."""
    assert chance(["dog", "rain", "dog", "", "bell"]) == pytest.approx(1 / 3)

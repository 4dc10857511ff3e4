"""The dataset card."""

from data_prep.synthesis.store import CREDITS_SHOWN, credit_lines


def test_who_is_to_be_named_is_named() -> None:
    """CC-BY asks for the name: a card without it makes everybody who passes the store on break the licence."""
    assert credit_lines({}) == []
    lines = credit_lines({"b": "by Ben (CC-BY-3.0)", "a": "by\nAnna (CC-BY-4.0)"})
    assert lines[1:] == ["- `a`: by Anna (CC-BY-4.0)", "- `b`: by Ben (CC-BY-3.0)"]


def test_many_clips_do_not_bury_the_card() -> None:
    """Of 20,000 clips a card would be megabytes; it says where the rest stands."""
    lines = credit_lines({f"{number:05d}": "by Anna" for number in range(CREDITS_SHOWN + 7)})
    assert len(lines) == CREDITS_SHOWN + 2
    assert "7 more" in lines[-1]
    assert "manifest.jsonl" in lines[-1]

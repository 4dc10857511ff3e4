"""The benchmark of the store at a toy size."""

from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import store
from benchmarks.store import make_store, measure
from omnichat.data.store import Store


def test_a_toy_store_is_made_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dialogues that are all one, or faulty, would be measured without a word: the scan refuses both."""
    monkeypatch.setattr(store, "ROWS", 5)
    monkeypatch.setattr(store, "SCANNED", 10)
    split = make_store(tmp_path / "store", 18)
    assert len({Store(split)[row].id for row in range(20)}) == 20
    figures = measure(split)
    assert (figures.dialogues, figures.shards) == (20, 4)
    assert all(value >= 0 for name, value in asdict(figures).items() if not name.endswith("_mb"))

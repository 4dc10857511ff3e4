"""Made-up dialogues: the same for a seed, sound, and with every style value."""

from pathlib import Path

from omnichat.data.info import read_info
from omnichat.data.made_up import made_up_dialogues
from omnichat.data.scan import scan
from omnichat.data.store import Store
from omnichat.dialogue import STYLE_VALUES
from omnichat.prompt import Prompt


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file of a store."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two smoke runs must be comparable; another seed or split must be other data."""
    for name, seed, split in (("a", 1, "train"), ("b", 1, "train"), ("c", 2, "train"), ("d", 1, "val")):
        made_up_dialogues(tmp_path / name, 4, seed, split)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    texts = {(tmp_path / path).read_text() for path in ("a/train.jsonl", "c/train.jsonl", "d/val.jsonl")}
    assert len(texts) == 3


def test_made_up_dialogues_are_sound_and_show_every_style(tmp_path: Path, prompt: Prompt) -> None:
    """The smoke run must exercise every style word and pass the scan it makes users pass."""
    dialogues = made_up_dialogues(tmp_path, 14)
    result = scan(Store(tmp_path / "train.jsonl"), prompt, decode=True)
    assert result.faults == ()
    assert len(result.rows) == 14
    for field, values in STYLE_VALUES.items():
        assert {getattr(dialogue.turns[-1].style, field) for dialogue in dialogues} == set(values)


def test_splits_share_a_folder(tmp_path: Path) -> None:
    """A validation split must not overwrite the training split."""
    made_up_dialogues(tmp_path, 3)
    made_up_dialogues(tmp_path, 2, split="val")
    assert read_info(tmp_path).splits == {"train": 3, "val": 2}
    assert len(Store(tmp_path / "train.jsonl")) == 3

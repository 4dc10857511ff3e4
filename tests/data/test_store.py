"""Stores: rows in any order, and a description that is only there when the store is whole."""

import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnichat.data.info import StoreInfo, read_info
from omnichat.data.store import Store, write_store
from omnichat.dialogue import DataError, Dialogue, Turn, read_dialogues

DIALOGUE = Dialogue("d", (Turn("user", "hi"), Turn("assistant", "yes")))


def test_rows_are_the_dialogues_of_the_file_in_any_order(made_up: Path) -> None:
    """A row that is off by one trains on what validation holds out."""
    expected = list(read_dialogues(made_up))
    store = pickle.loads(pickle.dumps(Store(made_up)))
    assert len(store) == 9
    assert [store[row] for row in (8, 0, 5)] == [expected[row] for row in (8, 0, 5)]
    for row in (-1, 9):
        with pytest.raises(IndexError, match="has 9 rows"):
            store[row]


def test_lines_that_editors_leave_are_no_dialogues(made_up: Path) -> None:
    """A BOM, CRLF, blank lines and a missing last newline shift no row and no line number."""
    lines = made_up.read_bytes().split(b"\n")[:3]
    expected = [Store(made_up)[row] for row in range(3)]
    made_up.write_bytes(b"\xef\xbb\xbf" + lines[0] + b"\r\n\r\n" + lines[1] + b"\r\n\n" + lines[2])
    store = Store(made_up)
    assert [store[row] for row in range(len(store))] == expected
    assert store.place(2) == f"{made_up}:5"


def test_a_broken_row_is_named_when_it_is_read(made_up: Path) -> None:
    """Opening must stay fast; reading must say where."""
    made_up.write_bytes(made_up.read_bytes() + b'{"id": "x", "turns": []}\n\xff\n')
    store = Store(made_up)
    with pytest.raises(DataError, match=r"train.jsonl:10: dialogue 'x': .*\[no_turns\]"):
        store[9]
    with pytest.raises(DataError, match=r"train.jsonl:11: .*\[bad_encoding\]"):
        store[10]


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    """The path is what mends it."""
    with pytest.raises(DataError, match=r"no.jsonl: .*\[no_file\]"):
        Store(tmp_path / "no.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"empty.jsonl: .*\[empty_file\]"):
        Store(tmp_path / "empty.jsonl")


def test_a_file_without_line_ends_is_not_read_whole(made_up: Path, tmp_path: Path) -> None:
    """Gigabytes in one line, as some tools write JSON, would fill the memory before anything could be said of them."""
    path = tmp_path / "train.jsonl"
    path.write_bytes(made_up.read_bytes() + b"\n{" + b" " * 64 * 2**20)
    tracemalloc.start()
    store = Store(path)
    with pytest.raises(DataError, match=r"at most 8,388,608 are read.*\[line_too_long\]"):
        store[len(store) - 1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20
    whole = Store(made_up)
    assert len(store) == len(whole) + 1
    assert [store.line(row) for row in range(len(store))] == [*range(1, len(whole) + 1), len(whole) + 2]


def test_a_store_says_what_it_is(tmp_path: Path) -> None:
    """Licence and source must travel with the data."""
    info = write_store(tmp_path, {"train": [DIALOGUE] * 3, "test": [DIALOGUE]}, "x", "CC0-1.0", "tests", 4, "tones")
    assert info == StoreInfo("x", "CC0-1.0", "tests", {"train": 3, "test": 1}, 4, "tones")
    assert read_info(tmp_path) == info
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store.json", "test.jsonl", "train.jsonl"]


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("jsonl", "is a folder of JSONL files; name one of them: a.jsonl, b.jsonl"),
        ("run", "holds a store; name one of its splits: store/train"),
        ("other", "name a JSONL file, or the folder of a split in Arrow shards"),
    ],
)
def test_a_folder_that_is_no_split_leads_to_what_is(tmp_path: Path, folder: str, said: str) -> None:
    """Of a folder of JSONL files it was said that a store.json beside it is missing, and to make it again."""
    for name in ("jsonl", "run/store", "other"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / "jsonl" / f"{name}.jsonl").touch()
    write_store(tmp_path / "run" / "store", {"train": [DIALOGUE]}, "x", "", "")
    with pytest.raises(DataError) as caught:
        Store(tmp_path / folder)
    assert said in str(caught.value)
    assert "store.json" not in str(caught.value)


def test_a_store_that_was_not_finished_has_no_description(tmp_path: Path) -> None:
    """Half a corpus must not pass for a small one."""
    write_store(tmp_path, {"train": [DIALOGUE] * 2}, "x", "", "")

    def stops() -> Iterator[Dialogue]:
        yield DIALOGUE
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path, {"train": stops()}, "x", "", "")
    assert len(Store(tmp_path / "train.jsonl")) == 2  # as it was
    with pytest.raises(DataError, match=r"store.json: .*not whole.*\[no_file\]"):
        read_info(tmp_path)
    (tmp_path / "store.json").write_text("[1]")
    with pytest.raises(DataError, match=r"\[bad_json\]"):
        read_info(tmp_path)

"""CSV and JSONL lists: the faults that are named, and stretches that neither lose nor repeat a line."""

from pathlib import Path

import pytest

from omnichat.data.corpora.lists import grouped, lines_within, object_of, read_csv
from omnichat.dialogue import DataError


def test_rows_are_read_with_quotes_and_a_byte_order_mark(tmp_path: Path) -> None:
    """Excel writes the mark, and the first column would have another name."""
    (tmp_path / "a.csv").write_bytes('\ufeffid,text\r\n1,"a, ""b""\nc"\r\n2\r\n'.encode())
    rows = read_csv(tmp_path / "a.csv", ["id", "text"])
    assert rows == [{"id": "1", "text": 'a, "b"\nc'}, {"id": "2"}]
    assert grouped([*rows, {"id": "1"}], "id") == {"1": [rows[0], {"id": "1"}], "2": [rows[1]]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"id,words\n1,a\n", "missing_column"),
        (b"", "missing_column"),
        (b"id,text\n1,\xff\n", "bad_encoding"),
        (b'id,text\n1,"a"b\n', "bad_layout"),
        (b'id,text\n1,"' + b"a" * 200_000 + b'"\n', "bad_layout"),
    ],
)
def test_what_is_no_such_table_is_named(content: bytes, reason: str, tmp_path: Path) -> None:
    """Each would otherwise be a traceback, or rows that mean something else."""
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.csv: .*\[{reason}\]"):
        read_csv(tmp_path / "a.csv", ["id", "text"])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_every_line_is_in_just_one_stretch(size: int, tmp_path: Path) -> None:
    """By hand: lines of 0 to 4 bytes, the last one without an end, cut everywhere."""
    content = b"abc\n\n1234\r\nx\n  \nlast"
    (tmp_path / "a").write_bytes(content)
    starts = range(0, len(content), size)
    found = [line for start in starts for line in lines_within(tmp_path / "a", start, min(start + size, len(content)))]
    assert found == [(0, b"abc\n"), (5, b"1234\r\n"), (11, b"x\n"), (16, b"last")]


@pytest.mark.parametrize("line", [b"{", b"[1]", b"\xff", b"[" * 100_000, b"null"])
def test_a_line_that_is_no_object_is_named(line: bytes) -> None:
    """Each would otherwise be an exception of its own kind."""
    with pytest.raises(DataError, match=r"\[bad_json\]"):
        object_of(line)
    assert object_of(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}

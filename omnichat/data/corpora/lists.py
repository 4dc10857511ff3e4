"""Lists that corpora come with: CSV files, and JSONL files read in stretches."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omnichat.dialogue import DataError

STRETCH = 2**23  # bytes of JSONL that are read as one part of a corpus


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a UTF-8 file whose first line names its columns. A row that is too short lacks the last ones.

    Raises:
        DataError: `bad_encoding`, `bad_layout`, or `missing_column` with the columns that are there.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            found = list(reader.fieldnames or ())
            if missing := [name for name in columns if name not in found]:
                message = f"has no column {', '.join(missing)}; its columns are {', '.join(found) or 'none'}"
                raise DataError("missing_column", message, str(path))
            return [{name: value for name, value in row.items() if isinstance(value, str)} for row in reader]
    except UnicodeDecodeError as error:
        raise DataError("bad_encoding", f"is not UTF-8 ({error}); fetch it again", str(path)) from None
    except csv.Error as error:
        raise DataError("bad_layout", f"is not CSV ({error}); fetch it again", str(path)) from None


def grouped(rows: Sequence[Mapping[str, str]], column: str) -> dict[str, list[Mapping[str, str]]]:
    """Rows by what stands in a column, in the order of their first rows."""
    groups: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        groups.setdefault(row.get(column, ""), []).append(row)
    return groups


def line_stretches(path: Path) -> list[tuple[int, int]]:
    """[start, stop) bytes of the stretches of a file of lines; found without reading it."""
    size = path.stat().st_size
    return [(start, min(start + STRETCH, size)) for start in range(0, size, STRETCH)]


def lines_within(path: Path, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """(place, line) of the lines that begin in [start, stop); those that are blank are left out."""
    with path.open("rb") as file:
        if start:
            file.seek(start - 1)
            file.readline()  # belongs to the stretch before, if only by its end
        while (place := file.tell()) < stop:
            line = file.readline()
            if line.strip():
                yield place, line


def object_of(line: bytes) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        DataError: `bad_json`.
    """
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError("bad_json", f"not JSON: {error}") from None
    if not isinstance(record, dict):
        raise DataError("bad_json", f"an object is expected, got {type(record).__name__}")
    return record

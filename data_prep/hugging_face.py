"""Unpack a downloaded dataset of the Hugging Face hub, dialogues or turns with audio, for data_prep.table.

SRC is its folder: Parquet files, or what `save_to_disk` wrote. OUT gets rows.jsonl and audio/, every recording in the
bytes that were published. Names of columns stay; a split stands in the column `split`. Our own stores come back whole.

example, for a dataset with the columns conversation, speaker, text and audio:
  hf download OWNER/NAME --repo-type dataset --local-dir downloads/NAME
  python -m data_prep.hugging_face downloads/NAME downloads/NAME_rows
  python -m data_prep.table downloads/NAME_rows corpora/NAME --licence "CC BY 4.0" --column dialogue=conversation
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from rich.console import Console
from rich.progress import track

from data_prep.arguments import command_line
from omnichat.dialogue import DataError
from omnichat.secrets import mask_output

ROWS, AUDIO = "rows.jsonl", "audio"
SPLITS = {"validation": "val", "valid": "val", "dev": "val"}  # what others call it
BATCH = 32  # rows in memory, with their audio
PLACE = ("start", "num_samples", "channel")  # of a turn's audio, in our own stores


def unpack(source: Path, out: Path) -> int:
    """Write rows and recordings; returns the rows. What is there is written again, recordings only once.

    Args:
        source: folder of the dataset.
        out: folder to write; not within the dataset.

    Raises:
        DataError: `no_file` (no dataset there, or a recording that it only names), `unreadable`.
        OSError: the disk refuses.
    """
    inside = _Inside(source)
    files = [path for path in inside.files if path.suffix in (".parquet", ".arrow") and path.name[:6] != "cache-"]
    if not files:
        raise DataError("no_file", "holds no *.parquet and no *.arrow; download the whole dataset first", str(source))
    (out / AUDIO).mkdir(parents=True, exist_ok=True)
    partial, count = out / f".{ROWS}.partial", 0
    with partial.open("w", encoding="utf-8") as lines:
        for path in track(files, "unpacking", console=Console(stderr=True), disable=not sys.stderr.isatty()):
            for number, row in enumerate(_rows(path)):
                try:
                    plain = _plain(row, inside, out)
                except DataError as error:
                    raise error.at(f"{path}: row {number}") from None
                lines.write(json.dumps(_with_split(plain, path), ensure_ascii=False) + "\n")
                count += 1
    os.replace(partial, out / ROWS)
    return count


class _Inside:
    """The files of a dataset, those that links lead to elsewhere left out, by path and by name."""

    def __init__(self, source: Path) -> None:
        self.source, root = source, source.resolve()
        found = (path for path in sorted(source.rglob("*")) if path.is_file())
        self.files = [path for path in found if path.resolve().is_relative_to(root)]
        self._named = {path.name: path for path in self.files} | {
            path.relative_to(source).as_posix(): path for path in self.files
        }

    def read(self, name: str) -> bytes:
        """A recording that a row only names.

        Raises:
            DataError: `no_file`.
        """
        path = self._named.get(name) or self._named.get(Path(name).name)
        if path is None:
            where = f"neither in the row nor below {self.source}; download it too"
            raise DataError("no_file", f"{name!r} is named, and {where}")
        return path.read_bytes()


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        if path.suffix == ".parquet":
            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH):
                    yield from batch.to_pylist()
        else:
            with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
                for batch in stream:
                    for start in range(0, len(batch), BATCH):
                        yield from batch.slice(start, BATCH).to_pylist()
    except (pa.ArrowException, OSError) as error:
        message = f"cannot be read ({' '.join(str(error).split())}); download it again"
        raise DataError("unreadable", message, str(path)) from None


def _plain(value: Any, inside: _Inside, out: Path) -> Any:
    """The value as JSON has it: recordings as paths, lists of keys and values, as our stores have them, as objects."""
    if isinstance(value, Mapping):
        if set(value) == {"bytes", "path"}:
            return _recording(value["bytes"], value["path"], inside, out)
        kept = {name: _plain(one, inside, out) for name, one in value.items()}
        if isinstance(kept.get("audio"), str) and kept.get("num_samples") is not None:
            place = {name: kept.pop(name) for name in PLACE if kept.get(name) is not None}
            kept["audio"] = {"path": kept["audio"], **place}
        return kept
    if isinstance(value, list):
        if value and all(isinstance(one, Mapping) and set(one) == {"key", "value"} for one in value):
            return {one["key"]: one["value"] for one in value}
        return [_plain(one, inside, out) for one in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _recording(content: bytes | None, name: str | None, inside: _Inside, out: Path) -> str | None:
    """Its path below `out`, once it lies there under the hash of its bytes."""
    if content is None:
        if not name:
            return None
        content = inside.read(name)
    kind = re.search(r"\.[A-Za-z0-9]{1,5}$", name or "")
    path = Path(AUDIO) / (hashlib.sha256(content).hexdigest()[:32] + (kind[0].lower() if kind else ""))
    if not (out / path).exists():
        partial = out / AUDIO / ".partial"
        partial.write_bytes(content)
        os.replace(partial, out / path)
    return path.as_posix()


def _with_split(row: dict[str, Any], path: Path) -> dict[str, Any]:
    """The row with its split, as the file's name (`train-00000-of-00003.parquet`) or its folder's says."""
    if "split" in row:
        return row
    first = path.stem.partition("-")[0]
    name = path.parent.name if first in ("data", "part") or first.isdecimal() else first
    named = SPLITS.get(name, name)
    return {**row, "split": named} if named in ("train", "val", "test") else row


def main() -> int:
    """`python -m data_prep.hugging_face SRC OUT`."""
    mask_output()
    parser = command_line("data_prep.hugging_face", __doc__)
    parser.add_argument("source", type=Path, metavar="SRC", help="folder of the dataset as it was downloaded")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    given = parser.parse_args()
    if given.out.resolve().is_relative_to(given.source.resolve()):
        parser.error("OUT lies within SRC, whose files are searched; name another folder")
    try:
        count = unpack(given.source, given.out)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{given.out / ROWS}: {count:,} rows; next: python -m data_prep.table {given.out} corpora/NAME --licence ...")
    return 0


if __name__ == "__main__":
    sys.exit(main())

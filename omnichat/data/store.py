"""Dialogues on disk: `<split>.jsonl` beside `audio/` and a `store.json` that says what they are."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from omnichat.dialogue import DataError, Dialogue, dialogue_from_json, write_dialogues

INFO_FILE = "store.json"


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """Where a store comes from. `seed` and `engine` are for stores that were made; `splits` counts dialogues."""

    name: str
    licence: str
    source: str
    splits: Mapping[str, int]
    seed: int | None = None
    engine: str = ""


class Store:
    """The dialogues of one JSONL file by row, parsed when asked for.

    Raises:
        DataError: `no_file` or `empty_file`; on access what `dialogue_from_json` finds, with file and line.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError("no_file", "no such file; make the store first or correct the path", str(path))
        offsets, numbers, offset = [], [], 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    offsets.append(offset)
                    numbers.append(number)
                offset += len(line)
        if not offsets:
            raise DataError("empty_file", "holds no dialogue", str(path))
        self._spans = np.array([offsets, [*offsets[1:], offset]], dtype=np.int64).T
        self._numbers = np.array(numbers, dtype=np.int64)

    def __len__(self) -> int:
        """Number of dialogues."""
        return len(self._numbers)

    def __getitem__(self, row: int) -> Dialogue:
        """The dialogue of a row, checked."""
        start, stop = self._spans[row]
        with self.path.open("rb") as lines:
            lines.seek(start)
            raw = lines.read(stop - start)
        try:
            return dialogue_from_json(raw.decode("utf-8-sig"), self.path.parent)
        except UnicodeDecodeError:
            raise DataError("bad_encoding", "not UTF-8; convert the file", self.place(row)) from None
        except DataError as error:
            raise error.at(self.place(row)) from None

    def place(self, row: int) -> str:
        """`file:line` of a row."""
        return f"{self.path}:{self._numbers[row]}"


def write_store(
    folder: Path | str,
    splits: Mapping[str, Iterable[Dialogue]],
    name: str,
    licence: str,
    source: str,
    seed: int | None = None,
    engine: str = "",
    kept: Mapping[str, int] | None = None,
) -> StoreInfo:
    """Write a store whose audio already lies in `folder`; `store.json` comes last, so a store that has it is whole.

    Args:
        folder: of the store.
        splits: the dialogues of each split to write.
        name: of the corpus.
        licence: of the corpus.
        source: where it comes from.
        seed: of a made store.
        engine: that made it.
        kept: counts of splits that lie in the folder already.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INFO_FILE).unlink(missing_ok=True)
    counts = dict(kept or {})
    for split, dialogues in splits.items():
        partial = folder / f".{split}.jsonl.partial"
        counts[split] = write_dialogues(partial, dialogues)
        os.replace(partial, folder / f"{split}.jsonl")
    info = StoreInfo(name, licence, source, counts, seed, engine)
    partial = folder / f".{INFO_FILE}.partial"
    partial.write_text(json.dumps(asdict(info), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / INFO_FILE)
    return info


def read_info(folder: Path | str) -> StoreInfo:
    """What `store.json` says.

    Raises:
        DataError: `no_file` or `bad_json`.
    """
    path = Path(folder) / INFO_FILE
    if not path.is_file():
        raise DataError("no_file", "no such file, so the store is not whole; make it again", str(path))
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return StoreInfo(**{key: record[key] for key in (item.name for item in fields(StoreInfo)) if key in record})
    except (ValueError, TypeError) as error:
        raise DataError("bad_json", f"is not a store description ({error}); make the store again", str(path)) from None

"""The folder that a store is made in: what is there already, who else writes there, what an earlier run has left."""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from omnichat.data.corpora.reading import SPLITS
from omnichat.data.corpora.splits import LISTS
from omnichat.data.corpora.summary import Summary
from omnichat.data.info import INFO_FILE
from omnichat.dialogue import DataError

KEPT = ".conversion"  # what is finished of a store that is not whole yet
RECORD = "conversion.json"
Done = tuple[dict[str, Summary], list[DataError]]  # sizes of each split, and what was rejected


def finished(out: Path, record: str, overwrite: bool) -> Done | None:
    """The sizes and rejects of the store in `out` where it was made in just this way.

    Raises:
        DataError: `store_exists` where there is another store that must not be overwritten.
    """
    if not (out / INFO_FILE).exists():
        if not (out / RECORD).exists() and not (out / KEPT).exists():
            _check_free(out)
        return None
    try:
        made = json.loads((out / RECORD).read_text(encoding="utf-8"))
        if made["made_from"] == record:
            lines = (out / "rejects.jsonl").read_text(encoding="utf-8").splitlines()
            splits = {split: Summary.from_record(sizes) for split, sizes in made["splits"].items()}
            if (out / KEPT).exists():  # stopped between the last file of the store and this
                with suppress(DataError), alone(out):
                    shutil.rmtree(out / KEPT)
            return splits, [DataError(**json.loads(line)) for line in lines]
    except (OSError, ValueError, LookupError, TypeError):
        pass
    if not overwrite:
        message = "holds a store made from other files or settings; choose another folder, or pass --overwrite"
        raise DataError("store_exists", message, str(out))
    if not (out / RECORD).exists():
        _check_free(out)
    return None


def _check_free(out: Path) -> None:
    """Raise where our folders would be mixed with those of a corpus that lies in `out`."""
    taken = [name for name in (LISTS, *SPLITS) if (out / name).exists()]
    if taken:
        message = f"holds {' and '.join(taken)}, which no conversion made; choose another folder"
        raise DataError("store_exists", message, str(out))


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Keep a second conversion out of the folder while one runs."""
    created = not out.exists()
    (out / KEPT).mkdir(parents=True, exist_ok=True)
    with (out / KEPT / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError("in_use", "another conversion writes there; wait for it to end", str(out)) from None
        try:
            yield
        except DataError as error:
            if created and (error.reason == "empty_file" or not any((out / KEPT).glob("*/*.json"))):
                shutil.rmtree(out)  # nothing in it is of use to the next run
            raise


def remove_store(out: Path) -> None:
    """Remove what an earlier conversion wrote, and nothing else: a corpus may lie beside it."""
    try:
        splits = list(json.loads((out / RECORD).read_text(encoding="utf-8"))["splits"])
    except (OSError, ValueError, LookupError, TypeError):
        splits = []
    (out / INFO_FILE).unlink(missing_ok=True)
    for split in splits:
        files = [*(out / split).glob("data-*.arrow"), out / split / "state.json", out / split / "dataset_info.json"]
        for file in [*files, out / LISTS / f"{split}.txt"]:
            file.unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            (out / split).rmdir()
    (out / RECORD).unlink(missing_ok=True)

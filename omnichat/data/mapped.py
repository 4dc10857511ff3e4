"""Reading an Arrow shard: mapped, checked once, then any row without reading the others.

Nothing in the file is trusted before it is checked: a damaged one raises an error that names it, and reads nothing
beyond the mapping.
"""

import ctypes
import hashlib
import mmap
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from omnichat.data.info import Shard
from omnichat.data.shards import SCHEMAS, check_size
from omnichat.dialogue import (
    MAX_SAMPLES,
    STYLE_FIELDS,
    AudioRef,
    DataError,
    Dialogue,
    Style,
    Turn,
    check_dialogue,
    inside,
)

# Arrow has no call for it, and Python's own maps keep a file open each, of which a process may have 1,024.
_LIBC = ctypes.CDLL(None)
_STRETCH = ("start", "num_samples", "channel", "sha256")
_CURE = "copy it again, or make the store again"


class MappedShard:
    """The dialogues of one shard by row.

    Args:
        path: of the file.
        shard: what `store.json` says of it.
        root: folder of the store, below which references lie.

    Raises:
        DataError: `no_file`, `truncated` or `damaged`.
    """

    def __init__(self, path: Path, shard: Shard, root: Path) -> None:
        check_size(path, shard)
        self.path, self.root = path, root
        try:
            with pa.memory_map(str(path)) as file:
                whole = file.read_buffer()
            if whole.size != shard.bytes:
                raise DataError("truncated", f"changed while it was opened; {_CURE}")
            options = pa.ipc.IpcReadOptions(use_threads=False)  # a pool of threads does not survive a fork
            with pa.ipc.open_stream(whole, options=options) as stream:
                if not any(stream.schema.equals(one) for one in SCHEMAS):
                    raise DataError("damaged", f"does not hold dialogues as this version writes them; {_CURE}")
                batches = list(stream)
            for batch in batches:
                batch.validate(full=True)
            self._batches = [_Batch(batch, whole) for batch in batches]
        except DataError as error:
            raise error.at(str(path)) from None
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            raise DataError("damaged", f"is not a sound Arrow stream ({error}); {_CURE}", str(path)) from None
        self._whole = whole
        self.release()
        self._starts = np.cumsum([0, *(len(batch) for batch in self._batches)])
        if self._starts[-1] != shard.rows:
            message = f"holds {self._starts[-1]:,} dialogues, {shard.rows:,} were written; {_CURE}"
            raise DataError("damaged", message, str(path))

    def __len__(self) -> int:
        """Number of dialogues."""
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> Dialogue:
        """The dialogue of a row, checked.

        Raises:
            DataError: `damaged`, `path_outside_root`, `unknown_style` or what `check_dialogue` finds.
        """
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        try:
            return self._batches[number].dialogue(row - int(self._starts[number]), self.path, self.root)
        except (UnicodeDecodeError, pa.ArrowException) as error:
            raise DataError("damaged", f"cannot be read ({error}); {_CURE}") from None

    def release(self) -> None:
        """Let go of the pages that reading has mapped; they stay in the system's page cache.

        They count as private memory of a process that maps them alone, and a training run comes by all of them.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            _LIBC.madvise(ctypes.c_void_p(self._whole.address), ctypes.c_size_t(self._whole.size), mmap.MADV_DONTNEED)


def verify_shard(path: Path, shard: Shard) -> None:
    """Read a whole shard and raise what is wrong with it.

    Args:
        path: of the file.
        shard: what `store.json` says of it.

    Raises:
        DataError: `no_file`, `truncated`, or `damaged` where it holds other bytes than were written.
    """
    check_size(path, shard)
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError("no_file", f"cannot be read ({error}); {_CURE}", str(path)) from None
    if found != shard.sha256:
        message = f"holds other bytes than were written (sha256 {found[:16]}, written {shard.sha256[:16]}); {_CURE}"
        raise DataError("damaged", message, str(path))
    MappedShard(path, shard, path.parent.parent)


class _Notes:
    """A column of lists of (key, value): a mapping of strings for each place."""

    def __init__(self, column: Any) -> None:
        self._offsets = column.offsets.to_numpy()
        self._keys, self._values = (column.values.field(name) for name in ("key", "value"))

    def __call__(self, start: int, stop: int) -> list[dict[str, str]]:
        """Those of the places [start, stop)."""
        offsets = self._offsets[start : stop + 1].tolist()
        if offsets[0] == offsets[-1]:
            return [{} for _ in range(start, stop)]
        keys, values = (column[offsets[0] : offsets[-1]].to_pylist() for column in (self._keys, self._values))
        if None in keys or None in values:
            raise DataError("damaged", f"has a note without a name or a value; {_CURE}")
        pairs = list(zip(keys, values, strict=True))
        return [dict(pairs[first - offsets[0] : last - offsets[0]]) for first, last in pairwise(offsets)]


class _Batch:
    """A record batch that was validated, its columns taken apart for quick access by row."""

    def __init__(self, batch: Any, whole: Any) -> None:
        self._rows = batch.num_rows
        self._ids, self._sources = batch.column("id"), batch.column("source")
        self._scenes = _Notes(batch.column("scene"))
        turns = batch.column("turns")
        self._offsets: NDArray[np.int32] = turns.offsets.to_numpy()
        turn, audio, style = (turns.values, *(turns.values.field(name) for name in ("audio", "style")))
        self._styles = [style.field(name) for name in STYLE_FIELDS]  # the order of Style's own fields
        self._turns = [turn.field(name) for name in ("role", "text")]
        self._audio = [audio.field("path"), *(turn.field(name) for name in _STRETCH)]
        self._metas = _Notes(turn.field("meta"))
        self._learn = turn.field("learn") if turn.type.get_field_index("learn") >= 0 else None  # an older store
        self._places = _places(audio.field("bytes"), whole)

    def __len__(self) -> int:
        return self._rows

    def dialogue(self, row: int, path: Path, root: Path) -> Dialogue:
        """The dialogue of a row, checked."""
        start, stop = self._offsets[row : row + 2].tolist()
        roles, texts = (column[start:stop].to_pylist() for column in self._turns)
        styles = zip(*(column[start:stop].to_pylist() for column in self._styles), strict=True)
        audio = zip(*(column[start:stop].to_pylist() for column in self._audio), strict=True)
        places, metas = pairwise(self._places[start : stop + 1].tolist()), self._metas(start, stop)
        learn = self._learn[start:stop].to_pylist() if self._learn is not None else [True] * len(roles)
        name, source = self._ids[row].as_py(), self._sources[row].as_py()
        if None in (name, source, *roles, *texts):
            raise DataError("damaged", f"lacks an id, a source, a role or a text; {_CURE}")
        turns: list[Turn] = []
        columns = zip(roles, texts, styles, audio, places, metas, learn, strict=True)
        for role, text, style, kept, place, meta, learnt in columns:
            try:
                ref = _audio_ref(kept, place, path, root)
                turns.append(Turn(role, text, Style(*style), ref, meta, learnt is not False or role == "user"))
            except DataError as error:
                raise error.at(f"dialogue {name!r}: turn {len(turns)}") from None
        dialogue = Dialogue(name, tuple(turns), source, self._scenes(row, row + 1)[0])
        check_dialogue(dialogue)
        return dialogue


def _places(content: Any, whole: Any) -> NDArray[np.int64]:
    """(n + 1,) bytes of the file at which the n binary values of a column begin and end."""
    _, offsets, data = content.buffers()
    if not len(content) or data is None:
        return np.zeros(len(content) + 1, dtype=np.int64)
    places = np.frombuffer(offsets, dtype=np.int32)[content.offset :][: len(content) + 1].astype(np.int64)
    if places[0] == places[-1]:
        return places
    places += data.address - whole.address  # not where the reader made a copy, which is not in the file
    if places[0] < 0 or places[-1] > whole.size:
        raise DataError("damaged", f"has audio that is compressed or lies outside the file; {_CURE}")
    return places


def _audio_ref(kept: tuple[Any, ...], place: tuple[int, int], path: Path, root: Path) -> AudioRef | None:
    """The reference of one turn; its file is the bytes of the shard at `place`, or lies below `root`."""
    name, start, samples, channel, sha256 = kept
    begin, end = place
    if samples is None and not name and begin == end:  # Arrow puts '' below a missing struct
        return None
    if start is None or samples is None or sha256 is None or max(start, samples, channel or 0) >= MAX_SAMPLES:
        raise DataError("damaged", f"has audio without a length, a start or a sha256; {_CURE}")
    if min(start, samples, channel or 0) < 0:
        raise DataError("damaged", f"has audio with a negative length, start or channel; {_CURE}")
    if begin < end:
        return AudioRef(str(path), samples, start, channel, begin, end - begin, sha256)
    if not name or "\0" in name:
        raise DataError("damaged", f"has audio without bytes and without a path; {_CURE}")
    return AudioRef(inside(root, name), samples, start, channel, sha256=sha256)

"""Frames of the frozen experts on disk: written once, then read from mapped memory. No torch needed.

`root/<expert>-<digest>/` holds `key.json` (what made the frames), `frames.bin` (rows of D numbers, clip after clip)
and `index.jsonl` (for each piece of audio its first row and its rows). A piece is named by the sha256 of its file's
bytes and its place in it, so a file that moves keeps its features and a file that changes loses them.
"""

import fcntl
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from omnichat.audio import pieces
from omnichat.dialogue import AudioRef, DataError

FeatureDtype = Literal["float16", "bfloat16", "float32"]
# numpy has no bfloat16; its bits are kept as uint16 and `omnichat.batch.pack` gives them back their type.
_STORED: dict[str, type[np.generic]] = {"float16": np.float16, "bfloat16": np.uint16, "float32": np.float32}
CODE_VERSION = 1  # raise it when an encoder's frames change
_CURE = "run python -m omnichat.training.precompute with this config"


@dataclass(frozen=True, slots=True)
class FeatureKey:
    """All that the frames of an expert depend on, besides the audio.

    Attributes:
        expert: its name.
        checkpoint_sha256: of its weights.
        dim: D, its width.
        dtype: of the frames on disk.
        options: what else it was made with (Whisper's context, BEATs' layout).
        code_version: of the code that computes frames.
    """

    expert: str
    checkpoint_sha256: str
    dim: int
    dtype: FeatureDtype = "bfloat16"
    options: Mapping[str, str] = field(default_factory=dict)
    code_version: int = CODE_VERSION

    def record(self) -> dict[str, Any]:
        """As `key.json` has it."""
        return asdict(self) | {"options": dict(sorted(self.options.items()))}

    def folder(self, root: Path | str) -> Path:
        """Where these features lie."""
        digest = hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()
        return Path(root) / f"{self.expert}-{digest[:16]}"


class FeatureWriter:
    """Adds the frames of one expert to its folder; goes on where an interrupted writer stopped.

    One writer at a time: a second one, of another run say, waits for the first and finds its frames done.

    Raises:
        DataError: `foreign_features` where the folder holds something else.
    """

    def __init__(self, root: Path | str, key: FeatureKey) -> None:
        self.key = key
        self._folder = key.folder(root)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self._folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        described = self._folder / "key.json"
        if described.exists():
            _check_key(self._folder, key)
        else:
            described.write_text(json.dumps(key.record(), indent=2) + "\n", encoding="utf-8")
        self._index = _read_index(self._folder / "index.jsonl")
        self._rows = max((start + count for start, count in self._index.values()), default=0)
        self._hashes = _FileHashes()
        # A writer that was killed may have left half a line, or frames without a line: both are cut off.
        _cut_half_line(self._folder / "index.jsonl")
        self._frames = (self._folder / "frames.bin").open("ab")
        self._frames.truncate(self._rows * key.dim * np.dtype(_STORED[key.dtype]).itemsize)
        self._lines = (self._folder / "index.jsonl").open("a", encoding="utf-8")

    def has(self, ref: AudioRef) -> bool:
        """Whether every piece of this stretch of audio is there."""
        return all(name in self._index for name in _names(self._hashes, ref))

    def add(self, ref: AudioRef, frames: Sequence[NDArray[np.float32]]) -> None:
        """Add the frames (N, D) of each 30 s piece of a stretch of audio; nothing where they are there.

        Raises:
            DataError: `bad_features` for a wrong shape, or numbers the dtype cannot hold.
        """
        names = _names(self._hashes, ref)
        if len(frames) != len(names):
            raise DataError("bad_features", f"{len(frames)} pieces given, the audio has {len(names)}", ref.path)
        for name, piece in zip(names, frames, strict=True):
            if name in self._index:
                continue
            if piece.ndim != 2 or piece.shape[1] != self.key.dim:
                raise DataError(
                    "bad_features", f"frames of shape {piece.shape}, expected (N, {self.key.dim})", ref.path
                )
            stored = _to_stored(piece, self.key.dtype, ref.path)
            self._frames.write(stored.tobytes())
            self._frames.flush()  # frames before their line: a line never names frames that are not there
            self._index[name] = (self._rows, len(piece))
            self._lines.write(json.dumps([name, self._rows, len(piece)]) + "\n")
            self._lines.flush()
            self._rows += len(piece)

    def close(self) -> None:
        """Close the files; every piece added is readable."""
        self._frames.close()
        self._lines.close()
        self._lock.close()

    def __enter__(self) -> "FeatureWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FeatureReader:
    """Reads the frames of all experts of a run.

    Raises:
        DataError: `no_features`, or `foreign_features` with how the features that are there differ.
    """

    def __init__(self, root: Path | str, keys: Sequence[FeatureKey]) -> None:
        self._experts = {key.expert: _Expert(Path(root), key) for key in keys}
        self._hashes = _FileHashes()

    @property
    def widths(self) -> dict[str, int]:
        """D of each expert."""
        return {name: expert.key.dim for name, expert in self._experts.items()}

    def has(self, ref: AudioRef) -> bool:
        """Whether every piece of this stretch of audio is there for every expert."""
        names = _names(self._hashes, ref)
        return all(name in expert.index for expert in self._experts.values() for name in names)

    def read(self, ref: AudioRef) -> tuple[dict[str, NDArray[np.generic]], ...]:
        """For each 30 s piece the frames (N, D) of each expert, read-only; uint16 holds the bits of bfloat16.

        Raises:
            DataError: `no_features` for audio that is not there, or has changed since.
        """
        return tuple(
            {expert: part.frames(name, ref) for expert, part in self._experts.items()}
            for name in _names(self._hashes, ref)
        )


class _Expert:
    """One expert's folder, mapped when first read: a map does not survive pickling for a data worker."""

    def __init__(self, root: Path, key: FeatureKey) -> None:
        self.key = key
        self.folder = key.folder(root)
        _check_key(self.folder, key)
        self.index = _read_index(self.folder / "index.jsonl")
        self.dtype = np.dtype(_STORED[key.dtype])
        named = max((sum(span) for span in self.index.values()), default=0) * key.dim * self.dtype.itemsize
        size = (self.folder / "frames.bin").stat().st_size
        if size < named:
            message = f"holds {size} bytes, its index names {named}; delete the folder, {_CURE}"
            raise DataError("truncated_features", message, str(self.folder / "frames.bin"))
        self._rows: NDArray[np.generic] | None = None

    def frames(self, name: str, ref: AudioRef) -> NDArray[np.generic]:
        if name not in self.index:
            message = f"no cached {self.key.expert} features of samples from {ref.start}, or the file changed; {_CURE}"
            raise DataError("no_features", message, ref.path)
        if self._rows is None:
            flat = np.memmap(self.folder / "frames.bin", dtype=self.dtype, mode="r")
            self._rows = flat[: len(flat) // self.key.dim * self.key.dim].reshape(-1, self.key.dim)
        start, count = self.index[name]
        return self._rows[start : start + count]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_rows": None}


class _FileHashes:
    """sha256 of files, computed again only when size or time of change differ."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int, str]] = {}

    def __getitem__(self, path: str) -> str:
        try:
            status = Path(path).stat()
            known = self._known.get(path)
            if known is None or known[:2] != (status.st_size, status.st_mtime_ns):
                with open(path, "rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                self._known[path] = known = (status.st_size, status.st_mtime_ns, digest)
        except OSError as error:
            raise DataError("no_file", f"cannot be read ({error.strerror}); check the store's root", path) from None
        return known[2]


def _names(hashes: _FileHashes, ref: AudioRef) -> list[str]:
    digest = hashes[ref.path]
    return [f"{digest}:{ref.start + start}:{length}" for start, length in pieces(ref.num_samples)]


def _to_stored(frames: NDArray[np.float32], dtype: FeatureDtype, path: str) -> NDArray[np.generic]:
    if not np.isfinite(frames).all():
        raise DataError("bad_features", "an encoder gave NaN or infinite frames; check its checkpoint", path)
    frames = np.ascontiguousarray(frames, dtype=np.float32)
    if dtype == "bfloat16":
        bits = frames.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to nearest, ties to even, as torch does
    with np.errstate(over="ignore"):
        stored = frames.astype(_STORED[dtype])
    if not np.isfinite(stored).all():
        raise DataError("bad_features", f"frames beyond the range of {dtype}; use dtype bfloat16", path)
    return stored


def _check_key(folder: Path, key: FeatureKey) -> None:
    """Raise what differs where the folder is missing or describes other features."""
    described = folder / "key.json"
    try:
        found = json.loads(described.read_text(encoding="utf-8")) if described.is_file() else None
    except ValueError:
        raise DataError("foreign_features", "is not readable; delete the folder", str(described)) from None
    if found is None:
        others = [
            json.loads(path.read_text("utf-8")) for path in sorted(folder.parent.glob(f"{key.expert}-*/key.json"))
        ]
        differences = "".join(f"; there are others, made with {_difference(other, key.record())}" for other in others)
        raise DataError("no_features", f"no cached {key.expert} features{differences}; {_CURE}", str(folder.parent))
    if found != key.record():
        message = f"these features were made with {_difference(found, key.record())}; delete the folder, {_CURE}"
        raise DataError("foreign_features", message, str(folder))


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    keys = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    return ", ".join(f"{name}={found.get(name)} (the run asks for {wanted.get(name)})" for name in keys)


def _read_index(path: Path) -> dict[str, tuple[int, int]]:
    if not path.exists():
        return {}
    index = {}
    for line in path.read_bytes().split(b"\n")[:-1]:  # what follows the last newline is nothing, or half a line
        name, start, count = json.loads(line)
        index[name] = (start, count)
    return index


def _cut_half_line(path: Path) -> None:
    if path.exists():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            path.write_bytes(content[: content.rfind(b"\n") + 1])

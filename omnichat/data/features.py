"""Frames of the frozen experts on disk: written once, then read from mapped memory. No torch needed.

`root/<expert>-<digest>/` holds `key.json` (what made the frames) and shards (`feature_shards.py`). A piece of audio is
named by the sha256 of its file's bytes and its place in it, so a file that moves keeps its features and a file that
changes loses them.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from omnichat.audio import file_bytes, pieces
from omnichat.data.feature_shards import (
    DIGEST_BYTES,
    SHARD_BYTES,
    SHARD_SECONDS,
    ShardIndex,
    ShardWriter,
    drop_unfinished,
)
from omnichat.dialogue import AudioRef, DataError

FeatureDtype = Literal["float16", "bfloat16", "float32"]
# numpy has no bfloat16; its bits are kept as uint16 and `omnichat.batch.pack` gives them back their type.
_STORED: dict[str, type[np.generic]] = {"float16": np.float16, "bfloat16": np.uint16, "float32": np.float32}
CODE_VERSION = 2  # raise it when an encoder's frames change
_CURE = "run python -m omnichat.training.precompute with this config"


@dataclass(frozen=True, slots=True)
class FeatureKey:
    """All that the frames of an expert depend on, besides the audio.

    Attributes:
        expert: its name.
        checkpoint_sha256: of its weights, which decide its width too.
        dtype: of the frames on disk.
        precision: what the expert computed in, `float32` or `bfloat16`; a cache stands in for live frames of that.
        options: what else it was made with (Whisper's context, BEATs' layout).
        code_version: of the code that computes frames.
    """

    expert: str
    checkpoint_sha256: str
    dtype: FeatureDtype = "bfloat16"
    precision: str = "float32"
    options: Mapping[str, str] = field(default_factory=dict)
    code_version: int = CODE_VERSION

    def record(self) -> dict[str, Any]:
        """As `key.json` has it, where the width D is added as `dim`."""
        return asdict(self) | {"options": dict(sorted(self.options.items()))}

    def folder(self, root: Path | str) -> Path:
        """Where these features lie."""
        digest = hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()
        return Path(root) / f"{self.expert}-{digest[:16]}"

    @property
    def stored(self) -> np.dtype[np.generic]:
        """What the frames are in the shards."""
        return np.dtype(_STORED[self.dtype])


class PieceDigests:
    """The name of each 30 s piece of a stretch of audio: a digest of its file's sha256, channel, start and length.

    The sha256 of a file is taken again only when its size or time of change differ. That of audio inside a store's
    shard is the one its reference states.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[int, int, str]] = {}

    def __call__(self, ref: AudioRef) -> list[bytes]:
        """A digest of 16 bytes for each piece.

        Raises:
            DataError: `no_file` or `truncated` where the audio has to be read and cannot be; `too_short`.
        """
        sha256 = ref.sha256 if ref.size and ref.sha256 else self._sha256(ref)
        channel = "all" if ref.channel is None else ref.channel
        return [
            hashlib.blake2b(
                f"{sha256}:{channel}:{ref.start + start}:{length}".encode(), digest_size=DIGEST_BYTES
            ).digest()
            for start, length in pieces(ref.num_samples)
        ]

    def _sha256(self, ref: AudioRef) -> str:
        try:
            status = os.stat(ref.path)
            known = self._known.get((ref.path, ref.offset))
            if known is None or known[:2] != (status.st_size, status.st_mtime_ns):
                if ref.size:
                    digest = hashlib.sha256(file_bytes(ref)).hexdigest()
                else:
                    with open(ref.path, "rb") as file:
                        digest = hashlib.file_digest(file, "sha256").hexdigest()
                known = self._known[ref.path, ref.offset] = (status.st_size, status.st_mtime_ns, digest)
        except OSError as error:
            message = f"cannot be read ({error.strerror}); check the store's root"
            raise DataError("no_file", message, ref.path) from None
        return known[2]


class FeatureWriter:
    """Adds the frames of one expert to its folder, in shards of this process alone.

    Finished shards are gone on from, those of a killed writer are dropped (`dropped` counts them).

    Raises:
        DataError: `foreign_features` where the folder holds something else, or another width `dim`.
    """

    def __init__(
        self,
        root: Path | str,
        key: FeatureKey,
        dim: int,
        shard_bytes: int = SHARD_BYTES,
        shard_seconds: float = SHARD_SECONDS,
    ) -> None:
        self.key, self.dim = key, dim
        folder = key.folder(root)
        folder.mkdir(parents=True, exist_ok=True)
        described = folder / "key.json"
        if not described.exists():
            partial = folder / f".key.{os.getpid()}.partial"
            partial.write_text(json.dumps(key.record() | {"dim": dim}, indent=2) + "\n", encoding="utf-8")
            os.replace(partial, described)
        if (there := _checked_dim(folder, key)) != dim:
            message = f"these features are {there} wide, the encoder gives {dim}; delete the folder, {_CURE}"
            raise DataError("foreign_features", message, str(folder))
        self.dropped = len(drop_unfinished(folder))
        self._index = ShardIndex(folder, dim * key.stored.itemsize)
        self._added: set[bytes] = set()
        self._shards = ShardWriter(folder, dim, key.stored, shard_bytes, shard_seconds)

    def has(self, digest: bytes) -> bool:
        """Whether a piece is there, or was added by this writer."""
        return digest in self._added or self._index.find(digest) is not None

    def add(self, digest: bytes, frames: NDArray[np.float32], where: str) -> None:
        """Add the frames (N, D) of a piece of the audio file `where`; nothing where they are there.

        Raises:
            DataError: `bad_features` for a wrong shape, or numbers the dtype cannot hold; `disk_full`.
        """
        if self.has(digest):
            return
        if frames.ndim != 2 or frames.shape[1] != self.dim:
            raise DataError("bad_features", f"frames of shape {frames.shape}, expected (N, {self.dim})", where)
        self._shards.add(digest, _to_stored(frames, self.key.dtype, where))
        self._added.add(digest)

    def close(self) -> None:
        """Finish the shard; every piece added is readable.

        Raises:
            DataError: `disk_full`.
        """
        self._shards.close()

    def __enter__(self) -> "FeatureWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FeatureReader:
    """Reads the frames of all experts of a run.

    Raises:
        DataError: `no_features`, or `foreign_features` with how the features that are there differ;
            `damaged_features`, `truncated_features`.
    """

    def __init__(self, root: Path | str, keys: Sequence[FeatureKey]) -> None:
        self._experts = {key.expert: _Expert(Path(root), key) for key in keys}
        self._digests = PieceDigests()

    @property
    def widths(self) -> dict[str, int]:
        """D of each expert."""
        return {name: expert.dim for name, expert in self._experts.items()}

    def has(self, ref: AudioRef) -> bool:
        """Whether every piece of this stretch of audio is there for every expert."""
        return bool(self.contains(self._digests(ref)).all())

    def contains(self, digests: Sequence[bytes]) -> NDArray[np.bool_]:
        """(P,) bool, whether each of P pieces is there for every expert."""
        there = [expert.index.contains(digests) for expert in self._experts.values()]
        return np.logical_and.reduce(there)

    def read(self, ref: AudioRef) -> tuple[dict[str, NDArray[np.generic]], ...]:
        """For each 30 s piece the frames (N, D) of each expert, mapped and read-only; uint16 holds bits of bfloat16.

        Raises:
            DataError: `no_features` for audio that is not there, or has changed since.
        """
        return tuple(
            {expert: part.frames(digest, ref) for expert, part in self._experts.items()}
            for digest in self._digests(ref)
        )


class _Expert:
    """One expert's folder. Shards are mapped when first read: all processes that read them share their pages."""

    def __init__(self, root: Path, key: FeatureKey) -> None:
        self.key = key
        self.folder = key.folder(root)
        self.dim = _checked_dim(self.folder, key)
        self.index = ShardIndex(self.folder, self.dim * key.stored.itemsize)
        self._maps: dict[int, NDArray[np.generic]] = {}

    def frames(self, digest: bytes, ref: AudioRef) -> NDArray[np.generic]:
        place = self.index.find(digest)
        if place is None:
            message = f"no cached {self.key.expert} features of samples from {ref.start}, or the file changed; {_CURE}"
            raise DataError("no_features", message, ref.path)
        shard, start, count = place
        if shard not in self._maps:
            self._maps[shard] = self._map(self.index.files[shard])
        return self._maps[shard][start : start + count]

    def _map(self, path: Path) -> NDArray[np.generic]:
        if not path.stat().st_size:  # clips too short for a frame of this expert; no bytes cannot be mapped
            return np.zeros((0, self.dim), dtype=self.key.stored)
        # Arrow's map outlives its file; Python's own would keep one open for each shard, and a process may have 1,024.
        with pa.memory_map(str(path)) as file:
            return np.frombuffer(file.read_buffer(), dtype=self.key.stored).reshape(-1, self.dim)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}}  # a map does not survive pickling for a data worker


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


def _checked_dim(folder: Path, key: FeatureKey) -> int:
    """D of the features in a folder; raises what differs where it is missing or describes other features."""
    described = folder / "key.json"
    if not described.is_file():
        others = map(_description, sorted(folder.parent.glob(f"{key.expert}-*/key.json")))
        differences = "".join(f"; there are others, made with {_difference(other, key.record())}" for other in others)
        raise DataError("no_features", f"no cached {key.expert} features{differences}; {_CURE}", str(folder.parent))
    found = _description(described)
    dim = found.pop("dim", None)
    if not isinstance(dim, int):
        raise DataError("foreign_features", f"is not readable; delete the folder, {_CURE}", str(described))
    if found != key.record():
        message = f"these features were made with {_difference(found, key.record())}; delete the folder, {_CURE}"
        raise DataError("foreign_features", message, str(folder))
    return dim


def _description(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    keys = sorted(name for name in wanted if found.get(name) != wanted[name])
    return ", ".join(f"{name}={found.get(name)} (the run asks for {wanted[name]})" for name in keys)

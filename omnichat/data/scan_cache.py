"""Scans kept beside their store, so that a run starts in seconds: keyed by all that a scan depends on."""

import hashlib
import json
import os
import re
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import tokenizers
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from omnichat.data.first_places import FirstPlaces
from omnichat.data.overlong import Overlong
from omnichat.data.scan import Scan, scan
from omnichat.data.store import Store
from omnichat.dialogue import DataError, Dialogue
from omnichat.prompt import Prompt

FOLDER = ".scans"
# Sources that are part of the key: with other code, a scan may find something else. More than needed, so that a module
# that is taken out of another one is not forgotten.
_HERE = Path(__file__).parent
_CODE = [
    *(_HERE.parent / f"{name}.py" for name in ("audio", "chat_format", "prompt")),
    *sorted([*(_HERE.parent / "dialogue").glob("*.py"), *_HERE.glob("*.py")]),
]


def cached_scan(store: Store, prompt: Prompt, overlong: Overlong = "error") -> Scan:
    """`scan`, or what it found last time if nothing that it depends on has changed since.

    Those are the store (JSONL by its bytes, shards by sha256, size and time of change), the audio files beside it (by
    size and time of change), the prompt with its tokenizer, the policy, and this code. A scan with faults is not kept,
    and neither is any where the store's folder cannot be written to.
    """
    try:
        asked, key = _key(store, prompt, overlong)
    except OSError:  # sources or shards that cannot be read: let the scan say so
        return scan(store, prompt, overlong)
    # One file for each prompt and policy: the next scan of a store that changed takes the place of the last.
    name = f"{store.path.name}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.safetensors"
    path = store.path.parent / FOLDER / name
    found = _read(path, store, key)
    if found is None:
        watched = _Watched(store)
        found = replace(scan(watched, prompt, overlong), store=store)
        if not found.faults:
            _write(path, found, key, watched.files if prompt.input != "text" else _Files(store.path.parent))
    return found


class _Files:
    """Audio files beside a store: their names, and a digest of these with size and time of change of each.

    Not an object for each, of which there may be millions.

    Args:
        root: folder that the names are below.
    """

    def __init__(self, root: Path) -> None:
        self.names = bytearray()  # one after the other, NUL before each
        self._root, self._digest, self._known = f"{root}{os.sep}", hashlib.sha256(), FirstPlaces()

    def note(self, path: str) -> None:
        """A file as it is now; once it is noted, it is not looked at again."""
        name = path.removeprefix(self._root)
        number = len(self._known)
        if self._known.first(name, number) == number:
            self.names += b"\0" + name.encode("utf-8", "surrogatepass")
            self.add(name)

    def add(self, name: str) -> None:
        """To the digest alone."""
        status = _status(os.path.join(self._root, name))
        self._digest.update(f"{name}\0{status}\0".encode("utf-8", "surrogatepass"))

    def state(self) -> str:
        """The digest of all."""
        return self._digest.hexdigest()


class _Watched(Store):
    """The same store, which notes the audio files beside it as they are just before the scan reads them."""

    def __init__(self, store: Store) -> None:
        self.path, self._rows, self.files = store.path, store._rows, _Files(store.path.parent)

    def __getitem__(self, row: int) -> Dialogue:
        dialogue = super().__getitem__(row)
        for turn in dialogue.turns:
            if turn.role == "user" and turn.audio is not None and not turn.audio.size:
                self.files.note(turn.audio.path)
        return dialogue


def _key(store: Store, prompt: Prompt, overlong: Overlong) -> tuple[str, str]:
    """What is asked for, and all that a scan depends on but the audio files beside the store, which only it knows."""
    options = {name: value for name, value in vars(prompt).items() if name[0] != "_" and name != "tokenizer"}
    code = hashlib.sha256(b"".join(path.read_bytes() for path in _CODE)).hexdigest()
    tokenizer = hashlib.sha256(prompt.tokenizer.to_str().encode()).hexdigest()
    asked = {"prompt": options, "tokenizer": tokenizer, "overlong": overlong}
    versions = {"omnichat": code, "tokenizers": tokenizers.__version__, "sndfile": soundfile.__libsndfile_version__}
    # Kept as a digest: the system prompt is the user's, who may not want it beside shared data.
    key = json.dumps({"asked": asked, "versions": versions, "store": store.state()})
    return json.dumps(asked), hashlib.sha256(key.encode()).hexdigest()


def _read(path: Path, store: Store, key: str) -> Scan | None:
    """The scan that was kept; nothing where there is none, or where it is of something else."""
    try:
        with safe_open(path, framework="np") as file:
            about, columns = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if about["key"] != key or about["sha256"] != _digest(columns, about["faults"]):
            return None
        files = _Files(store.path.parent)
        for name in re.finditer(rb"[^\0]+", columns.pop("audio").tobytes()):
            files.add(name[0].decode("utf-8", "surrogatepass"))
        if about["audio"] != files.state():
            return None
        faults: dict[str, Any] = {
            name: tuple(DataError(reason, message, f"{store.path}{where}") for reason, message, where in kept)
            for name, kept in json.loads(about["faults"]).items()
        }
        return Scan(store=store, **columns, **faults)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None  # no cache, half a cache, or that of another version


def _write(path: Path, found: Scan, key: str, files: _Files) -> None:
    values = {item.name: getattr(found, item.name) for item in fields(Scan) if item.name != "store"}
    columns = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    columns["audio"] = np.frombuffer(files.names, dtype=np.uint8)
    start = str(found.store.path)
    faults = json.dumps(
        {
            name: [(fault.reason, fault.message, fault.where.removeprefix(start)) for fault in value]
            for name, value in values.items()
            if name not in columns
        }
    )
    about = {"key": key, "sha256": _digest(columns, faults), "audio": files.state(), "faults": faults}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # ranks of a run write it at the same time
    with suppress(OSError):  # a folder that is read-only, or full: the next run scans again
        path.parent.mkdir(exist_ok=True)
        try:
            partial.write_bytes(save(columns, metadata=about))
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def _status(path: Path | str) -> tuple[int, int] | None:
    """Size and time of change; nothing where there is no such file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def _digest(columns: dict[str, NDArray[Any]], faults: str) -> str:
    digest = hashlib.sha256(faults.encode())
    for name, column in sorted(columns.items()):
        digest.update(f"{name} {column.dtype} {column.shape}".encode() + column.tobytes())
    return digest.hexdigest()

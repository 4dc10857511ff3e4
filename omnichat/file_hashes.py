"""sha256 of files, folders and weights. Standard library only.

What is `cached` is read anew as soon as a file's size or time of change is another one.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

# Of a model's folder: what it computes depends on, and nothing that is written anew at each download.
MODEL_FILES = (".json", ".yaml", ".safetensors", ".pt", ".bin", ".ckpt", ".jinja", ".txt", ".model")


def file_sha256(path: Path | str) -> str:
    """sha256 of a file, or of a folder's files and names in order, as it lies on the disk now.

    Raises:
        OSError: it cannot be read.
    """
    path, digest = Path(path), hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if path.is_dir():
            if not file.is_file():
                continue
            digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def cached_sha256(path: Path | str) -> str:
    """`file_sha256`, remembered: weights are many gigabytes, and one recording often holds all turns of a dialogue.

    Raises:
        OSError: it cannot be read.
    """
    path = Path(path)
    files = [file for file in sorted(path.rglob("*")) if file.is_file()] if path.is_dir() else [path]
    status = [(str(file), file.stat()) for file in files]
    return _sha256(path, tuple((name, found.st_size, found.st_mtime_ns) for name, found in status))


@lru_cache(maxsize=1_024)
def _sha256(path: Path, stamp: tuple[tuple[str, int, int], ...]) -> str:
    return file_sha256(path)


def weights_hash(path: Path) -> str:
    """A short cached hash of a checkpoint: of a file, or of the `MODEL_FILES` of a folder.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    for file in sorted(file for file in path.iterdir() if file.suffix in MODEL_FILES) if path.is_dir() else [path]:
        digest.update(f"{file.name if path.is_dir() else ''}\0".encode())
        digest.update(bytes.fromhex(cached_sha256(file)))
    return digest.hexdigest()[:16]

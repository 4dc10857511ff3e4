"""A full disk, without filling one; and what would be on a disk after the power went."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: the kernel refuses the write, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def durable_renames(*before: Path) -> Iterator[dict[Path, bool]]:
    """Every rename within must be of what is on the disk. Yields its target, and whether that is on the disk too.

    Content that only the page cache holds is lost with the power, while the rename may stay: a file under its right
    name that is empty. A kill, which leaves the page cache, does not show it.

    Args:
        before: files that must be on the disk before any rename, too.
    """
    renamed: dict[Path, bool] = {}
    flushed: dict[int, tuple[int, int]] = {}
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        flushed[status.st_ino] = status.st_size, status.st_mtime_ns
        for target in renamed:
            renamed[target] |= target.parent.stat().st_ino == status.st_ino

    def checked(move: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def call(source: Path, target: Path) -> None:
            for path in (source, *source.rglob("*"), *before):
                status = path.stat()
                there = flushed.get(status.st_ino) == (status.st_size, status.st_mtime_ns)
                assert there, f"{path} is renamed before it is on the disk"
            move(source, target)
            renamed[target] = False

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", checked(os.replace))
        patch.setattr(os, "rename", checked(os.rename))
        patch.setattr(os, "fsync", noted)
        yield renamed

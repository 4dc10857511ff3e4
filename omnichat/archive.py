"""Unpacking a downloaded archive (.tar, .tar.gz, .tar.bz2, .tar.xz, .zip) without trusting it.

A member is a plain file or a folder below the target, or the archive is refused whole: no absolute path, no `..`, no
link, no device, no name twice, no more bytes than the limits allow. Modes, owners and times are not taken over. An
archive without its end mark is refused too: Python's `tarfile` takes a broken header for the end, in silence.
"""

import errno
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from omnichat.dialogue import DataError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
_BLOCK = 2**20
_MAX_HEADER = 2**20  # bytes of an extended tar header: tarfile reads it whole, and paths are far shorter
_EXTENDED = {
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may grow to. Ours: above the largest corpora we read, below what fills a file server.

    Attributes:
        size: bytes of all files together.
        members: files and folders.
        ratio: bytes unpacked for each byte packed, counted from `free_size` on. Speech packs some 1.5 times, text 10
            times, a bomb 1,000 times and more.
        free_size: bytes that any archive may unpack to.
    """

    size: int = 4 * 2**40
    members: int = 20_000_000
    ratio: float = 100.0
    free_size: int = 64 * 2**20


def is_archive(path: Path) -> bool:
    """Whether a file is to be unpacked, by its name."""
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, folder: Path, limits: Limits = Limits(), advance: Callable[[int], None] | None = None) -> int:
    """Unpack into a folder that does not exist yet; it appears when it is whole. Returns the number of files.

    Args:
        archive: of one of `SUFFIXES`.
        folder: to be made.
        limits: of the archive.
        advance: is told the bytes written, as they are.

    Raises:
        DataError: `path_outside_root` (absolute, `..`), `bad_name`, `archive_link`, `archive_device`,
            `archive_duplicate`, `archive_too_large`, `archive_encrypted`, `unreadable` (broken or cut off), `disk`
            (full, or a name it does not take) or `folder_exists`; names the member. Nothing is left then.
    """
    if folder.exists():
        raise DataError("folder_exists", "exists; unpack into a new folder", str(folder))
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    target = _Target(partial, limits, archive.stat().st_size, advance or (lambda count: None))
    try:
        with _naming(archive):
            (_unpack_zip if archive.name.lower().endswith(".zip") else _unpack_tar)(archive, target)
            if not target.files:
                raise DataError("unreadable", "holds no file; download it again")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    os.replace(partial, folder)
    return target.files


@contextmanager
def _naming(archive: Path) -> Iterator[None]:
    """What is wrong with an archive, as a `DataError` that names it."""
    broken = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)
    try:
        yield
    except DataError as error:
        raise error.at(str(archive)) from None
    except OSError as error:
        # gzip and bz2 report broken data as OSError without a number; a broken directory leads before the start
        broken_data = error.errno in (None, errno.EINVAL)
        reason, cure = ("unreadable", "download it again") if broken_data else ("disk", "make room, or rename it")
        raise DataError(reason, f"cannot be unpacked ({error}); {cure}", str(archive)) from None
    except (*broken, ValueError, RuntimeError) as error:
        message = f"is broken or cut off ({type(error).__name__}: {error}); download it again"
        raise DataError("unreadable", message, str(archive)) from None


@dataclass
class _Target:
    """The folder that is filled, and what has been put into it."""

    root: Path
    limits: Limits
    packed: int
    advance: Callable[[int], None]
    files: int = 0
    written: int = 0
    members: int = 0
    seen: dict[str, bool] = field(default_factory=dict)  # path -> whether it is a folder

    def place(self, name: str, folder: bool) -> Path:
        """Where a member goes, once it is known to be harmless."""
        self.members += 1
        if self.members > self.limits.members:
            raise DataError("archive_too_large", f"has more than {self.limits.members:,} members", shown(name))
        path = _safe(name)
        parents = path.split("/")[:-1] if path else []
        for depth in range(1, len(parents) + 1):
            if not self.seen.setdefault("/".join(parents[:depth]), True):
                raise DataError("archive_duplicate", "lies in what another member says is a file", shown(name))
        if not path and not folder:
            raise DataError("bad_name", "is a file without a name", shown(name))
        if path in self.seen and not (folder and self.seen[path]):
            raise DataError("archive_duplicate", "is there twice; which one is meant cannot be known", shown(name))
        self.seen[path] = folder
        return self.root / path

    def folder(self, name: str) -> None:
        """Make a member that is a folder."""
        self.place(name, folder=True).mkdir(parents=True, exist_ok=True)

    def file(self, name: str, content: IO[bytes]) -> None:
        """Write a member that is a file."""
        path = self.place(name, folder=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as out:
            while block := content.read(_BLOCK):
                self.written += len(block)
                self._check_size(name)
                out.write(block)
                self.advance(len(block))
        self.files += 1

    def _check_size(self, name: str) -> None:
        allowed = min(self.limits.size, max(self.limits.free_size, int(self.limits.ratio * self.packed)))
        if self.written > allowed:
            message = (
                f"grows beyond {allowed:,} bytes from {self.packed:,}, as a bomb does; unpack it by hand if it is none"
            )
            raise DataError("archive_too_large", message, shown(name))


def shown(name: str) -> str:
    """A member's name as one printable line."""
    return f"member {name!r}" if len(name) <= 200 else f"member {name[:200]!r}..."


def _safe(name: str) -> str:
    """The path of a member below the target; empty for the target itself."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError("bad_name", "is not UTF-8; pack the corpus again", shown(name)) from None
    if not name or "\\" in name or any(ord(character) < 32 or ord(character) == 127 for character in name):
        message = "is empty or holds a backslash or control characters, which no two systems take alike"
        raise DataError("bad_name", message, shown(name))
    if name.startswith("/") or (len(name) > 1 and name[1] == ":" and name[0].isalpha()):
        raise DataError("path_outside_root", "is an absolute path; do not use this archive", shown(name))
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise DataError("path_outside_root", "leads out of the folder ('..'); do not use this archive", shown(name))
    return "/".join(parts)


class _StrictTarInfo(tarfile.TarInfo):
    """A header that must be sound: `tarfile` reads a broken one, or none at all, as the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_StrictTarInfo":
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error}, where a member or the end mark should be") from None
        if header.type in _EXTENDED and header.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {header.size:,} bytes")
        return header


def _unpack_tar(archive: Path, target: _Target) -> None:
    with tarfile.open(archive, "r:*", tarinfo=_StrictTarInfo) as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header, which grows without end
            if member.issym() or member.islnk():
                raise DataError("archive_link", "is a link; unpack by hand if you trust it", shown(member.name))
            if member.isdir():
                target.folder(member.name)
            elif member.isreg():
                content = tar.extractfile(member)
                assert content is not None, "a regular file has content"
                target.file(member.name, content)
            else:
                raise DataError("archive_device", "is neither a file nor a folder", shown(member.name))
        assert tar.fileobj is not None, "an open archive has a file"
        while rest := tar.fileobj.read(_BLOCK):  # to the end, where gzip and its like keep their checksums
            if rest.strip(b"\0"):
                raise DataError("unreadable", "goes on after its end mark, where nothing would be read; pack it again")


def _unpack_zip(archive: Path, target: _Target) -> None:
    with zipfile.ZipFile(archive) as packed:
        counted = _zip_members(archive)
        if counted is not None and counted % 2**16 != len(packed.infolist()) % 2**16:  # old tools count to 65,535
            message = f"lists {len(packed.infolist())} members, its end mark counts {counted}; download it again"
            raise DataError("unreadable", message)
        for member in packed.infolist():
            name = member.orig_filename  # as it stands there; `filename` ends at a zero
            kind = stat.S_IFMT(member.external_attr >> 16) if member.create_system == 3 else 0
            if stat.S_ISLNK(kind):
                raise DataError("archive_link", "is a link; unpack by hand if you trust it", shown(name))
            if kind and not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
                raise DataError("archive_device", "is neither a file nor a folder", shown(name))
            if member.flag_bits & 0x1:
                raise DataError("archive_encrypted", "is encrypted; unpack it with its password first", shown(name))
            if name.endswith("/"):
                target.folder(name)
                continue
            with packed.open(member) as content:
                target.file(name, content)


def _zip_members(archive: Path) -> int | None:
    """Members by the end mark of a zip (APPNOTE.TXT 4.3.14, 4.3.16), which `zipfile` does not compare with its list."""
    with archive.open("rb") as file:
        file.seek(max(0, archive.stat().st_size - 2**17))  # the mark, and a comment of up to 64 KiB
        tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    count = int.from_bytes(tail[end + 10 : end + 12], "little")
    if count < 2**16 - 1:
        return count
    long = tail.rfind(b"PK\x06\x06", 0, end)
    return int.from_bytes(tail[long + 32 : long + 40], "little") if long >= 0 else None

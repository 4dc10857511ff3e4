"""Unpacking archives that nobody checked: each hostile one is refused whole, with nothing written outside or left."""

import gzip
import io
import random
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from omnichat.archive import Limits, is_archive, unpack
from omnichat.dialogue import DataError


def tar(path: Path, *members: tuple[str, bytes, dict[str, object]], mode: str = "w") -> Path:
    """An archive of members (name, content, fields of the header)."""
    with tarfile.open(path, mode) as out:  # type: ignore[call-overload]
        for name, content, fields in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            out.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, *members: tuple[str, bytes, int]) -> Path:
    """An archive of members (name, content, Unix mode)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(info, content)
    return path


def one(name: str, **fields: object) -> Callable[[Path], Path]:
    return lambda folder: tar(folder / "x.tar", ("ok.txt", b"ok", {}), (name, b"x", fields))


def one_zip(name: str, mode: int = 0o100644) -> Callable[[Path], Path]:
    return lambda folder: zipped(folder / "x.zip", ("ok.txt", b"ok", 0o100644), (name, b"x", mode))


def twice_zip(folder: Path) -> Path:
    with pytest.warns(UserWarning, match="Duplicate"):
        return zipped(folder / "x.zip", ("a", b"1", 0o100644), ("a", b"2", 0o100644))


def cut(make: Callable[[Path], Path], share: float) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        path = make(folder)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        return path

    return made


def large(name: str) -> Callable[[Path], Path]:
    noise = random.Random(0).randbytes(50_000)
    if name.endswith(".zip"):
        return lambda folder: zipped(folder / name, ("a", noise, 0o100644), ("b", noise, 0o100644))
    mode = "w:gz" if name.endswith("gz") else "w"
    return lambda folder: tar(folder / name, ("a", noise, {}), ("b", noise, {}), mode=mode)


def without_end_mark(folder: Path) -> Path:
    path = tar(folder / "x.tar", ("a", b"1", {}), ("b", b"2", {}))
    path.write_bytes(path.read_bytes()[: 4 * 512])  # two headers, two blocks of content
    return path


def broken_header(folder: Path) -> Path:
    path = tar(folder / "x.tar", ("a", b"1", {}), ("b", b"2", {}))
    content = bytearray(path.read_bytes())
    content[1024 + 148] ^= 1  # the second header's checksum
    path.write_bytes(content)
    return path


def zero_in_a_name(folder: Path) -> Path:
    path = one_zip("a.wav_.txt")(folder)
    path.write_bytes(path.read_bytes().replace(b"a.wav_.txt", b"a.wav\0.txt"))
    return path


def two_in_one(folder: Path) -> Path:
    path, other = tar(folder / "x.tar", ("a", b"1", {})), tar(folder / "y.tar", ("b", b"1", {}))
    path.write_bytes(path.read_bytes()[:1536] + other.read_bytes())  # one zero block between them
    return path


def endless_name(folder: Path) -> Path:
    """A long-name header that claims two gigabytes of name, from a few kilobytes."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2 * 2**30
    with gzip.open(folder / "x.tar.gz", "wb") as out:
        out.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(4):
            out.write(bytes(2**20))
    return folder / "x.tar.gz"


def encrypted(folder: Path) -> Path:
    path = one_zip("a.wav")(folder)
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.rindex(mark) + offset
        content[at : at + 2] = struct.pack("<H", 1)
    path.write_bytes(content)
    return path


def wrong_checksum(folder: Path) -> Path:
    path = folder / "x.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("a", b"hello")
    path.write_bytes(path.read_bytes().replace(b"hello", b"hullo"))
    return path


def lost_member(folder: Path) -> Path:
    """The directory of a zip is one entry shorter than its end mark says."""
    path = zipped(folder / "x.zip", ("a", b"1", 0o100644), ("b", b"2", 0o100644))
    content = bytearray(path.read_bytes())
    end, last = content.rindex(b"PK\x05\x06"), content.rindex(b"PK\x01\x02")
    size = struct.unpack_from("<I", content, end + 12)[0] - (end - last)
    content[end + 12 : end + 16] = struct.pack("<I", size)
    path.write_bytes(content[:last] + content[end:])
    return path


def wrong_sum_of_gzip(folder: Path) -> Path:
    path = tar(folder / "x.tar.gz", ("a", b"1", {}), mode="w:gz")
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    return path


def lying_size(folder: Path) -> Path:
    """The directory says one byte, the data unpack to a megabyte."""
    path = zipped(folder / "x.zip", ("a", bytes(2**20), 0o100644))
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02") + 24
    content[at : at + 4] = struct.pack("<I", 1)
    path.write_bytes(content)
    return path


def bomb(name: str) -> Callable[[Path], Path]:
    zeros = bytes(80 * 2**20)
    if name.endswith(".zip"):
        return lambda folder: zipped(folder / name, ("a.wav", zeros, 0o100644))
    return lambda folder: tar(folder / name, ("a.wav", zeros, {}), mode="w:gz")


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "parent": (one("../evil"), "path_outside_root"),
    "parent inside": (one("a/../../evil"), "path_outside_root"),
    "parent that comes back": (one("a/../b"), "path_outside_root"),
    "absolute": (one("/tmp/evil"), "path_outside_root"),
    "drive letter": (one_zip("C:/evil"), "path_outside_root"),
    "parent in a zip": (one_zip("../evil"), "path_outside_root"),
    "absolute in a zip": (one_zip("/tmp/evil"), "path_outside_root"),
    "backslashes": (one_zip("..\\evil"), "bad_name"),
    "line break in a name": (one("a\nb"), "bad_name"),
    "zero in a name": (zero_in_a_name, "bad_name"),
    "a file without a name": (one("."), "bad_name"),
    "symbolic link out": (one("a", type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0), "archive_link"),
    "symbolic link inside": (one("a", type=tarfile.SYMTYPE, linkname="ok.txt", size=0), "archive_link"),
    "hard link out": (one("a", type=tarfile.LNKTYPE, linkname="../../etc/passwd", size=0), "archive_link"),
    "symbolic link in a zip": (one_zip("a", 0o120777), "archive_link"),
    "character device": (one("a", type=tarfile.CHRTYPE, size=0), "archive_device"),
    "block device": (one("a", type=tarfile.BLKTYPE, size=0), "archive_device"),
    "pipe": (one("a", type=tarfile.FIFOTYPE, size=0), "archive_device"),
    "device in a zip": (one_zip("a", 0o020644), "archive_device"),
    "the same name twice": (one("ok.txt"), "archive_duplicate"),
    "the same place twice": (one(".//ok.txt"), "archive_duplicate"),
    "twice in a zip": (twice_zip, "archive_duplicate"),
    "a file that is also a folder": (one("ok.txt/a"), "archive_duplicate"),
    "a folder that is also a file": (one("ok.txt", type=tarfile.DIRTYPE, size=0), "archive_duplicate"),
    "bomb": (bomb("x.tar.gz"), "archive_too_large"),
    "bomb in a zip": (bomb("x.zip"), "archive_too_large"),
    "size that lies": (lying_size, "unreadable"),
    "name of two gigabytes": (endless_name, "unreadable"),
    "name longer than a disk takes": (one("a" * 5_000), "disk"),
    "encrypted": (encrypted, "archive_encrypted"),
    "cut tar": (cut(large("x.tar"), 0.7), "unreadable"),
    "cut tar.gz": (cut(large("x.tar.gz"), 0.7), "unreadable"),
    "cut zip": (cut(large("x.zip"), 0.7), "unreadable"),
    "without its end mark": (without_end_mark, "unreadable"),
    "broken header in the middle": (broken_header, "unreadable"),
    "more after the end mark": (two_in_one, "unreadable"),
    "wrong checksum": (wrong_checksum, "unreadable"),
    "wrong checksum after the end mark": (wrong_sum_of_gzip, "unreadable"),
    "shorter directory than counted": (lost_member, "unreadable"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_whole(kind: str, tmp_path: Path) -> None:
    """A corpus is downloaded from strangers: it must not write outside its folder, fill the disk or lose members."""
    make, reason = HOSTILE[kind]
    (tmp_path / "in").mkdir()
    archive = make(tmp_path / "in")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError) as caught:
        unpack(archive, tmp_path / "out")
    assert caught.value.reason == reason
    assert str(caught.value).startswith(str(archive))
    assert kind != "name of two gigabytes" or "a header of 2,147,483,648 bytes" in str(caught.value)  # and is not read
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", bytes(2_000)], ids=["empty", "a page", "zeros"])
@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tar.xz", "x.tar.bz2", "x.zip"])
def test_what_is_no_archive_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    """A download page saved under the archive's name is the commonest broken download."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"\[unreadable\]"):
        unpack(tmp_path / name, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("limits", [Limits(members=1), Limits(size=3), Limits(ratio=0, free_size=3)])
def test_limits_hold_to_the_byte(limits: Limits, tmp_path: Path) -> None:
    """Two members of two bytes: one member too many, or one byte."""
    archive = tar(tmp_path / "x.tar", ("a", b"12", {}), ("b", b"34", {}))
    with pytest.raises(DataError, match=r"\[archive_too_large\]"):
        unpack(archive, tmp_path / "out", limits)
    assert unpack(archive, tmp_path / "out", Limits(members=2, size=4)) == 2
    assert unpack(archive, tmp_path / "more", Limits(free_size=3)) == 2  # beyond it the ratio counts


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz", "x.zip", "x.ZIP"])
def test_a_sound_archive_keeps_every_byte(name: str, tmp_path: Path) -> None:
    """Nested, empty and non-ASCII members, a bare top folder, set-uid bits that must not be taken over."""
    files = {"c/data/1.wav": bytes(range(256)), "c/leer": b"", "c/gespräch/你好.txt": "hé".encode()}
    if name.lower().endswith("zip"):
        members = [(key, value, 0o104755) for key, value in files.items()]
        archive = zipped(tmp_path / name, ("c/", b"", 0o040755), *members)
    else:
        mode = "w:" + {"gz": "gz", "tgz": "gz", "bz2": "bz2", "xz": "xz"}.get(name.rpartition(".")[2], "")
        folder = ("./", b"", {"type": tarfile.DIRTYPE})
        members_of = [(key, value, {"mode": 0o4755}) for key, value in files.items()]
        archive = tar(tmp_path / name, folder, ("c", b"", {"type": tarfile.DIRTYPE}), *members_of, mode=mode)
    assert is_archive(archive)
    counts: list[int] = []
    assert unpack(archive, tmp_path / "out", advance=counts.append) == 3
    found = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*")}
    assert {key: path.read_bytes() for key, path in found.items() if path.is_file()} == files
    assert not any(path.stat().st_mode & 0o7111 for path in found.values() if path.is_file())
    assert sum(counts) == sum(map(len, files.values()))


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    """Unpacking over what is there would mix two corpora."""
    archive = tar(tmp_path / "x.tar", ("a", b"1", {}))
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"\[folder_exists\]"):
        unpack(archive, tmp_path / "out")
    assert not is_archive(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip"])
def test_damage_is_noticed_wherever_it_is(name: str, tmp_path: Path) -> None:
    """300 archives with a few bytes changed, lost or added: the same files come out, or one named error and none."""
    files = {"a/1.txt": b"hello " * 50, "a/b/2.txt": bytes(range(256)) * 3, "c.txt": b"x"}
    (tmp_path / "in").mkdir()
    if name.endswith("zip"):
        archive = zipped(tmp_path / "in" / name, *((key, value, 0o100644) for key, value in files.items()))
    else:
        archive = tar(tmp_path / "in" / name, *((key, value, {}) for key, value in files.items()), mode="w:gz")
    sound, draw, refused = archive.read_bytes(), random.Random(0), 0
    for _ in range(300):
        content = bytearray(sound)
        for _ in range(draw.choice([1, 1, 3])):
            at, kind = draw.randrange(len(content)), draw.random()
            content[at : at + (1 if kind < 0.6 else 20 if kind < 0.8 else 0)] = draw.randbytes(1 if kind < 0.6 else 0)
        archive.write_bytes(content)
        try:
            unpack(archive, tmp_path / "out", Limits(size=10**6, members=100))
        except DataError:
            refused += 1
        else:
            out = tmp_path / "out"
            found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
            assert found == files
            shutil.rmtree(out)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    assert refused > 200

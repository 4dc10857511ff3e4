"""Shards: whole or not there, from any number of processes, found in no time."""

import errno
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from numpy.typing import NDArray

from omnichat.data import feature_shards
from omnichat.data.feature_shards import INDEX, ShardIndex, ShardWriter, drop_unfinished
from omnichat.dialogue import DataError
from tests.disk import durable_renames

F4 = np.dtype("<f4")
# A process that adds pieces of three rows, each filled with its number; `first` of them, then it is told to wait.
WRITING = """
import sys, numpy as np
from pathlib import Path
from omnichat.data.feature_shards import ShardWriter
folder, first, count, limit = Path(sys.argv[1]), *map(int, sys.argv[2:])
writer = ShardWriter(folder, 2, np.dtype("<f4"), limit)
for number in range(first, first + count):
    writer.add(number.to_bytes(16, "little"), np.full((3, 2), number, "<f4"))
    print(number, flush=True)
sys.stdin.readline()
writer.close()
"""


def name(number: int) -> bytes:
    return number.to_bytes(16, "little")


def rows(number: int) -> NDArray[np.float32]:
    return np.full((3, 2), number, F4)


def write(folder: Path, *numbers: int, limit: int = 1 << 20) -> None:
    """Shards with these pieces."""
    with ShardWriter(folder, 2, F4, limit) as writer:
        for number in numbers:
            writer.add(name(number), rows(number))


def read(folder: Path) -> dict[int, float]:
    """Every piece below 100 that a reader finds, and the one value its rows hold."""
    index, found = ShardIndex(folder, 8), {}
    for number in range(100):
        place = index.find(name(number))
        assert (place is not None) == bool(index.contains([name(number)])[0])
        if place is not None:
            shard, start, count = place
            stored = np.fromfile(index.files[shard], F4).reshape(-1, 2)[start : start + count]
            assert stored.shape == (3, 2)
            assert (stored == stored[0, 0]).all()
            found[number] = float(stored[0, 0])
    return found


def start_writer(folder: Path, first: int, count: int, limit: int = 1 << 20) -> subprocess.Popen[str]:
    """A writing process that has added its pieces, and waits."""
    command = [sys.executable, "-c", WRITING, str(folder), str(first), str(count), str(limit)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for number in range(first, first + count):
        assert process.stdout.readline() == f"{number}\n"
    return process


def test_an_index_names_only_what_is_on_the_disk(tmp_path: Path) -> None:
    """When the power goes, the kernel may keep a name and lose the rows: zeros would be trained on as frames."""
    with durable_renames(tmp_path / "00000.frames") as renamed:
        write(tmp_path, 1, 2)
    assert list(renamed) == [tmp_path / "00000.index.npy"]


def test_a_killed_writer_loses_its_unfinished_shard_alone(tmp_path: Path) -> None:
    """SIGKILL: finished shards stay, the half one is not read, and is dropped by the next writer."""
    killed = start_writer(tmp_path, 0, 5, limit=48)  # two pieces a shard: 0 1, 2 3, and 4 alone in a third
    killed.kill()
    killed.wait()
    assert read(tmp_path) == {number: number for number in range(4)}
    assert [path.name for path in drop_unfinished(tmp_path)] == ["00002.frames"]
    assert drop_unfinished(tmp_path) == []
    write(tmp_path, 4, 5)
    assert read(tmp_path) == {number: number for number in range(6)}


def test_two_processes_fill_one_folder(tmp_path: Path) -> None:
    """Neither writes into the other's shard, nor takes a shard that is still being written for a dead one's."""
    writers = [start_writer(tmp_path, 0, 3, limit=48), start_writer(tmp_path, 10, 3, limit=48)]
    assert drop_unfinished(tmp_path) == []
    assert read(tmp_path) == {number: number for number in (0, 1, 10, 11)}
    for writer in writers:
        writer.communicate("\n", timeout=60)
        assert writer.returncode == 0
    assert read(tmp_path) == {number: number for number in (0, 1, 2, 10, 11, 12)}
    assert len(list(tmp_path.glob("*.frames"))) == 4


def test_a_piece_that_two_processes_wrote_is_the_first_shards(tmp_path: Path) -> None:
    """Every reader of every rank must hear the same frames, whatever was written twice."""
    for value in (7, 8):
        with ShardWriter(tmp_path, 2, F4) as writer:
            for number in range(60):
                writer.add(name(number), rows(value))
    assert read(tmp_path) == dict.fromkeys(range(60), 7)


def test_a_cleaner_that_comes_between_takes_no_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process deletes a file that was made and is not locked yet: frames written into it would be nowhere."""
    lock, deleted = feature_shards._lock, list[Path]()

    def late(file: BinaryIO) -> bool:
        if not deleted:
            deleted.append(tmp_path / "00000.frames")
            deleted[0].unlink()
        return lock(file)

    monkeypatch.setattr(feature_shards, "_lock", late)
    write(tmp_path, 1, 2)
    assert len(deleted) == 1
    assert read(tmp_path) == {1: 1, 2: 2}


def test_a_shard_that_is_finished_while_a_cleaner_looks_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its writer lets the lock go once the index is there: what has an index is never dropped."""
    write(tmp_path, 1)
    index = tmp_path / "00000.index.npy"
    content = index.read_bytes()
    index.unlink()

    def finished(file: BinaryIO) -> bool:
        index.write_bytes(content)
        return True

    monkeypatch.setattr(feature_shards, "_lock", finished)
    assert drop_unfinished(tmp_path) == []
    assert read(tmp_path) == {1: 1}


def test_an_interrupted_piece_is_cut_off(tmp_path: Path) -> None:
    """Ctrl-C within a write: what was whole is finished on the way out, the rest would be read as frames of another."""

    def interrupted() -> None:
        with ShardWriter(tmp_path, 2, F4) as writer:
            writer.add(name(1), rows(1))
            assert writer._file is not None
            writer._file.write(b"half a piece")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read(tmp_path) == {1: 1}
    assert (tmp_path / "00000.frames").stat().st_size == 24


def test_a_full_disk_is_named_and_keeps_what_was_finished(tmp_path: Path) -> None:
    """No space: the error says where and what to do; a shard that is cut short must never be read."""
    write(tmp_path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
        with pytest.raises(DataError, match=r"00001.frames: no space is left.*\[disk_full\]"):
            write(tmp_path, *range(2, 4_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    drop_unfinished(tmp_path)
    assert read(tmp_path) == {1: 1}


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lustre mounted without flock refuses every lock: the search for a free number made empty files without end."""

    def refuse(file: object, kind: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    write(tmp_path, 1)
    monkeypatch.setattr(feature_shards.fcntl, "flock", refuse)
    with pytest.raises(DataError, match=r"00001\.frames: .*not be locked \(Function not implemented\).*\[no_file\]"):
        write(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.frames", "00000.index.npy"]
    (tmp_path / "00001.frames").touch()
    assert drop_unfinished(tmp_path) == []


def test_a_shard_is_finished_when_it_took_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow machine a shard would not be full for days, and all of it lost with the process."""
    now = 0.0
    monkeypatch.setattr(feature_shards.time, "monotonic", lambda: now)
    writer = ShardWriter(tmp_path, 2, F4, seconds=600)
    writer.add(name(1), rows(1))
    assert read(tmp_path) == {}
    now = 601.0
    writer.add(name(2), rows(2))
    assert read(tmp_path) == {1: 1, 2: 2}


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not an index"])
def test_a_damaged_index_is_named(content: bytes, tmp_path: Path) -> None:
    """A cut or foreign file in the folder ends in a line that says which, not in a traceback or another's frames."""
    write(tmp_path, 1)
    (tmp_path / "00000.index.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"00000.index.npy: cannot be read .*delete it.*\[damaged_features\]"):
        ShardIndex(tmp_path, 8)
    np.save(tmp_path / "00000.index.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"\[damaged_features\]"):
        ShardIndex(tmp_path, 8)


def test_200_000_pieces_open_at_once(tmp_path: Path) -> None:
    """At the start of every run and in every data worker: half a second at most, found exactly, no false finds."""
    random = np.random.default_rng(0)
    digests = random.integers(0, 2**63, (200_000, 2), dtype=np.uint64)
    digests[7] = digests[6]
    digests[7, 1] += np.uint64(1)  # the same first half
    for number, part in enumerate(np.split(digests, 4)):
        index = np.zeros(len(part), INDEX)
        index["high"], index["low"] = part.T
        index["start"], index["count"] = np.arange(len(part)), number + 1
        np.save(tmp_path / f"{number:05d}.index.npy", np.sort(index, order=("high", "low")))
    started = time.process_time()
    index = ShardIndex(tmp_path)
    took = time.process_time() - started
    assert took < 0.5, f"{took:.2f} s"
    assert len(index) == 200_000
    for place in (0, 6, 7, 199_999):
        assert index.find(digests[place].tobytes()) == (place // 50_000, place % 50_000, place // 50_000 + 1)
    assert index.contains([row.tobytes() for row in digests[:1000]]).all()
    absent = digests[:1000] + np.array([0, 2], np.uint64)
    assert not index.contains([row.tobytes() for row in absent]).any()
    assert index.find(absent[5].tobytes()) is None

"""Work that may be stopped at any moment."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile

from data_prep.resumable import Task, _Stop, bytes_bar, digest, run_tasks, stamp
from omnichat.dialogue import DataError

ROOT = Path(__file__).parents[2]


def work(number: int, log: Path) -> dict[str, Any]:
    """Writes down that it was done; 13 fails, 14 dies."""
    with log.open("a") as out:
        out.write(f"{number}\n")
    if number == 13:
        raise DataError("empty_file", "holds nothing", "part 13")
    if number == 14:
        os._exit(9)
    return {"twice": 2 * number}


def make(path: Path) -> dict[str, Any]:
    path.write_text("x")
    return {"size": 1}


def measure(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "depends": [stamp(path)]}


def fail(path: Path) -> dict[str, Any]:
    raise AssertionError("must not run")


class Interrupting(io.BytesIO):
    """A file during the reading of which Ctrl-C is pressed."""

    def readinto(self, buffer: Any) -> int:
        signal.raise_signal(signal.SIGINT)
        return super().readinto(buffer)


def decode(path: Path) -> dict[str, Any]:
    """As the readers do: libsndfile calls back into Python, where an exception is swallowed."""
    samples, _ = soundfile.read(Interrupting(path.read_bytes()))
    return {"samples": len(samples)}


def tasks(numbers: list[int], log: Path, key: str = "") -> list[Task]:
    return [Task(digest(number, key), (number, log)) for number in numbers]


@pytest.mark.parametrize("workers", [1, 2])
def test_results_keep_the_order_of_the_tasks_and_are_made_once(workers: int, tmp_path: Path) -> None:
    """An order that depends on the processes would give another store each time."""
    log = tmp_path / "log"
    numbers = list(range(5))
    for _ in range(2):
        results = list(run_tasks(tasks(numbers, log), work, tmp_path / "kept", workers, "working"))
        assert [result["twice"] for result in results] == [0, 2, 4, 6, 8]
    assert sorted(map(int, log.read_text().split())) == numbers


def test_a_kept_result_of_other_input_or_a_broken_one_is_made_again(tmp_path: Path) -> None:
    """Otherwise a changed setting, or half a file, would end up in the store."""
    log, kept = tmp_path / "log", tmp_path / "kept"
    list(run_tasks(tasks([1, 2, 3], log), work, kept, 1, "working"))
    (kept / "000001.json").write_text("{")
    (kept / ".000001.json.1.partial").touch()
    list(run_tasks(tasks([1, 2, 3], log), work, kept, 1, "working"))
    assert log.read_text().split() == ["1", "2", "3", "2"]
    assert sorted(path.name for path in kept.iterdir()) == ["000000.json", "000001.json", "000002.json"]


def test_a_result_whose_file_is_gone_is_made_again(tmp_path: Path) -> None:
    """The last step of a conversion moves files away: stopped within it, they must be there again."""
    made = tmp_path / "made"
    once = [Task("k", (made,), made)]
    for _ in range(2):
        assert list(run_tasks(once, make, tmp_path / "kept", 1, "working")) == [{"size": 1}]
        assert list(run_tasks(once, fail, tmp_path / "kept", 1, "working")) == [{"size": 1}]
        made.unlink()


def test_a_result_whose_source_has_changed_is_made_again(tmp_path: Path) -> None:
    """A recording replaced between a stop and the next run must not be stored under its old length."""
    path = tmp_path / "a.wav"
    path.write_text("x")
    task = [Task("k", (path,))]
    for content in ("x", "xyz"):
        path.write_text(content)
        os.utime(path, ns=(0, len(content)))
        made = list(run_tasks(task, measure, tmp_path / "kept", 1, "working"))
        assert [result["size"] for result in made] == [len(content)]
        assert list(run_tasks(task, fail, tmp_path / "kept", 1, "working")) == made


@pytest.mark.parametrize(("number", "reason"), [(13, "empty_file"), (14, "worker_killed")])
def test_a_failing_piece_stops_the_rest_with_its_message(number: int, reason: str, tmp_path: Path) -> None:
    """From another process as from this one; a killed process must not hang the others."""
    with pytest.raises(DataError) as caught:
        list(run_tasks(tasks([1, number, 2], tmp_path / "log"), work, tmp_path / "kept", 2, "working"))
    assert caught.value.reason == reason


def test_digests_tell_settings_apart_and_do_not_depend_on_the_run() -> None:
    """Sets are shown in an order of their own in each process: the same settings would look changed."""
    command = "from data_prep.resumable import digest; print(digest({'b': 1, 'a': frozenset('xyz')}, None, 'é'))"
    runs = [
        subprocess.run([sys.executable, "-c", command], cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed}, text=True,
                       capture_output=True, check=True).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert runs[0] == runs[1] != digest({"b": 1, "a": frozenset("xy")}, None, "é")


def test_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    """Orphans would go on writing into a folder that a new conversion has taken over."""
    script = tmp_path / "sleepers.py"
    script.write_text(
        "import time\nfrom pathlib import Path\nfrom data_prep.resumable import Task, _Stop, run_tasks\n"
        "def work(n):\n    Path(f'{n}.started').touch()\n    time.sleep(60)\n    return {}\n"
        "if __name__ == '__main__':\n"
        "    list(run_tasks([Task(str(n), (n,)) for n in range(2)], work, Path('kept'), 2, 'sleeping'))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, env=environment)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.started"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


def test_ctrl_c_within_a_decoder_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Swallowed there, it would neither stop the work nor leave the file readable: a sound recording was a reject."""
    soundfile.write(tmp_path / "a.wav", np.zeros(1_000), 16_000)
    monkeypatch.setattr(_Stop, "ask", lambda stop, number, frame: setattr(stop, "asked", True))
    both = [Task("a", (tmp_path / "a.wav",)), Task("b", (tmp_path / "a.wav",))]
    with pytest.raises(KeyboardInterrupt):
        list(run_tasks(both, decode, tmp_path / "kept", 1, "working"))
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["000000.json"]
    assert list(run_tasks(both[:1], fail, tmp_path / "kept", 1, "working")) == [{"samples": 1_000}]


def test_ctrl_c_twice_ends_at_once(tmp_path: Path) -> None:
    """A piece may take a minute; what is finished is kept in any case."""
    script = tmp_path / "sleeper.py"
    script.write_text(
        "import time\nfrom pathlib import Path\nfrom data_prep.resumable import Task, _Stop, run_tasks\n"
        "def work():\n    print('started', flush=True)\n    time.sleep(60)\n    return {}\n"
        "list(run_tasks([Task('k', ())], work, Path('kept'), 1, 'sleeping'))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "started\n"
    assert process.stderr.readline() == "sleeping: 1 pieces\n"
    process.send_signal(signal.SIGINT)
    assert "Ctrl-C again stops at once" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert "Traceback" not in process.communicate()[1]


def test_progress_off_a_terminal_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A bar redrawn a thousand times fills a log."""
    with bytes_bar("unpacking x.tar") as advance:
        for _ in range(1_000):
            advance(1)
    assert capsys.readouterr().err == "unpacking x.tar\n"

"""`python -m benchmarks.store`: how fast a large store opens, how fast its rows come, and what memory it takes.

A shard of made-up dialogues is written, copied until the store is large, and opened by a process of its own. Targets:
100,000 dialogues open in less than a second and add less than 200 MB of private memory to a process.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

ROWS = 1_000  # of a shard
TURNS = 8
SCANNED = 10_000  # dialogues
AUDIO_ROWS = 4_000  # rows whose audio is read too
TOKENIZER = "checkpoints/tiny/llama/tokenizer.json"
FIRST = "s0000-"  # how ids of the first shard begin
OPEN_SECONDS, PRIVATE_MB = 1.0, 200.0


@dataclass(frozen=True)
class Figures:
    """What one process measured.

    Opening is timed by the clock, all else in CPU seconds; memory is private memory (USS) beyond what the process had
    with numpy and soundfile imported. Scans are per 10,000 dialogues. The last two are what the `datasets` library
    takes: its row is the columns with the audio's bytes, unchecked; ours is a checked `Dialogue` and the bytes.
    """

    dialogues: int
    shards: int
    import_seconds: float
    open_seconds: float
    first_rows_seconds: float
    row_microseconds: float
    row_and_bytes_microseconds: float
    imported_mb: float
    opened_mb: float
    first_rows_mb: float
    random_rows_mb: float
    all_rows_mb: float
    scan_seconds: float
    cached_scan_seconds: float
    datasets_open_seconds: float
    datasets_row_and_bytes_microseconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the store, measure, print; 0 where both targets are met, 1 where one is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=__doc__)
    parser.add_argument("--dialogues", type=int, default=100_000, help=f"rounded up to {ROWS:,} (default: 100,000)")
    parser.add_argument("--measure", type=Path, metavar="SPLIT", help="measure this store instead of making one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    if options.measure is not None:
        print(json.dumps(asdict(measure(options.measure))))
        return 0
    with tempfile.TemporaryDirectory(prefix="omnichat-store-") as folder:
        split = make_store(Path(folder) / "store", options.dialogues)
        command = [sys.executable, "-m", "benchmarks.store", "--measure", str(split)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = Figures(**json.loads(done.stdout))
    for name, value in asdict(figures).items():
        print(f"{name:<28}{value:>12,.3f}" if isinstance(value, float) else f"{name:<28}{value:>12,}")
    worst = max(figures.opened_mb, figures.first_rows_mb, figures.random_rows_mb, figures.all_rows_mb)
    met = figures.open_seconds < OPEN_SECONDS and worst < PRIVATE_MB
    print(f"opens in < {OPEN_SECONDS:g} s and adds < {PRIVATE_MB:g} MB: {'met' if met else 'MISSED'}")
    print(f"load average {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(json.dumps(asdict(figures), indent=1) + "\n", encoding="utf-8")
    return 0 if met else 1


def make_store(folder: Path, count: int) -> Path:
    """A store of at least `count` dialogues of eight turns; the folder of its split."""
    from omnichat.audio import audio_ref
    from omnichat.data.info import Shard
    from omnichat.data.shards import finish_store, write_shard
    from omnichat.dialogue import Dialogue, Style, Turn

    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    words = [f"word{number}" for number in range(1_000)]
    clips = []
    for number in range(32):
        time_axis = np.arange(int(random.integers(3_200, 9_600))) / 16_000
        path = folder.parent / f"{number}.wav"
        soundfile.write(
            path, 0.3 * np.sin(2 * np.pi * 200 * time_axis) + random.normal(0, 0.01, len(time_axis)), 16_000
        )
        clips.append(audio_ref(path))

    def turn(place: int) -> Turn:
        text = " ".join(random.choice(words, size=15))
        if place % 2:
            return Turn("assistant", text, Style("female", "happy", "normal", "high"), meta={"label": "curious"})
        return Turn("user", text, Style(emotion="sad"), clips[int(random.integers(len(clips)))])

    dialogues = [
        Dialogue(f"{FIRST}{number}", tuple(map(turn, range(TURNS))), "made-up", {"scenario": "emotion", "voice": "f1"})
        for number in range(ROWS)
    ]
    first = write_shard(folder / ".first.arrow", dialogues)
    content = Path(first.file).read_bytes()

    def again(name: str, number: int) -> Shard:
        """The same dialogues under other ids of the same length."""
        path, other = folder / f".{name}-{number}.arrow", content.replace(FIRST.encode(), f"s{number:04}-".encode())
        path.write_bytes(other)
        return replace(first, file=str(path), sha256=hashlib.sha256(other).hexdigest())

    splits = {"train": -(-count // ROWS), "scanned": min(SCANNED, count) // ROWS}
    shards = {name: [again(name, number) for number in range(number_of)] for name, number_of in splits.items()}
    finish_store(folder, name="made-up", licence="CC0-1.0", source="benchmarks", splits=shards)
    return folder / "train"


def measure(split: Path) -> Figures:
    """Open the store in this process and read rows of it."""
    bare = private_mb()
    import_seconds = _seconds(lambda: __import__("omnichat.data.store"))
    imported = private_mb() - bare
    from omnichat.audio import file_bytes
    from omnichat.data.store import Store

    start = time.perf_counter()
    store = Store(split)
    open_seconds = time.perf_counter() - start
    opened = private_mb() - bare
    first_rows_seconds = _seconds(lambda: [store[row] for row in range(0, len(store), ROWS)])
    first = private_mb() - bare
    rows = np.random.default_rng(0).integers(len(store), size=20_000).tolist()
    row_seconds = _seconds(lambda: [store[row] and None for row in rows]) / len(rows)
    randomly = private_mb() - bare

    def read_audio() -> None:
        for row in rows[:AUDIO_ROWS]:
            for turn in store[row].turns:
                if turn.audio is not None:
                    file_bytes(turn.audio)

    audio_seconds = _seconds(read_audio) / AUDIO_ROWS
    _seconds(lambda: [store[row] and None for row in range(len(store))])
    all_rows = private_mb() - bare
    scans = scan_twice(split.parent / "scanned")
    peer = read_with_datasets(split, rows[:AUDIO_ROWS])
    return Figures(
        len(store),
        len(list(split.glob("*.arrow"))),
        import_seconds,
        open_seconds,
        first_rows_seconds,
        1e6 * row_seconds,
        1e6 * audio_seconds,
        imported,
        opened,
        first,
        randomly,
        all_rows,
        *scans,
        *peer,
    )


def read_with_datasets(split: Path, rows: Sequence[int]) -> tuple[float, float]:
    """Seconds that `datasets` takes to open the same store, and CPU microseconds of a row; 0 where it is not there."""
    try:
        import datasets
    except ImportError:
        return 0.0, 0.0
    datasets.disable_progress_bars()
    start = time.perf_counter()
    table = datasets.load_from_disk(str(split))
    seconds = time.perf_counter() - start
    return seconds, 1e6 * _seconds(lambda: [table[row] and None for row in rows]) / len(rows)


def scan_twice(split: Path) -> tuple[float, float]:
    """CPU seconds of a scan, and of the same from its cache; of 10,000 dialogues, with the tiny model's tokenizer."""
    from tokenizers import Tokenizer

    from omnichat.data.scan import raise_faults
    from omnichat.data.scan_cache import cached_scan
    from omnichat.data.store import Store
    from omnichat.prompt import Prompt

    prompt = Prompt(Tokenizer.from_file(TOKENIZER))
    cold = _seconds(lambda: raise_faults(cached_scan(Store(split), prompt).faults))
    cached = _seconds(lambda: raise_faults(cached_scan(Store(split), prompt).faults))
    each = SCANNED / len(Store(split))
    return cold * each, cached * each


def private_mb() -> float:
    """Memory that only this process holds (USS), in MB of 10^6 bytes."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1_024 / 1e6


def _seconds(run: Callable[[], object]) -> float:
    """CPU time of this process: other work on the machine counts little."""
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())

"""The scan's cache: the same as a scan, and never one of something else."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tokenizers
from tokenizers import Tokenizer

from omnichat.data import scan_cache
from omnichat.data.made_up import made_up_dialogues
from omnichat.data.scan import Scan, scan
from omnichat.data.scan_cache import cached_scan
from omnichat.data.shards import finish_store, write_shard
from omnichat.data.store import Store
from omnichat.dialogue import Dialogue
from omnichat.prompt import Prompt
from tests.conftest import make_tokenizer


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The stores that were scanned, as against read from the cache."""
    called: list[Path] = []

    def counted(store: Store, *arguments: object) -> Scan:
        called.append(store.path)
        return scan(store, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(scan_cache, "scan", counted)
    return called


def sharded(folder: Path, count: int = 5) -> Path:
    """The split of an Arrow store."""
    shard = write_shard(folder / ".0", made_up_dialogues(folder.parent / "made_up", count))
    finish_store(folder, name="x", licence="", source="", splits={"train": [shard]})
    return folder / "train"


def assert_same(found: Scan, expected: Scan) -> None:
    for field in fields(Scan):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(theirs, np.ndarray):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
        elif field.name != "store":
            assert [str(fault) for fault in ours] == [str(fault) for fault in theirs]


@pytest.mark.parametrize("arrow", [False, True])
def test_what_was_kept_is_what_a_scan_finds(
    made_up: Path, tmp_path: Path, tokenizer: Tokenizer, scans: list[Path], arrow: bool
) -> None:
    """Lengths of another store would balance ranks wrongly, and divide the loss by the wrong targets."""
    path = sharded(tmp_path / "store", 9) if arrow else made_up
    limit = int(np.sort(scan(Store(path), Prompt(tokenizer)).lengths)[-3])
    prompt = Prompt(tokenizer, max_tokens=limit)
    expected = scan(Store(path), prompt, "drop_dialogue")
    assert len(expected.dropped) > 0
    for count in (1, 1, 1):  # the first one scans
        found = cached_scan(Store(path), prompt, "drop_dialogue")
        assert_same(found, expected)
        assert type(found.store) is Store
        assert len(scans) == count


def rewritten(path: Path) -> None:
    path.write_text(path.read_text("utf-8").replace("lake", "sea"), "utf-8")


def longer_audio(path: Path) -> None:
    file = path.parent / "audio/train-0-0.wav"
    soundfile.write(file, np.concatenate([soundfile.read(file)[0], np.zeros(160)]), 16_000)


def other_audio(path: Path) -> None:
    file = path.parent / "audio/train-0-0.wav"
    soundfile.write(file, soundfile.read(file)[0][::-1], 16_000)


def longer_audio_as_old(path: Path) -> None:
    before = (path.parent / "audio/train-0-0.wav").stat().st_mtime_ns
    longer_audio(path)
    os.utime(path.parent / "audio/train-0-0.wav", ns=(0, before))


@pytest.mark.parametrize("change", [rewritten, longer_audio, longer_audio_as_old, other_audio])
def test_a_store_that_changed_is_scanned_again(
    made_up: Path, prompt: Prompt, scans: list[Path], change: Callable[[Path], None]
) -> None:
    """The lines, and every audio file: its header is part of what a scan reads."""
    cached_scan(Store(made_up), prompt)
    change(made_up)
    assert_same(cached_scan(Store(made_up), prompt), scan(Store(made_up), prompt))
    assert len(scans) == 2
    cached_scan(Store(made_up), prompt)
    assert len(scans) == 2


def test_audio_that_went_is_found(made_up: Path, prompt: Prompt, scans: list[Path]) -> None:
    """And a scan with faults is not kept: the mended store has other ones."""
    cached_scan(Store(made_up), prompt)
    file = made_up.parent / "audio/train-0-0.wav"
    file.rename(file.with_suffix(".gone"))
    for count in (2, 3):
        assert [fault.reason for fault in cached_scan(Store(made_up), prompt).faults] == ["no_file"]
        assert len(scans) == count
    file.with_suffix(".gone").rename(file)
    assert cached_scan(Store(made_up), prompt).faults == ()


def test_a_shard_that_changed_is_scanned_again(tmp_path: Path, prompt: Prompt, scans: list[Path]) -> None:
    """By another conversion, or behind the back of store.json."""
    split = sharded(tmp_path / "store")
    cached_scan(Store(split), prompt)
    sharded(tmp_path / "store", 4)
    assert len(cached_scan(Store(split), prompt).rows) == 4
    file = next(split.glob("*.arrow"))
    os.utime(file, ns=(0, 0))
    cached_scan(Store(split), prompt)
    assert len(scans) == 3


@pytest.mark.parametrize(
    "changed",
    [
        lambda: Prompt(make_tokenizer(), window=5),
        lambda: Prompt(make_tokenizer(), queries=2),
        lambda: Prompt(make_tokenizer(), input="text"),
        lambda: Prompt(make_tokenizer(), system="Listen."),
        lambda: Prompt(make_tokenizer(), loss_on_first=True),
        lambda: Prompt(make_tokenizer(), loss_on="last"),
        lambda: Prompt(make_tokenizer(), max_tokens=4_000),
        lambda: Prompt(make_tokenizer([*make_tokenizer().get_added_tokens_decoder().values(), "<|more|>"])),  # type: ignore[list-item]
    ],
)
def test_another_prompt_is_another_scan(
    made_up: Path, prompt: Prompt, scans: list[Path], changed: Callable[[], Prompt]
) -> None:
    """Each option, and the tokenizer, changes what a dialogue renders to. Both scans are kept."""
    cached_scan(Store(made_up), prompt)
    other = changed()
    for _ in range(2):
        assert_same(cached_scan(Store(made_up), other), scan(Store(made_up), other))
        cached_scan(Store(made_up), prompt)
    assert len(scans) == 2


def test_other_code_is_another_scan(
    made_up: Path, prompt: Prompt, scans: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found before a mistake was mended must not outlive it."""
    assert {
        Path(str(sys.modules[name].__file__)) for name in ("omnichat.prompt", Dialogue.__module__, scan.__module__)
    } <= set(scan_cache._CODE)
    cached_scan(Store(made_up), prompt)
    cached_scan(Store(made_up), prompt, "drop_dialogue")
    monkeypatch.setattr(scan_cache, "_CODE", [*scan_cache._CODE, Path(__file__)])
    cached_scan(Store(made_up), prompt)
    monkeypatch.setattr(tokenizers, "__version__", "0")
    cached_scan(Store(made_up), prompt)
    monkeypatch.setattr(soundfile, "__libsndfile_version__", "0")
    cached_scan(Store(made_up), prompt)
    assert len(scans) == 5


def test_audio_that_is_not_read_is_not_asked_for(made_up: Path, tokenizer: Tokenizer, scans: list[Path]) -> None:
    """The control reads the same store as text: a touched file, or one that is not there, is no reason to scan."""
    prompt = Prompt(tokenizer, input="text")
    cached_scan(Store(made_up), prompt)
    other_audio(made_up)
    cached_scan(Store(made_up), prompt)
    assert len(scans) == 1


def test_the_cache_moves_with_its_store(tmp_path: Path, tokenizer: Tokenizer, scans: list[Path]) -> None:
    """And names the dialogues that it leaves out where they are now."""
    split = sharded(tmp_path / "store", 9)
    prompt = Prompt(tokenizer, max_tokens=int(scan(Store(split), Prompt(tokenizer)).lengths.max()) - 1)
    cached_scan(Store(split), prompt, "drop_dialogue")
    shutil.move(split.parent, tmp_path / "moved")
    found = cached_scan(Store(tmp_path / "moved" / "train"), prompt, "drop_dialogue")
    assert len(scans) == 1
    assert_same(found, scan(Store(tmp_path / "moved" / "train"), prompt, "drop_dialogue"))


def test_no_place_for_a_cache_is_no_fault(made_up: Path, prompt: Prompt, scans: list[Path]) -> None:
    """A corpus on a read-only disk is trained on all the same."""
    (made_up.parent / scan_cache.FOLDER).write_text("in the way of the folder")
    for _ in range(2):
        assert len(cached_scan(Store(made_up), prompt).rows) == 9
    assert len(scans) == 2


def test_a_damaged_cache_is_no_cache(made_up: Path, prompt: Prompt, scans: list[Path]) -> None:
    """A flipped bit in a length would shift the balance of ranks, or the loss, for ever."""
    prompt = Prompt(prompt.tokenizer, max_tokens=int(np.sort(scan(Store(made_up), prompt).lengths)[-3]))
    cached_scan(Store(made_up), prompt, "drop_dialogue")
    [file] = (made_up.parent / scan_cache.FOLDER).iterdir()
    sound, expected = file.read_bytes(), scan(Store(made_up), prompt, "drop_dialogue")
    for place in [sound.index(b" tokens"), *np.linspace(0, len(sound) - 1, 40).astype(int)]:
        damaged = bytearray(sound)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        assert_same(cached_scan(Store(made_up), prompt, "drop_dialogue"), expected)
    for size in (0, 7, len(sound) // 2, len(sound) - 1):
        file.write_bytes(sound[:size])
        assert_same(cached_scan(Store(made_up), prompt, "drop_dialogue"), expected)
    assert len(scans) == 46

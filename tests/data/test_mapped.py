"""Damaged shards: named by file, never a crash, never a byte from outside the file."""

import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from omnichat.audio import load_audio
from omnichat.data.info import Shard, read_info
from omnichat.data.made_up import made_up_dialogues
from omnichat.data.mapped import MappedShard, verify_shard
from omnichat.data.shards import finish_store, write_shard
from omnichat.data.store import Store
from omnichat.dialogue import DataError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """A split of two shards, five dialogues and two."""
    dialogues = made_up_dialogues(tmp_path / "made_up", 7)
    folder = tmp_path / "store"
    shards = [write_shard(folder / f".{part.start}", dialogues[part]) for part in (slice(0, 5), slice(5, 7))]
    finish_store(folder, name="x", licence="", source="", splits={"train": shards})
    return folder / "train"


def facts(split: Path, number: int) -> tuple[Path, Shard]:
    """Path and description of a shard."""
    shard = read_info(split.parent).shards["train"][number]
    return split.parent / shard.file, shard


def test_a_sound_shard_passes(split: Path) -> None:
    """A check that cries wolf is switched off."""
    for number in (0, 1):
        verify_shard(*facts(split, number))


def test_a_cut_or_missing_shard_is_named_when_the_store_is_opened(split: Path) -> None:
    """The half of a download must come out before training, and every such file at once."""
    (cut, _), (gone, _) = facts(split, 0), facts(split, 1)
    cut.write_bytes(cut.read_bytes()[:-8])
    with pytest.raises(DataError, match=rf"{cut}: has .* bytes.*\[truncated\]"):
        Store(split)
    gone.unlink()
    with pytest.raises(DataError, match=rf"(?s){cut}: .*{gone}: no such shard"):
        Store(split)
    with pytest.raises(DataError, match=r"\[no_file\]"):
        verify_shard(*facts(split, 1))


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.9, 0.999])
def test_a_flipped_bit_is_found_by_the_whole_check(split: Path, share: float) -> None:
    """Wherever it lies, in a text, in the audio or in the padding, that Arrow would not mind."""
    path, shard = facts(split, 0)
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{path}: .*\[damaged\]"):
        verify_shard(path, shard)


def test_a_shard_that_another_program_wrote_is_refused(split: Path) -> None:
    """A sound file of something else must not be read as dialogues; neither must a shard with rows missing."""
    path, shard = facts(split, 1)
    other, _ = facts(split, 0)
    swapped = Shard(shard.file, shard.rows, other.stat().st_size, shard.sha256)
    shutil.copy(other, path)
    with pytest.raises(DataError, match=r"holds 5 dialogues, 2 were written.*\[damaged\]"):
        MappedShard(path, swapped, split.parent)
    path.write_text("not Arrow at all, but long enough to be read as some")
    with pytest.raises(DataError, match=rf"{path}: is not a sound Arrow stream.*\[damaged\]"):
        MappedShard(path, Shard(shard.file, 2, path.stat().st_size, ""), split.parent)


def test_a_store_of_before_turns_could_be_left_unlearnt_is_read_as_it_was(split: Path) -> None:
    """Converted corpora take hours to make; a key that they lack must not make them unreadable."""
    path, shard = facts(split, 1)
    before = [MappedShard(path, shard, split.parent)[row].turns for row in range(2)]
    waves = [[load_audio(turn.audio).tolist() for turn in turns if turn.audio is not None] for turns in before]
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        rows = stream.read_all().to_pylist()
    texts, notes = pa.string(), pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))
    style = pa.struct([(name, texts) for name in ("gender", "emotion", "speed", "pitch")])
    audio = pa.struct([("bytes", pa.binary()), ("path", texts)])
    counts = [(name, pa.int64()) for name in ("start", "num_samples", "channel")]
    turn = pa.struct(
        [
            ("role", texts),
            ("text", texts),
            ("style", style),
            ("audio", audio),
            *counts,
            ("sha256", texts),
            ("meta", notes),
        ]
    )
    schema = pa.schema([("id", texts), ("source", texts), ("scene", notes), ("turns", pa.list_(turn))])
    for row in rows:
        for one in row["turns"]:
            assert one.pop("learn") is True
    path.unlink()  # another file: the old one is still mapped
    with pa.ipc.new_stream(str(path), schema) as out:
        out.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
    old = MappedShard(path, Shard(shard.file, 2, path.stat().st_size, ""), split.parent)
    for row, (turns, heard) in enumerate(zip(before, waves, strict=True)):
        assert [replace(turn, audio=None) for turn in old[row].turns] == [replace(turn, audio=None) for turn in turns]
        assert [load_audio(turn.audio).tolist() for turn in old[row].turns if turn.audio is not None] == heard
        assert all(turn.learn for turn in old[row].turns)


COUNT = 1_000
FUZZ = """
import sys
from pathlib import Path
import numpy as np
from omnichat.audio import load_audio
from omnichat.data.info import Shard
from omnichat.data.mapped import MappedShard
from omnichat.dialogue import DataError

source, work, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
sound, rows = source.read_bytes(), 5
random, outcome = np.random.default_rng(int(sys.argv[4])), {"refused": 0, "row": 0, "audio": 0, "read": 0}
text = [place for place in range(len(sound) - 8) if sound[place : place + 4] in (b"user", b"assi")]
for number in range(count):
    content = bytearray(sound)
    kind = number % 5
    if kind == 0:
        del content[int(random.integers(len(content))):]
    elif kind == 1:  # anywhere: most is audio
        for place in random.integers(len(content), size=8):
            content[place] ^= 1 << int(random.integers(8))
    elif kind == 2:  # the messages' headers: schema, lengths, places of buffers
        for place in random.integers(4_000, size=3):
            content[place] = int(random.integers(256))
    elif kind == 3:  # roles, and before them the offsets of texts
        place = text[int(random.integers(len(text)))] - int(random.integers(512)) * int(random.integers(2))
        content[place : place + 2] = random.integers(128, size=2, dtype=np.uint8).tobytes()
    else:  # a block of zeros, as a disk leaves it
        place = int(random.integers(len(content)))
        content[place : place + 512] = bytes(len(content[place : place + 512]))
    path = work / f"{number}.arrow"
    path.write_bytes(content)
    try:  # blind: the description says that this is what was written
        shard = MappedShard(path, Shard(path.name, rows, len(content), ""), work)
    except DataError as error:
        assert str(path) in str(error)
        outcome["refused"] += 1
        path.unlink()
        continue
    for row in range(rows):
        try:
            dialogue = shard[row]
        except DataError:
            outcome["row"] += 1
            continue
        for turn in dialogue.turns:
            if turn.audio is not None:
                assert turn.audio.size == 0 or 0 <= turn.audio.offset <= len(content) - turn.audio.size
                try:
                    load_audio(turn.audio)
                    outcome["read"] += 1
                except DataError:
                    outcome["audio"] += 1
    path.unlink()
print(outcome)
"""


def test_a_thousand_damaged_shards_crash_no_process(split: Path, tmp_path: Path) -> None:
    """A segmentation fault in a data worker says nothing; an error says which file to copy again."""
    (tmp_path / "work").mkdir()
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        "-c",
        FUZZ,
        str(facts(split, 0)[0]),
        str(tmp_path / "work"),
        str(COUNT),
        "0",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.replace("'", '"'))
    assert min(outcome.values()) > 10, outcome  # every way to notice damage was taken


def read_rows(store: Store) -> list[str]:
    """For another process: ids, and the sha256 of what is heard."""
    rows = [store[row] for row in range(len(store))]
    heard = [load_audio(turn.audio) for row in rows for turn in row.turns if turn.audio is not None]
    return [row.id for row in rows] + [hashlib.sha256(wave.tobytes()).hexdigest() for wave in heard]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_store_in_use_goes_to_data_workers(split: Path, method: str) -> None:
    """A map cannot be pickled, and one that was made before a fork must still be good after it."""
    store = Store(split)
    expected = read_rows(store)
    assert read_rows(pickle.loads(pickle.dumps(store))) == expected
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply_async(read_rows, (store,)).get(timeout=60) == expected


def test_a_store_can_be_moved(split: Path, tmp_path: Path) -> None:
    """Corpora are made on one machine and used on another."""
    expected = read_rows(Store(split))
    shutil.rmtree(tmp_path / "made_up")
    os.rename(split.parent, tmp_path / "elsewhere")
    assert read_rows(Store(tmp_path / "elsewhere" / "train")) == expected


def test_a_wrong_path_says_what_there_is(split: Path, tmp_path: Path) -> None:
    """A store is a folder with splits: the name of the split is easily left out or mistaken."""
    with pytest.raises(DataError, match=r"is a whole store; name one of its splits: train"):
        Store(split.parent)
    (split.parent / "val").mkdir()
    with pytest.raises(DataError, match=r"val: is not a split of .*store.json; there are: train"):
        Store(split.parent / "val")
    with pytest.raises(DataError, match=r"no_file"):
        Store(tmp_path / "nowhere" / "train")
    description = split.parent / "store.json"
    known = '{"name": "x", "licence": "", "source": "", "splits": {}, '
    outside = known + '"shards": {"train": [{"file": "../x.arrow", "rows": 1, "bytes": 1, "sha256": ""}]}}'
    for text in ("[1]", known.replace("{}", '{"../x": 1}')[:-2] + "}", outside):
        description.write_text(text)
        with pytest.raises(DataError, match=r"store.json: is not a store description.*\[bad_json\]"):
            Store(split)


def test_audio_paths_of_a_shard_stay_in_the_store(tmp_path: Path) -> None:
    """A corpus from elsewhere must not make us read other files."""
    (tmp_path / "secret.wav").write_bytes(b"")
    dialogues = made_up_dialogues(tmp_path / "store" / "in", 1)
    shard = write_shard(tmp_path / "store/.a", dialogues, "reference", tmp_path / "store")
    content = Path(shard.file).read_bytes()
    assert content.count(b"in/audio/train-0-0.wav") == 1
    Path(shard.file).write_bytes(content.replace(b"in/audio/train-0-0.wav", b"../../././//secret.wav"))
    finish_store(tmp_path / "store", name="x", licence="", source="", splits={"train": [shard]})
    with pytest.raises(DataError, match=r"row 0: dialogue 'train-0': turn 0: .*\[path_outside_root\]"):
        Store(tmp_path / "store" / "train")[0]

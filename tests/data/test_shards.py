"""Arrow shards: what is written is what is read, by us and by `datasets`; and equal input gives equal bytes."""

import hashlib
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch

from omnichat.audio import load_audio
from omnichat.data.dataset import StoreDataset
from omnichat.data.info import read_info
from omnichat.data.lossless import cut_out
from omnichat.data.made_up import made_up_dialogues
from omnichat.data.module import StoreBatches, make_loader
from omnichat.data.shards import finish_store, write_shard
from omnichat.data.store import Store
from omnichat.dialogue import AudioRef, DataError, Dialogue, Style, Turn
from omnichat.prompt import Prompt
from tests.disk import durable_renames

NOTED = Dialogue(
    "noted/ü",
    (
        Turn("assistant", "Hello?", Style("female", None, "slow", None), meta={"emotion": "curious", "topic": ""}),
        Turn("user", "words only"),
        Turn("assistant", "not like this", learn=False),
        Turn("assistant", "yes", Style(emotion="sad")),
    ),
    "tests",
    {"scenario": "emotion", "": "empty name"},
)


def write(folder: Path, dialogues: list[Dialogue], per_shard: int = 4, audio: str = "flac") -> Path:
    """A store of one split in shards of a few dialogues; the folder of the split."""
    root = folder if audio == "reference" else None
    shards = [
        write_shard(folder / f".part-{start}.arrow", dialogues[start : start + per_shard], audio, root)  # type: ignore[arg-type]
        for start in range(0, len(dialogues), per_shard)
    ]
    finish_store(folder, name="x", licence="CC0-1.0", source="tests", splits={"train": shards})
    return folder / "train"


def without_audio(dialogue: Dialogue) -> Dialogue:
    return replace(dialogue, turns=tuple(replace(turn, audio=None) for turn in dialogue.turns))


@pytest.mark.parametrize("audio", ["flac", "bytes", "reference"])
def test_rows_are_the_dialogues_that_were_written(tmp_path: Path, audio: str) -> None:
    """A field that is lost on the way is lost for every experiment; a wave that changes, too."""
    dialogues = [*made_up_dialogues(tmp_path / "store", 9), NOTED]
    store = Store(write(tmp_path / "store", dialogues, audio=audio))
    assert len(store) == 10
    unread = len(pickle.dumps(store))
    for row in (9, 0, 3, 4, 8, 1):
        assert without_audio(store[row]) == without_audio(dialogues[row])
        for found, given in zip(store[row].turns, dialogues[row].turns, strict=True):
            assert (found.audio is None) == (given.audio is None)
            if found.audio is not None and given.audio is not None:
                np.testing.assert_array_equal(load_audio(found.audio), load_audio(given.audio))
    for row in (-1, 10):
        with pytest.raises(IndexError):
            store[row]
    assert without_audio(pickle.loads(pickle.dumps(store))[9]) == without_audio(NOTED)  # as a data worker gets it
    assert len(pickle.dumps(store)) == unread  # which maps the shards itself


def test_a_shard_has_its_name_once_it_is_on_the_disk(tmp_path: Path) -> None:
    """Parts of a conversion are gone on from by their names: an empty one after a power cut would lose dialogues."""
    with durable_renames() as renamed:
        write_shard(tmp_path / "part.arrow", [NOTED])
    assert list(renamed) == [tmp_path / "part.arrow"]


def test_a_shard_of_another_size_makes_no_store(tmp_path: Path) -> None:
    """Copied from many nodes, one may have broken off; a store that says it is whole must be."""
    shard = write_shard(tmp_path / "part.arrow", [NOTED] * 3)
    content = Path(shard.file).read_bytes()
    for other in (content[:-8], content + b"0"):
        Path(shard.file).write_bytes(other)
        with pytest.raises(DataError, match=r"part\.arrow: has .* were written.*\[truncated\]"):
            finish_store(tmp_path / "store", name="x", licence="", source="", splits={"train": [shard]})
    assert not (tmp_path / "store" / "store.json").exists()


def test_parts_without_a_dialogue_are_left_out(tmp_path: Path) -> None:
    """Where all dialogues of a part were refused, its file would be one more to copy, open and map."""
    empty, full = (write_shard(tmp_path / f"{len(rows)}.arrow", rows) for rows in ([], [NOTED]))
    finish_store(tmp_path / "store", name="x", licence="", source="", splits={"train": [empty, full]})
    assert [shard.file for shard in read_info(tmp_path / "store").shards["train"]] == [
        "train/data-00000-of-00001.arrow"
    ]


def test_batches_hold_each_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader maps a batch at a time. Rows that two batches hold would be learnt twice, too large ones fill memory."""
    dialogues = made_up_dialogues(tmp_path / "made_up", 5)

    def sizes(rows: int, size: int) -> list[int]:
        monkeypatch.setattr("omnichat.data.shards.BATCH_ROWS", rows)
        monkeypatch.setattr("omnichat.data.shards.BATCH_BYTES", size)
        shard = write_shard(tmp_path / "part.arrow", dialogues)
        assert shard.rows == 5
        with pa.ipc.open_stream(shard.file) as stream:
            batches = list(stream)
        assert [name for batch in batches for name in batch["id"].to_pylist()] == [one.id for one in dialogues]
        return [len(batch) for batch in batches]

    whole = sizes(5, 2**30)
    alone = sizes(5, 1)
    assert (whole, alone, sizes(2, 2**30)) == ([5], [1] * 5, [2, 2, 1])
    of_three = sum(len(cut_out(turn.audio)[0]) for one in dialogues[:3] for turn in one.turns if turn.audio)
    assert sizes(2, of_three) == [2, 2, 1]
    monkeypatch.setattr("omnichat.data.shards.MAX_ROW_BYTES", 100)
    with pytest.raises(DataError, match=r"bytes of audio, a row takes 100; split the dialogue.*\[too_large\]"):
        sizes(5, 2**30)


def test_references_stay_below_the_store(tmp_path: Path) -> None:
    """A store that is moved or published would lose what lies elsewhere: beside it, behind a link, in another shard."""
    store, beside = tmp_path / "store", tmp_path / "store2"
    store.mkdir()
    (dialogue,) = made_up_dialogues(beside, 1)
    audio = next(turn.audio for turn in dialogue.turns if turn.audio is not None)
    (store / "link.wav").symlink_to(audio.path)
    (store / "other.arrow").write_bytes(b"before" + Path(audio.path).read_bytes())
    size = Path(audio.path).stat().st_size
    inside = replace(audio, path=str(store / "other.arrow"), offset=6, size=size)
    for ref in (audio, replace(audio, path=str(store / "link.wav")), inside):
        turn = Turn("user", "hi", audio=ref)
        with pytest.raises(DataError, match=r"\[path_outside_root\]"):
            write_shard(store / "part.arrow", [Dialogue("d", (turn, Turn("assistant", "yes")))], "reference", store)


def test_a_store_that_is_being_made_again_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped half way, the old description would stand over the new shards."""
    write(tmp_path, [NOTED])

    def stopped(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("omnichat.data.shards._describe", stopped)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, [NOTED] * 2)
    with pytest.raises(DataError, match=r"not whole.*\[no_file\]"):
        read_info(tmp_path)
    assert len(Store(write(tmp_path, [NOTED] * 2))) == 2


def test_a_row_says_where_its_audio_lies(tmp_path: Path) -> None:
    """The feature store names a clip by its sha256, and the loader reads its bytes without Arrow."""
    split = write(tmp_path / "store", made_up_dialogues(tmp_path / "made_up", 5))
    refs = [turn.audio for row in range(5) for turn in Store(split)[row].turns if turn.audio is not None]
    assert {Path(ref.path).name for ref in refs} == {"data-00000-of-00002.arrow", "data-00001-of-00002.arrow"}
    for ref in refs:
        content = Path(ref.path).read_bytes()[ref.offset : ref.offset + ref.size]
        assert content.startswith(b"fLaC")
        assert hashlib.sha256(content).hexdigest() == ref.sha256


def test_references_name_the_files_that_were_given(tmp_path: Path) -> None:
    """`--audio reference` must copy nothing, and refuse what would not move with the store."""
    dialogues = made_up_dialogues(tmp_path / "store", 2)
    ref = Store(write(tmp_path / "store", dialogues, audio="reference"))[1].turns[0].audio
    given = dialogues[1].turns[0].audio
    assert ref is not None
    assert given is not None
    assert os.path.samefile(ref.path, given.path)
    assert ref.sha256 == hashlib.sha256(Path(given.path).read_bytes()).hexdigest()
    assert sum(file.stat().st_size for file in (tmp_path / "store" / "train").iterdir()) < 20_000
    elsewhere = made_up_dialogues(tmp_path / "elsewhere", 1)
    with pytest.raises(DataError, match=r"dialogue 'train-0': turn 0: .*\[path_outside_root\]"):
        write(tmp_path / "store", elsewhere, audio="reference")


def test_the_store_says_what_its_shards_hold(tmp_path: Path) -> None:
    """Size and sha256 are how damage is told from data, licence and source must travel with it."""
    split = write(tmp_path / "store", made_up_dialogues(tmp_path / "made_up", 9))
    info = read_info(tmp_path / "store")
    assert (info.name, info.licence, info.source, info.splits) == ("x", "CC0-1.0", "tests", {"train": 9})
    files = sorted(split.glob("*.arrow"))
    assert [tmp_path / "store" / shard.file for shard in info.shards["train"]] == files
    for shard, file in zip(info.shards["train"], files, strict=True):
        content = file.read_bytes()
        assert (shard.bytes, shard.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert [shard.rows for shard in info.shards["train"]] == [4, 4, 1]


def test_equal_dialogues_give_equal_bytes(tmp_path: Path) -> None:
    """A conversion that was interrupted, or that ran on more workers, must not give another corpus."""
    dialogues = made_up_dialogues(tmp_path, 3)
    wave = np.linspace(-1.5, 1.5, 8_000, dtype=np.float32)  # beyond 1: kept as float
    soundfile.write(tmp_path / "float.wav", wave, 16_000, subtype="FLOAT")
    heard = Turn("user", "", audio=AudioRef(str(tmp_path / "float.wav"), 4_000, 1_000))
    dialogues.append(Dialogue("float", (heard, Turn("assistant", "yes"))))
    first, again = (write_shard(tmp_path / f"{name}.arrow", dialogues) for name in "ab")
    assert first.sha256 == again.sha256
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()


def test_broken_audio_is_named_or_left_out_by_name(tmp_path: Path) -> None:
    """One broken file must not stop a corpus, nor be lost without a word."""
    dialogues = made_up_dialogues(tmp_path, 3)
    (tmp_path / "audio/train-1-0.wav").write_text("<html>")
    with pytest.raises(DataError, match=r"dialogue 'train-1': turn 0: .*train-1-0.wav: .*\[unreadable\]"):
        write_shard(tmp_path / "a.arrow", dialogues)
    assert not (tmp_path / "a.arrow").exists()
    rejects: list[DataError] = []
    assert write_shard(tmp_path / "a.arrow", dialogues, rejects=rejects).rows == 2
    assert [error.reason for error in rejects] == ["unreadable"]


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    """A row that fails when it is read would stop a run that comes to it after days; so would half a character.

    A note that is no text stopped a conversion in Arrow; one that is null was written, and refused when it was read.
    """
    unusable = [
        Dialogue("no answer", NOTED.turns[:2]),
        Dialogue("half", (Turn("user", "\ud83d"), Turn("assistant", "yes"))),
        Dialogue("half a note", NOTED.turns, scene={"voice": "\udc00"}),
        Dialogue("a number", NOTED.turns, scene={"take": 5}),  # type: ignore[dict-item]
        Dialogue("nothing", NOTED.turns, scene={"voice": None}),  # type: ignore[dict-item]
        Dialogue("within", (Turn("user", "hi", meta={"volume": None}), NOTED.turns[2])),  # type: ignore[dict-item]
    ]
    rejects: list[DataError] = []
    assert write_shard(tmp_path / "a.arrow", [*unusable, NOTED], rejects=rejects).rows == 1
    assert [error.reason for error in rejects] == [
        "last_turn_not_assistant",
        *["bad_encoding"] * 2,
        *["wrong_type"] * 3,
    ]


def test_writing_a_store_again_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    """An old shard among new ones would be read twice by whoever takes every file of the folder."""
    dialogues = made_up_dialogues(tmp_path / "made_up", 9)
    split = write(tmp_path / "store", dialogues, per_shard=2)
    write(tmp_path / "store", dialogues[:3], per_shard=2)
    assert sorted(file.name for file in split.glob("*.arrow")) == [f"data-0000{n}-of-00002.arrow" for n in (0, 1)]
    with pytest.raises(DataError, match=r"train: holds no dialogue.*\[empty_file\]"):
        finish_store(tmp_path / "store", name="x", licence="", source="", splits={"train": []})


def test_a_model_gets_the_same_from_either_form(tmp_path: Path, prompt: Prompt) -> None:
    """Which form a corpus has must not show in any result: tokens, and waves to the bit, from workers too."""
    dialogues = made_up_dialogues(tmp_path / "made_up", 9)
    paths = (tmp_path / "made_up" / "train.jsonl", write(tmp_path / "store", dialogues))
    loaders = [
        make_loader(StoreBatches([StoreDataset(path, prompt)], 4), range(3), num_workers=workers)
        for path, workers in ((paths[0], 0), (paths[1], 0), (paths[1], 2))
    ]
    for lines, shards, by_workers in zip(*loaders, strict=True):
        for name in lines._fields:
            expected = getattr(lines, name)
            for found in (getattr(shards, name), getattr(by_workers, name)):
                assert torch.equal(found, expected) if isinstance(expected, torch.Tensor) else found == expected


def test_datasets_reads_the_store_and_writes_the_parquet_of_the_hub(tmp_path: Path) -> None:
    """The store is to be opened and published without us; `datasets` writes nested audio only from its storage."""
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    split = write(tmp_path / "store", [*made_up_dialogues(tmp_path / "made_up", 5), NOTED])
    table = datasets.load_from_disk(str(tmp_path / "store"))["train"]
    assert (len(table), table.info.license, str(table.split)) == (6, "CC0-1.0", "train")
    turn = [*table.features["turns"].feature.items()]
    published = datasets.List(dict(turn) | {"audio": datasets.Audio(decode=False)})
    whole = table.cast_column("turns", published).with_format("arrow")
    whole = whole.map(datasets.table.embed_table_storage, batched=True, keep_in_memory=True)  # as push_to_hub does
    whole.with_format(None).to_parquet(str(tmp_path / "train.parquet"))
    back = datasets.Dataset.from_parquet(str(tmp_path / "train.parquet"), cache_dir=str(tmp_path / "cache"))
    assert back.features["turns"].feature["audio"] == datasets.Audio(decode=False)
    store = Store(split)
    for row in range(6):
        ours, theirs = store[row], back[row]
        assert theirs["id"] == ours.id
        assert {note["key"]: note["value"] for note in theirs["scene"]} == ours.scene
        for turn_of_ours, turn_of_theirs in zip(ours.turns, theirs["turns"], strict=True):
            assert turn_of_theirs["text"] == turn_of_ours.text
            assert turn_of_theirs["learn"] == turn_of_ours.learn
            if turn_of_ours.audio is not None:
                content = turn_of_theirs["audio"]["bytes"]
                assert hashlib.sha256(content).hexdigest() == turn_of_ours.audio.sha256
    assert json.loads((split / "state.json").read_text())["_split"] == "train"

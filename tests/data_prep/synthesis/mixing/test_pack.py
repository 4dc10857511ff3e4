"""Mixed dialogues as a store."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.synthesis.blobs import blob_path, read_audio
from data_prep.synthesis.contracts import Mixed, Sound
from data_prep.synthesis.mixing import pack as packing
from data_prep.synthesis.mixing.pack import pack
from omnichat.audio import load_audio
from omnichat.data.store import Store
from omnichat.dialogue import DataError
from tests.data_prep.synthesis.mixing.making import plan, run, stage, to_mix

ABOUT = {"name": "mini", "licence": "Apache-2.0", "source": "tests", "seed": 0, "engine": "none"}


def dialogues(blobs: Path, count: int = 7) -> list[Mixed]:
    """Some with a sound; every third in the test set."""
    rng, mixer = np.random.default_rng(0), stage(before_seconds=[0.2, 0.4])
    sounds = [None, Sound(kind="audio", caption="bell"), Sound(kind="music", caption="drums")]
    plans = [plan(sounds[n % 3], n, "test" if n % 3 == 1 else "train") for n in range(count)]
    return [run(mixer, to_mix(one, blobs, rng, seconds=(0.3, 0.5)), blobs, n) for n, one in enumerate(plans)]


def test_a_store_holds_the_turns_as_they_were_mixed(tmp_path: Path) -> None:
    """What is trained on must be what was mixed, sample by sample, with its words, style and scene."""
    made = dialogues(tmp_path / "blobs")
    info = pack(made, tmp_path / "blobs", tmp_path / "store", **ABOUT)
    assert dict(info.splits) == {"train": 5, "test": 2}
    by_id = {one.plan.id: one for one in made}
    for split in info.splits:
        for dialogue in Store(tmp_path / "store" / split):
            mixed = by_id[dialogue.id]
            assert [turn.text for turn in dialogue.turns] == [line.text for line in mixed.plan.lines]
            assert dialogue.scene["split"] == split
            assert dialogue.scene["placement"] == mixed.placement
            sound = mixed.plan.brief.sound
            assert dialogue.scene["scenario"] == ("emotion" if sound is None else sound.kind)
            for turn, piece in zip(dialogue.turns, mixed.pieces, strict=True):
                assert (turn.audio is None) == (piece is None)
                if turn.audio is not None and piece is not None:
                    assert np.array_equal(load_audio(turn.audio), read_audio(tmp_path / "blobs", piece.blob))


def test_the_manifest_has_levels_of_every_turn(tmp_path: Path) -> None:
    """Who wants to know how loud a sound was, or to mix anew, finds it without decoding the store."""
    made = dialogues(tmp_path / "blobs")
    pack(made, tmp_path / "blobs", tmp_path / "store", **ABOUT)
    lines = [json.loads(line) for line in (tmp_path / "store" / "manifest.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [one.plan.id for one in made]
    for line, mixed in zip(lines, made, strict=True):
        for turn, piece in zip(line["turns"], mixed.pieces, strict=True):
            assert turn["audio"] == (None if piece is None else piece.model_dump())
        assert line["licence"] == mixed.licence


def test_equal_dialogues_give_equal_bytes_whatever_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run and four merged ones must end in the same store; and a store larger than a shard has several."""
    made = dialogues(tmp_path / "blobs")
    monkeypatch.setattr(packing, "PIECE_DIALOGUES", 2)
    first, second = (pack(iter(made), tmp_path / "blobs", tmp_path / name, **ABOUT) for name in ("one", "two"))
    assert first == second
    assert [shard.rows for shard in first.shards["train"]] == [2, 2, 1]
    for file in sorted((tmp_path / "one").rglob("*")):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()


def test_packing_again_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Dialogues of an earlier run in a split that is no longer made would be trained on unseen."""
    made = dialogues(tmp_path / "blobs")
    out = tmp_path / "store"
    pack(made, tmp_path / "blobs", out, **ABOUT)
    pack([one for one in made if one.plan.brief.split == "train"], tmp_path / "blobs", out, **ABOUT)
    assert not (out / "test").exists()
    assert not (out / ".packing").exists()


def test_faults_name_their_place(tmp_path: Path) -> None:
    """An order that hangs on the run, a lost blob and a foreign store must stop the packing with words."""
    blobs, out = tmp_path / "blobs", tmp_path / "store"
    made = dialogues(blobs, 3)
    with pytest.raises(DataError, match="sort them") as error:
        pack(reversed(made), blobs, out, **ABOUT)
    assert error.value.reason == "bad_order"
    with pytest.raises(DataError, match="sort them"):
        pack([made[0], made[0]], blobs, out, **ABOUT)
    with pytest.raises(DataError) as error:
        pack([], blobs, out, **ABOUT)
    assert error.value.reason == "empty_file"
    pack(made, blobs, out, **ABOUT)
    with pytest.raises(DataError, match="another folder") as error:
        pack(made, blobs, out, **(ABOUT | {"name": "other"}))
    assert error.value.reason == "store_exists"
    piece = made[1].pieces[0]
    assert piece is not None
    blob_path(blobs, piece.blob).unlink()
    with pytest.raises(DataError, match=f"dialogue '{made[1].plan.id}': turn 0"):
        pack(made, blobs, tmp_path / "new", **ABOUT)


def test_a_turn_that_is_broken_off_has_the_words_that_are_heard(tmp_path: Path) -> None:
    """Words that were planned and never said would be learnt as heard."""
    made = plan(None)
    cut = made.lines[0].model_copy(update={"text": "One two three four.", "cut": 0.5})
    item = to_mix(made.model_copy(update={"lines": (cut, *made.lines[1:])}), tmp_path, np.random.default_rng(0))
    turn = packing.to_dialogue(run(stage(), item, tmp_path), tmp_path, "tests").turns[0]
    assert turn.text == "One two"
    assert turn.meta["planned"] == "three four."
    assert turn.audio is not None
    assert item.speech[0] is not None
    assert turn.audio.num_samples == round(item.speech[0].num_samples / 2)

"""Tables of clips."""

import json
from pathlib import Path

import pytest

from data_prep.synthesis.mixing.captions import ClipRow, pools, read_captions, sounds_of, write_captions
from data_prep.synthesis.mixing.clips import pool_of
from data_prep.synthesis.writing.briefs import briefs
from data_prep.synthesis.writing.settings import WritingSettings
from omnichat.dialogue import DataError

AUDIOCAPS = (
    "audiocap_id,youtube_id,start_time,caption\n1,r1nicOVtvkQ,130,Rain falls on  a roof\n2,abc,20,A door slams\n"
)
MUSICCAPS = (
    "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption\nxyz,30,40,/m/1,\"['low quality', 'piano']\",A\n"
)


def table(folder: Path, name: str, text: str) -> Path:
    """A file with this text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_published_tables_are_read(tmp_path: Path) -> None:
    """AudioCaps and MusicCaps are what the paper used: their columns, their ids, and whose the recordings are."""
    rain, door = read_captions(table(tmp_path, "audiocaps.csv", AUDIOCAPS))
    assert (rain.id, rain.caption, rain.kind) == ("r1nicOVtvkQ", "Rain falls on a roof", "audio")
    assert (rain.classified(), door.classified()) == ("continuous", "temporary")
    assert "r1nicOVtvkQ" in rain.credit
    assert rain.licence
    (music,) = read_captions(table(tmp_path, "musiccaps.csv", MUSICCAPS))
    assert (music.id, music.caption, music.classified()) == ("xyz", "low quality, piano", "music")


def test_own_tables_and_what_was_written_are_read(tmp_path: Path) -> None:
    """Licence, credit and class of a clip must survive every writing: the dataset card is made of them."""
    records = [
        {"file": "a/wind.wav", "type": "audio_event", "caption": "wind", "event_class": "continuous", "licence": "CC0"},
        {"file": "b/tune.flac", "type": "music", "caption": "a tune", "credit": "somebody", "split": "val", "more": 1},
    ]
    rows = read_captions(table(tmp_path, "own.json", json.dumps(records)))
    assert [row.id for row in rows] == ["a/wind", "b/tune"]
    assert rows[0].event_class == "continuous"
    assert (rows[1].pool, rows[1].credit, rows[1].kind) == ("val", "somebody", "music")
    write_captions(tmp_path / "again.json", rows)
    assert read_captions(tmp_path / "again.json") == rows
    (row,) = read_captions(table(tmp_path, "own.csv", "clip,caption,licence,voice\nx,a dog,CC-BY-4.0,0.3\n"))
    assert (row.id, row.licence, row.voice) == ("x", "CC-BY-4.0", 0.3)


def test_every_clip_has_one_split_and_small_tables_have_all() -> None:
    """A clip in two splits is a leak, a split without clips loses all its scripts; the table's own word counts."""
    rows = [ClipRow(id=f"clip{n}", kind="audio", caption="x") for n in range(200)]
    chosen = pools(rows)
    assert len(chosen) == 200
    assert [list(chosen.values()).count(pool) for pool in ("train", "val", "test")] == [160, 20, 20]
    assert chosen == pools(list(reversed(rows))), "the order of the table must not matter"
    assert set(pools(rows[:3]).values()) == {"train", "val", "test"}
    assert pools([ClipRow(id="a", kind="music", pool="test"), *rows[:2]])["a"] == "test"


def test_scripts_of_a_split_get_its_clips_only(tmp_path: Path) -> None:
    """A script about a clip of another split would be refused after it was written, spoken and paid for."""
    text = "clip,caption\n" + "".join(f"clip{n},sound {n}\n" for n in range(30))
    path = table(tmp_path, "captions.csv", text)
    settings = WritingSettings(recipe="sharechat_audio", captions=path)
    pool = pools(read_captions(path))
    seen = set()
    for brief in briefs(settings, 200, 0, {"train": 0.6, "test_scripts": 0.2, "val": 0.2}):
        assert brief.sound is not None
        assert pool[brief.sound.clip] == pool_of(brief.split)
        seen.add(brief.sound.clip)
    assert len(seen) == 30
    with pytest.raises(DataError, match="no clip of kind music for the split 'train'"):
        sounds_of(path, "music", "train")


@pytest.mark.parametrize(
    ("name", "text", "reason", "words"),
    [
        ("x.csv", "a,b\n1,2\n", "bad_captions", "has the columns a, b; needs clip and caption"),
        ("x.csv", MUSICCAPS.replace("\"['low quality', 'piano']\"", "piano"), "bad_captions", "x.csv:2.*aspect_list"),
        ("x.csv", "clip,caption\n", "bad_captions", "holds no clip"),
        ("x.csv", "clip,caption,voice\na,b,7\n", "bad_captions", "x.csv:2: voice '7'"),
        ("x.json", "{}", "bad_captions", "a list of objects"),
        ("x.json", "[", "bad_captions", "not JSON"),
        ("x.json", "[3]", "bad_captions", "clip 1: is 3"),
        ("x.json", '[{"file": "a.wav", "type": "smell", "caption": "c"}]', "bad_captions", "clip 1: kind 'smell'"),
        ("x.json", '[{"id": "a", "kind": "music"}, {"id": "a"}]', "bad_captions", "audio and music"),
    ],
)
def test_faults_name_their_place(tmp_path: Path, name: str, text: str, reason: str, words: str) -> None:
    """A table of 50,000 rows with one bad one must say which."""
    with pytest.raises(DataError, match=words) as error:
        read_captions(table(tmp_path, name, text))
    assert error.value.reason == reason

"""Cached features: the same numbers as live ones after rounding, and never those of something else."""

import hashlib
import pickle
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from omnichat.batch import pack
from omnichat.data.dataset import StoreDataset
from omnichat.data.features import FeatureKey, FeatureReader, FeatureWriter, PieceDigests
from omnichat.dialogue import AudioRef, DataError
from omnichat.prompt import Prompt

KEY = FeatureKey("whisper", "ab" * 32, "float32", options={"context": "trim"})


def frames(count: int, dim: int = 4, seed: int = 0) -> NDArray[np.float32]:
    """Frames as an encoder gives them."""
    return (np.random.default_rng(seed).standard_normal((count, dim)) * 3).astype(np.float32)


@pytest.fixture
def clip(tmp_path: Path) -> AudioRef:
    """One second of audio."""
    soundfile.write(tmp_path / "a.wav", np.arange(16_000) / 16_000, 16_000)
    return AudioRef(str(tmp_path / "a.wav"), 16_000)


def add(writer: FeatureWriter, ref: AudioRef, *pieces: NDArray[np.float32]) -> None:
    """Add the features of one stretch of audio."""
    for digest, piece in zip(PieceDigests()(ref), pieces, strict=True):
        writer.add(digest, piece, ref.path)


def fill(root: Path, key: FeatureKey, ref: AudioRef, *pieces: NDArray[np.float32]) -> None:
    """Write the features of one stretch of audio as a shard."""
    with FeatureWriter(root, key, pieces[0].shape[1]) as writer:
        add(writer, ref, *pieces)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_cached_features_are_the_live_ones_rounded(dtype: str, tmp_path: Path, clip: AudioRef) -> None:
    """Bit for bit what torch's own rounding gives, ties, tiny and huge numbers included."""
    key = replace(KEY, dtype=dtype)
    live = frames(50)
    live[0] = [1 + 2**-8, 1 + 3 * 2**-8, 1e-41, -60_000]
    fill(tmp_path / "features", key, clip, live)
    (piece,) = FeatureReader(tmp_path / "features", [key]).read(clip)
    stored = torch.from_numpy(np.array(piece["whisper"]))
    cached = stored.view(torch.bfloat16) if dtype == "bfloat16" else stored
    assert cached.equal(torch.from_numpy(live).to(getattr(torch, dtype)))


def test_every_piece_of_every_expert_is_read_back(tmp_path: Path, clip: AudioRef) -> None:
    """Two experts, a clip in two pieces, two stretches of one file: no mix-up, also in a worker's copy."""
    other = replace(KEY, expert="beats", dtype="float16")
    soundfile.write(tmp_path / "long.wav", np.zeros(31 * 16_000), 16_000)
    refs = [
        clip,
        AudioRef(str(tmp_path / "long.wav"), 31 * 16_000),
        AudioRef(clip.path, 4_000, 8_000),
        AudioRef(clip.path, 4_000),
    ]
    written = {}
    for key, dim in ((KEY, 4), (other, 3)):
        with FeatureWriter(tmp_path / "features", key, dim, shard_bytes=80) as writer:  # two pieces or so a shard
            for number, ref in enumerate(refs):
                count = 2 if number == 1 else 1
                written[key.expert, number] = [frames(5 + number + part, dim, number) for part in range(count)]
                assert not any(writer.has(digest) for digest in PieceDigests()(ref))
                add(writer, ref, *written[key.expert, number])
                assert all(writer.has(digest) for digest in PieceDigests()(ref))
        assert len(list(key.folder(tmp_path / "features").glob("*.frames"))) > 1
    reader = FeatureReader(tmp_path / "features", [KEY, other])
    assert reader.widths == {"whisper": 4, "beats": 3}
    for one in (reader, pickle.loads(pickle.dumps(reader))):
        for number, ref in enumerate(refs):
            assert one.has(ref)
            read = one.read(ref)
            for expert, dtype in (("whisper", np.float32), ("beats", np.float16)):
                expected = [piece.astype(dtype) for piece in written[expert, number]]
                assert all(np.array_equal(a[expert], b) for a, b in zip(read, expected, strict=True))
    # Each data worker maps the shards itself: as copies they would be sent, and held, once more for each.
    assert not any(expert._maps for expert in pickle.loads(pickle.dumps(reader))._experts.values())


def test_a_moved_file_keeps_its_features_and_a_changed_one_loses_them(tmp_path: Path, clip: AudioRef) -> None:
    """The key is what is in the file; a re-recorded turn must not be heard with its old features."""
    fill(tmp_path / "features", KEY, clip, frames(50))
    reader = FeatureReader(tmp_path / "features", [KEY])
    moved = Path(clip.path).rename(tmp_path / "b.wav")
    assert reader.has(AudioRef(str(moved), 16_000))
    assert not reader.has(AudioRef(str(moved), 15_999))
    soundfile.write(moved, np.zeros(16_000), 16_000)
    with pytest.raises(DataError, match=r"b.wav: no cached whisper features .*precompute.*\[no_features\]"):
        reader.read(AudioRef(str(moved), 16_000))
    with pytest.raises(DataError, match=r"a.wav: cannot be read.*\[no_file\]"):
        reader.read(clip)


def test_what_a_reference_states_of_a_plain_file_is_not_believed(tmp_path: Path, clip: AudioRef) -> None:
    """A file beside a store can be another one since; a shard is checked as a whole, and is taken at its word."""
    stated = replace(clip, sha256=hashlib.sha256(Path(clip.path).read_bytes()).hexdigest())
    digests = PieceDigests()
    before = digests(stated)
    assert before == digests(clip)
    soundfile.write(clip.path, np.zeros(16_000), 16_000)
    assert digests(stated) != before


def test_two_files_in_one_shard_are_two(tmp_path: Path) -> None:
    """Also where their references do not say what they are, so that both are read."""
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    soundfile.write(tmp_path / "b.wav", np.ones(16_000) / 2, 16_000)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.wav", "b.wav"))
    (tmp_path / "shard").write_bytes(first + second)
    digests = PieceDigests()
    for offset, name in ((0, "a.wav"), (len(first), "b.wav"), (0, "a.wav")):
        inside = AudioRef(str(tmp_path / "shard"), 16_000, offset=offset, size=len(first))
        assert digests(inside) == PieceDigests()(AudioRef(str(tmp_path / name), 16_000))


def test_channels_and_shards_of_a_store_have_features_of_their_own(tmp_path: Path, clip: AudioRef) -> None:
    """Two speakers on two channels are two clips; audio inside a shard is the file it was, wherever it lies."""
    content = Path(clip.path).read_bytes()
    (tmp_path / "shard").write_bytes(b"before" + content + b"behind")
    digests = PieceDigests()
    whole = digests(clip)
    inside = AudioRef(str(tmp_path / "shard"), 16_000, offset=6, size=len(content))
    stated = replace(inside, path="moved", sha256=hashlib.sha256(content).hexdigest())  # not read: it says what it is
    assert digests(inside) == digests(stated) == whole
    others = [replace(clip, channel=0), replace(clip, channel=1), replace(clip, start=1, num_samples=15_999)]
    assert len({*whole, *(digest for ref in others for digest in digests(ref))}) == 4
    with pytest.raises(DataError, match=r"\[truncated\]"):
        digests(replace(inside, offset=20))


def test_a_writer_drops_what_a_killed_one_left(tmp_path: Path, clip: AudioRef) -> None:
    """Each kill would leave up to four gigabytes of frames that nobody reads."""
    fill(tmp_path / "features", KEY, clip, frames(50))
    left = KEY.folder(tmp_path / "features") / "00001.frames"
    left.write_bytes(b"half")
    with FeatureWriter(tmp_path / "features", KEY, 4) as writer:
        assert writer.dropped == 1
    assert not left.exists()
    assert FeatureReader(tmp_path / "features", [KEY]).has(clip)


def test_what_one_expert_lacks_is_not_there(tmp_path: Path, clip: AudioRef) -> None:
    """A filling that was stopped between two experts must be gone on with: the run would stop at such a clip."""
    other, half = replace(KEY, expert="beats"), replace(clip, num_samples=8_000)
    fill(tmp_path / "features", KEY, clip, frames(50))
    fill(tmp_path / "features", KEY, half, frames(25))
    fill(tmp_path / "features", other, clip, frames(50))
    reader = FeatureReader(tmp_path / "features", [KEY, other])
    assert reader.contains(PieceDigests()(clip) + PieceDigests()(half)).tolist() == [True, False]
    assert not reader.has(half)
    with pytest.raises(DataError, match="no cached beats features"):
        reader.read(half)


def test_writing_again_adds_nothing(tmp_path: Path, clip: AudioRef) -> None:
    """A second run of the filling is free, and changes nothing."""
    fill(tmp_path / "features", KEY, clip, frames(50))
    fill(tmp_path / "features", KEY, clip, frames(50, seed=9))
    (shard,) = KEY.folder(tmp_path / "features").glob("*.frames")
    assert shard.stat().st_size == 50 * 4 * 4


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint_sha256": "cd" * 32},
        {"options": {"context": "pad30"}},
        {"dtype": "bfloat16"},
        {"code_version": 0},
        {"precision": "bfloat16"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_foreign_features_are_refused_with_the_difference(
    change: dict[str, object], tmp_path: Path, clip: AudioRef
) -> None:
    """Features of another encoder have the same shape and would train without a word."""
    fill(tmp_path / "features", replace(KEY, **change), clip, frames(50))
    (name, value), wanted = next(iter(change.items())), KEY.record()
    with pytest.raises(DataError) as caught:
        FeatureReader(tmp_path / "features", [KEY])
    assert caught.value.reason == "no_features"
    assert f"made with {name}={value} (the run asks for {wanted[name]})" in str(caught.value)


def test_a_folder_whose_description_was_changed_is_refused(tmp_path: Path, clip: AudioRef) -> None:
    """A copied or edited cache, and one that lost its end."""
    fill(tmp_path / "features", KEY, clip, frames(50))
    folder = KEY.folder(tmp_path / "features")
    with pytest.raises(DataError, match=r"are 4 wide, the encoder gives 5.*\[foreign_features\]"):
        FeatureWriter(tmp_path / "features", KEY, 5)
    content = (folder / "00000.frames").read_bytes()
    (folder / "00000.frames").write_bytes(content[:-4])
    with pytest.raises(DataError, match=r"00000.frames: holds 796 bytes, its index names 800.*\[truncated_features\]"):
        FeatureReader(tmp_path / "features", [KEY])
    described = (folder / "key.json").read_text()
    (folder / "key.json").write_text(described.replace("trim", "pad30"))
    uses = (lambda: FeatureReader(tmp_path / "features", [KEY]), lambda: FeatureWriter(tmp_path / "features", KEY, 4))
    for use in uses:
        with pytest.raises(DataError, match=r"context.*pad30.*\[foreign_features\]"):
            use()
    for broken in ("{", "[]", "{}"):
        (folder / "key.json").write_text(broken)
        with pytest.raises(DataError, match=r"\[foreign_features\]"):
            FeatureReader(tmp_path / "features", [KEY])


def test_frames_that_cannot_be_kept_are_refused(tmp_path: Path, clip: AudioRef) -> None:
    """Not a number, or beyond half precision: training would meet them in every pass."""
    with FeatureWriter(tmp_path / "features", replace(KEY, dtype="float16"), 4) as writer:
        with pytest.raises(DataError, match="use dtype bfloat16"):
            add(writer, clip, np.full((2, 4), 1e6, np.float32))
        with pytest.raises(DataError, match="NaN or infinite"):
            add(writer, clip, np.full((2, 4), np.nan, np.float32))
        with pytest.raises(DataError, match=r"shape \(2, 5\), expected \(N, 4\)"):
            add(writer, clip, np.zeros((2, 5), np.float32))
    assert not FeatureReader(tmp_path / "features", [replace(KEY, dtype="float16")]).has(clip)


def test_a_dataset_reads_features_instead_of_audio(made_up: Path, tmp_path: Path, prompt: Prompt) -> None:
    """From store to packed batch: each turn's own features, each with its length."""
    live = StoreDataset(made_up, prompt)
    with FeatureWriter(tmp_path / "features", KEY, 4) as writer:
        for number in range(9):
            for place, slot in enumerate(live[number].tokens.slots):
                add(writer, slot.audio, np.full((10 + place, 4), number, np.float32))
    cached = StoreDataset(made_up, prompt, FeatureReader(tmp_path / "features", [KEY]))
    batch = pack([cached[3], cached[8]])
    assert batch.waves is None
    assert batch.features is not None
    values, found = batch.features["whisper"]
    assert batch.wave_lengths.equal(pack([live[3], live[8]]).wave_lengths)
    slots = {number: len(live[number].tokens.slots) for number in (3, 8)}
    assert found == tuple(10 + place for count in slots.values() for place in range(count))
    expected = [number for number, count in slots.items() for place in range(count) for _ in range(10 + place)]
    assert values[:, 0].tolist() == expected


def test_a_clip_too_short_for_a_frame_of_an_expert(tmp_path: Path, clip: AudioRef) -> None:
    """BEATs has no frame for the shortest clips; a file without a byte cannot be mapped."""
    fill(tmp_path / "features", KEY, clip, frames(0))
    assert FeatureReader(tmp_path / "features", [KEY]).read(clip)[0]["whisper"].shape == (0, 4)


def test_more_shards_than_a_process_may_open_files(tmp_path: Path) -> None:
    """A day of precomputing on eight CPUs leaves a thousand shards of each expert, of which every reader maps all."""
    soundfile.write(tmp_path / "long.wav", np.zeros(100 * 400), 16_000)
    refs = [AudioRef(str(tmp_path / "long.wav"), 400, 400 * number) for number in range(100)]
    with FeatureWriter(tmp_path / "features", KEY, 4, shard_bytes=1) as writer:
        for number, ref in enumerate(refs):
            add(writer, ref, frames(1, seed=number))
    reader = FeatureReader(tmp_path / "features", [KEY])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 20, hard))
    try:
        found = [reader.read(ref)[0]["whisper"] for ref in refs]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert all(np.array_equal(one, frames(1, seed=number)) for number, one in enumerate(found))
    assert not found[0].flags.writeable

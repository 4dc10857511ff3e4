"""The feature store is filled once, by any number of processes, with what a training step would have computed."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from omnichat import build
from omnichat.audio import load_audio
from omnichat.batch import PackedBatch
from omnichat.config import ConfigError, RunConfig, load_config
from omnichat.data.features import FeatureReader
from omnichat.data.store import Store
from omnichat.dialogue import AudioRef, DataError
from omnichat.models.omnichat import OmniChat
from omnichat.training.clips import heard_clips, in_batches
from omnichat.training.fit import fit
from omnichat.training.precompute import __main__ as command
from omnichat.training.precompute import fill
from omnichat.training.precompute.fill import feature_keys, fill_feature_store
from omnichat.training.precompute.share import Share, read_share

QUICK = (
    "recipe=smoke", "data.made_up=6", "trainer.validate_every=0", "trainer.save_every=0", "trainer.max_steps=1",
    "trainer.warmup_steps=1",
)  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run whose weights and dialogues lie in files."""
    folder = tmp_path_factory.mktemp("made")
    config = load_config(*QUICK, "data.features=cached", f"data.features_dir={folder / 'features'}")
    return build.materialise(config, folder)


def at(config: RunConfig, root: Path) -> RunConfig:
    """The run with another features_dir."""
    data = config.data.model_copy(update={"features_dir": str(root)})
    return config.model_copy(update={"data": data})


def with_precision(config: RunConfig, precision: str) -> RunConfig:
    return config.model_copy(update={"trainer": config.trainer.model_copy(update={"precision": precision})})


def stored(config: RunConfig) -> dict[str, dict[bytes, bytes]]:
    """All frames that a reader of the run finds, by expert and piece."""
    reader = FeatureReader(Path(str(config.data.features_dir)), list(feature_keys(config).values()))
    found: dict[str, dict[bytes, bytes]] = {name: {} for name in reader.widths}
    for clip in heard_clips(config):
        for digest, piece in zip(clip.digests, reader.read(clip.ref), strict=True):
            for name, frames in piece.items():
                found[name][digest] = frames.tobytes()
    return found


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_cached_is_live(made: RunConfig, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 8, against what Lightning's own training step hears, in each precision.

    Encoded together with the same clips: bit for bit after rounding. Filled with other neighbours: within rounding, as
    matrices of another shape add up in another order.
    """
    config = at(with_precision(made, precision), tmp_path / "features")
    heard: list[tuple[PackedBatch, dict[str, tuple[torch.Tensor, torch.Tensor]]]] = []
    features_of = OmniChat._features

    def listen(self: OmniChat, batch: PackedBatch) -> object:
        found = features_of(self, batch)
        heard.append((batch, dict(found)))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(OmniChat, "_features", listen)
        live = config.model_copy(update={"data": config.data.model_copy(update={"features": "live"})})
        assert fit(live, tmp_path / "live") == 0
    batch, frames = heard[0]
    assert batch.waves is not None
    assert len(batch.waves) > 3
    expected = {
        name: [row[:count].bfloat16() for row, count in zip(values, counts.tolist(), strict=True)]
        for name, (values, counts) in frames.items()
    }

    assert batch.waves.dtype == torch.float32  # Lightning's bf16-true would round them to 8 bits
    waves = [wave[:length].numpy() for wave, length in zip(batch.waves, batch.num_samples, strict=True)]
    heard_waves = [load_audio(ref) for ref in heard_refs(config, batch.dialogue_ids)]
    assert all(np.array_equal(wave, expected) for wave, expected in zip(waves, heard_waves, strict=True))
    for name, found in fill.encode(waves, build.build_encoders(config), CPU).items():
        for row, values in zip(expected[name], found.rows(), strict=True):
            assert torch.from_numpy(values).bfloat16().equal(row), name

    reader = fill_feature_store(config)
    cached = [piece for ref in heard_refs(config, batch.dialogue_ids) for piece in reader.read(ref)]
    steps = 1 if precision == "32-true" else 8  # in units of the last place at the frames' scale, which is 1
    for name, rows in expected.items():
        for row, piece in zip(rows, cached, strict=True):
            values = torch.from_numpy(np.array(piece[name])).view(torch.bfloat16)
            assert values.shape == row.shape
            gap = (values.float() - row.float()).abs() / row.float().abs().clamp(min=1)
            assert float(gap.max()) <= steps * 2**-8, name


def test_processes_and_stops_change_nothing(
    made: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One process, three parts in any order, or a process stopped in the middle: the same bytes; a second run is free.

    Frames that depend on who encoded them would make two runs of one seed differ.
    """
    monkeypatch.setattr("omnichat.training.clips.BATCH_SAMPLES", 32_000)
    whole, parts, stopped = (at(made, tmp_path / name) for name in ("whole", "parts", "stopped"))
    assert len(in_batches(heard_clips(made))) > 5
    fill_feature_store(whole)
    expected = stored(whole)

    fill.precompute(parts, Share(2, 3))
    with pytest.raises(DataError, match=r"\[no_features\]"):
        stored(parts)
    for number in (0, 1):
        fill.precompute(parts, Share(number, 3))
    assert stored(parts) == expected

    encode, calls = fill.encode, 0

    def stop_at_third(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return encode(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(fill, "encode", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            fill_feature_store(stopped)
    capsys.readouterr()
    fill_feature_store(stopped)
    assert "encoding" in capsys.readouterr().out
    assert stored(stopped) == expected
    with monkeypatch.context() as patch:
        patch.setattr(build, "build_encoders", None)  # nothing to do: not even the experts are loaded
        for config in (whole, parts, stopped):
            fill_feature_store(config)


def test_more_processes_than_work(made: RunConfig, tmp_path: Path) -> None:
    """A part without a batch ends at once, and is no error."""
    fill.precompute(at(made, tmp_path), Share(999, 1000))
    assert list(tmp_path.glob("*/*.frames")) == []


def test_the_disk_it_needs_is_said_first(
    made: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hours of encoding must not end at a full disk: the need is exact, and refused before the first clip."""
    config = at(made, tmp_path)
    fill_feature_store(config)
    need = sum(path.stat().st_size for path in tmp_path.glob("*/*.frames"))
    assert f"{need / 1e6:,.2f} MB of disk needed" in capsys.readouterr().out
    shutil.rmtree(next(tmp_path.glob("beats-*")))
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(fill.shutil, "disk_usage", lambda path: usage(1000))
    with pytest.raises(DataError, match=r"MB needed, 0.00 MB free; .*data.features_dir \[disk_full\]"):
        fill_feature_store(config)


def test_the_same_part_is_done_once_at_a_time(made: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs that fill one folder would do all work twice: the second waits, then finds it done."""
    monkeypatch.setattr("omnichat.training.clips.BATCH_SAMPLES", 32_000)
    config, done = at(made, tmp_path / "features"), []
    (tmp_path / "features").mkdir()
    with fill._claimed(tmp_path / "features", Share(1, 3)):
        waiting = [
            threading.Thread(target=lambda share=share: done.append((fill.precompute(config, share), share)[1]))
            for share in (Share(), Share(1, 3))
        ]
        for thread in waiting:
            thread.start()
        with fill._claimed(tmp_path / "features", Share(0, 3)):  # another part goes on
            time.sleep(0.3)
        assert done == []
    for thread in waiting:
        thread.join(timeout=60)
    assert set(done) == {Share(), Share(1, 3)}
    stored(config)


def test_two_processes_at_once(made: RunConfig, tmp_path: Path) -> None:
    """The command line, in two real processes that share a folder: all is there, and a second start does nothing."""
    config = at(made, tmp_path / "features")
    command = [sys.executable, "-m", "omnichat.training.precompute", *overrides_of(config)]
    code = "import sys, omnichat.training.clips as c; c.BATCH_SAMPLES = 32_000; "
    code += "from omnichat.training.precompute.__main__ import main; sys.exit(main())"
    parts = [
        subprocess.Popen(
            [sys.executable, "-c", code, *command[3:], f"shard={number}/2"], text=True, stderr=-1, stdout=-1
        )
        for number in range(2)
    ]
    for number, part in enumerate(parts):
        out, error = part.communicate(timeout=100)
        assert part.returncode == 0, error
        assert f"part {number}/2: " in out
        assert "of disk needed" in out
        assert "encoded" in error
    assert len(list((tmp_path / "features").glob("whisper-*/*.frames"))) == 2
    assert all(stored(config).values())


def test_sigterm_keeps_what_was_encoded(
    made: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A preempted job ends with 143 and loses the batch it was in, not its shard."""
    config = at(made, tmp_path)
    monkeypatch.setattr("omnichat.training.clips.BATCH_SAMPLES", 32_000)
    monkeypatch.setattr(sys, "argv", ["precompute", *overrides_of(config)])
    encode, calls = fill.encode, 0

    def preempted(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            signal.raise_signal(signal.SIGTERM)
        return encode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(fill, "encode", preempted)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            command.main()
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert ended.value.code == 143
    first, second, *_ = in_batches(heard_clips(config))
    reader = FeatureReader(tmp_path, list(feature_keys(config).values()))
    there = [reader.has(clip.ref) for clip in heard_clips(config)]
    assert there == [True] * len(first + second) + [False] * (len(there) - len(first + second))
    capsys.readouterr()


def test_a_batch_is_encoded_while_the_one_before_is_written(
    made: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device that waits for the disk after every batch stands still for a quarter of its time."""
    monkeypatch.setattr("omnichat.training.clips.BATCH_SAMPLES", 32_000)
    encode, rows, calls, second, waited = fill.encode, fill.Encoded.rows, [], threading.Event(), []

    def counted(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            second.set()
        return encode(*arguments)  # type: ignore[arg-type]

    def held(self: fill.Encoded) -> object:
        waited.append(second.wait(timeout=30))
        return rows(self)

    monkeypatch.setattr(fill, "encode", counted)
    monkeypatch.setattr(fill.Encoded, "rows", held)
    fill_feature_store(at(made, tmp_path))
    assert len(calls) > 2
    assert all(waited)
    capsys.readouterr()


def test_a_fault_in_writing_ends_the_run(made: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread dies in silence: its error must reach the user, and what was not written not pass for written."""
    monkeypatch.setattr("omnichat.training.clips.BATCH_SAMPLES", 32_000)
    encode, calls = fill.encode, []

    def damaged(*arguments: object) -> dict[str, fill.Encoded]:
        found = encode(*arguments)  # type: ignore[arg-type]
        calls.append(1)
        if len(calls) == 2:
            found["beats"] = found["beats"]._replace(frames=found["beats"].frames * torch.nan)
        return found

    monkeypatch.setattr(fill, "encode", damaged)
    with pytest.raises(DataError, match=r"NaN or infinite frames.*\[bad_features\]"):
        fill_feature_store(at(made, tmp_path))
    with pytest.raises(DataError, match=r"\[no_features\]"):
        stored(at(made, tmp_path))


def test_torchrun_and_shard_name_the_part() -> None:
    """A process that takes another's part leaves its own undone, and eight on one GPU run out of memory."""
    environment = {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1"}
    assert read_share(["recipe=x"], environment) == (Share(9, 16, 1), ["recipe=x"])
    assert read_share(["recipe=x"], {}) == (Share(), ["recipe=x"])
    assert read_share(["shard=3/4", "recipe=x"], environment) == (Share(3, 4, 3), ["recipe=x"])
    for wrong in ("shard=4/4", "shard=", "shard=-1/4", "shard=1"):
        with pytest.raises(ConfigError, match="shard=I/N"):
            read_share([wrong], {})


def test_the_key_names_what_the_experts_compute_in(made: RunConfig) -> None:
    """Frames of another precision are other frames."""
    for trainer, experts in (("32-true", "float32"), ("bf16-mixed", "bfloat16"), ("bf16-true", "bfloat16")):
        config = with_precision(made, trainer)
        assert feature_keys(config)["beats"].precision == experts
        assert str(next(build.build_encoders(config)["beats"].parameters()).dtype) == f"torch.{experts}"


def test_what_cannot_be_kept_is_refused_all_at_once() -> None:
    """Weights and dialogues of one run's folder, or no folder at all: a cache that no run could read."""
    faults = command._faults(load_config("recipe=smoke"))
    assert [fault.partition(":")[0] for fault in faults] == ["model.random, data.made_up", "data.features_dir"]
    assert any(fault.startswith("task=events: ") for fault in command._faults(load_config("recipe=interact_events")))


def test_a_folder_that_cannot_be_made_is_named_by_its_key(made: RunConfig, tmp_path: Path) -> None:
    """A file of that name, or a folder of somebody else's, was a traceback."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(
        ConfigError, match=r"data\.features_dir: \S+/taken cannot be written to \(.*name another folder"
    ):
        fill_feature_store(at(made, tmp_path / "taken"))


def test_faults_of_the_data_are_named_before_the_experts_listen(
    made: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They came one a start, that of an audio file without its line, and after hours of listening to the others."""
    store = tmp_path / "synthetic.jsonl"
    lines = Path(str(made.data.synthetic)).read_text().splitlines()
    store.write_text("\n".join([*lines[:2], lines[0], '{"id": "gone", "turns": []}']))
    shutil.copytree(Path(str(made.data.synthetic)).parent / "audio", tmp_path / "audio")
    places = [f"{store}:3: id ", f"{store}:4: dialogue 'gone': has no turns"]
    data = made.data.model_copy(update={"synthetic": str(store), "features_dir": str(tmp_path / "features")})
    broken = made.model_copy(update={"data": data})
    with pytest.raises(DataError) as caught:
        fit(broken, tmp_path / "run")
    assert all(place in str(caught.value) for place in places)
    monkeypatch.setattr("sys.argv", ["precompute", *overrides_of(broken)])
    assert command.main() == 1
    said = capsys.readouterr().err
    assert all(place in said for place in places)
    assert not (tmp_path / "features").exists()


def heard_refs(config: RunConfig, dialogue_ids: Sequence[str]) -> list[AudioRef]:
    """The audio of the user turns of these dialogues, in order."""
    stores = [Store(path) for path in build.training_stores(config).values()]
    dialogues = {dialogue.id: dialogue for store in stores for dialogue in map(store.__getitem__, range(len(store)))}
    turns = [turn for name in dialogue_ids for turn in dialogues[name].turns if turn.role == "user"]
    return [turn.audio for turn in turns if turn.audio is not None]


def overrides_of(config: RunConfig) -> list[str]:
    """The command line of a run whose files are made."""
    encoders = {name: getattr(config.model.encoders, name).checkpoint for name in config.model.experts}
    return [
        *QUICK,
        "model.random=false",
        "data.made_up=null",
        *(f"model.encoders.{name}.checkpoint={path}" for name, path in encoders.items()),
        f"model.llm.checkpoint={config.model.llm.checkpoint}",
        f"data.synthetic={config.data.synthetic}",
        f"data.real={config.data.real}",
        f"data.features_dir={config.data.features_dir}",
        "data.features=cached",
        f"data.val.val={config.data.val['val']}",
    ]

"""Fill the feature store: run the frozen experts once over every clip that a run will hear.

`python -m omnichat.training.precompute recipe=NAME [shard=I/N] [key=value ...]`, see --help.
"""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnichat import build
from omnichat.audio import SAMPLE_RATE, pieces
from omnichat.config import ConfigError, RunConfig, load_config
from omnichat.data.feature_shards import ShardIndex
from omnichat.data.features import FeatureKey, FeatureReader, FeatureWriter
from omnichat.dialogue import DataError
from omnichat.file_hashes import file_sha256
from omnichat.models.encoders import Encoder, EncoderError
from omnichat.recipes import locate
from omnichat.requirements import missing
from omnichat.secrets import mask_output
from omnichat.training.clips import Clip, decoded, heard_clips, in_batches

USAGE = """python -m omnichat.training.precompute recipe=NAME [shard=I/N] [key=value ...]

Runs the frozen experts once over all audio that a run hears and keeps their frames in data.features_dir, where
data.features=cached reads them. Says first how much disk that needs. Goes on where it was stopped.

shard=I/N: this process does part I (from 0) of N. Start the N processes at any time, on any machines that share the
folder; each takes the GPU of its number, writes files of its own, and nothing has to be merged. Under torchrun I and
N are its RANK and WORLD_SIZE.

examples:
  python -m omnichat.training.precompute recipe=quickstart
  for i in 0 1 2 3; do python -m omnichat.training.precompute recipe=dailytalk data.features_dir=D shard=$i/4 & done
  torchrun --nproc-per-node 8 -m omnichat.training.precompute recipe=dailytalk data.features_dir=D"""

WRITE_BEHIND = 2  # batches that are encoded, or being encoded, and not written


@dataclass(frozen=True, slots=True)
class Share:
    """Part `number` of `count` of the work, done by one process; `local` is its number on its machine."""

    number: int = 0
    count: int = 1
    local: int = 0


def fill_feature_store(config: RunConfig) -> FeatureReader:
    """Encode what is missing in `data.features_dir` of all training and validation audio; a second call does nothing.

    Raises:
        DataError: see `precompute`.
    """
    precompute(config)
    assert config.data.features_dir is not None
    return FeatureReader(locate(config.data.features_dir), list(feature_keys(config).values()))


def lacks_features(config: RunConfig) -> bool:
    """Whether `fill_feature_store` would have anything to encode."""
    assert config.data.features_dir is not None, "checked by omnichat.config"
    return bool(_missing(in_batches(heard_clips(config)), locate(config.data.features_dir), feature_keys(config)))


def precompute(config: RunConfig, share: Share = Share()) -> None:
    """Encode this share of what a run hears, as far as it is not there.

    Which clips are encoded together depends on the audio alone: a process that was stopped and goes on, or any number
    of processes, give the same numbers as one.

    Raises:
        DataError: audio that cannot be read, with its file; `foreign_features`, `disk_full`.
    """
    assert config.data.features_dir is not None, "checked by omnichat.config"
    root, keys = locate(config.data.features_dir), feature_keys(config)
    batches = in_batches(heard_clips(config))[share.number :: share.count]
    if not _missing(batches, root, keys):
        return
    with _claimed(root, share):
        if todo := _missing(batches, root, keys):  # another process may have done it meanwhile
            _encode_batches(todo, config, root, keys, share)


def feature_keys(config: RunConfig) -> dict[str, FeatureKey]:
    """What the frames of each expert of a run depend on; its weights are hashed, not loaded."""
    options, precision = build.encoder_options(config), str(build.encoder_dtype(config)).removeprefix("torch.")
    return {
        name: FeatureKey(name, file_sha256(locate(path)), precision=precision, options=options[name])
        for name, path in build.expert_checkpoints(config).items()
    }


class Encoded(NamedTuple):
    """An expert's frames (A, N, D) of A waves, still on its device, and how many each wave has."""

    frames: Tensor
    counts: list[int]

    def rows(self) -> list[NDArray[np.float32]]:
        """The frames (N, D) of each wave on the host, which waits for them."""
        found = self.frames.cpu().float().numpy()  # in this order: bfloat16 is half of what has to travel
        return [row[:count] for row, count in zip(found, self.counts, strict=True)]


def encode(
    waves: Sequence[NDArray[np.float32]], encoders: Mapping[str, Encoder], device: torch.device
) -> dict[str, Encoded]:
    """For each expert the frames of each wave, as a training step computes them with these neighbours."""
    lengths = [len(wave) for wave in waves]
    padded = torch.zeros(len(waves), max(lengths))
    for row, wave in zip(padded, waves, strict=True):
        row[: len(wave)] = torch.from_numpy(wave)
    if device.type == "cuda":
        padded = padded.pin_memory()  # else the copy would wait until the batch before is encoded
    padded = padded.to(device, non_blocking=True)
    with torch.inference_mode():
        return {
            name: Encoded(encoder.encode(padded, lengths)[0], [encoder.num_frames(length) for length in lengths])
            for name, encoder in encoders.items()
        }


def _encode_batches(
    batches: Sequence[list[Clip]], config: RunConfig, root: Path, keys: Mapping[str, FeatureKey], share: Share
) -> None:
    device = _device(config, share)
    encoders = {name: encoder.to(device) for name, encoder in build.build_encoders(config).items()}
    _announce(batches, encoders, root, share, device)
    for name, encoder in encoders.items():
        assert dict(encoder.options) == dict(keys[name].options), "its frames would go under another's key"
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(FeatureWriter(root, key, encoders[name].dim)) for name, key in keys.items()
        }
        if dropped := sum(writer.dropped for writer in writers.values()):
            print(f"{dropped} shard(s) that a stopped process had not finished are made again", flush=True)

        def write(clips: list[Clip], encoded: Mapping[str, Encoded]) -> None:
            names = [(digest, clip.ref.path) for clip in clips for digest in clip.digests]
            for expert, found in encoded.items():
                for (digest, path), piece in zip(names, found.rows(), strict=True):
                    writers[expert].add(digest, piece, path)

        # A thread fetches and writes, so that the device is given the next batch meanwhile. It ends before the writers.
        pool, writing = stack.enter_context(ThreadPoolExecutor(1)), deque[Future[None]]()
        for clips, waves in decoded(batches, config.data.num_workers):
            writing.append(pool.submit(write, clips, encode(waves, encoders, device)))
            if len(writing) > WRITE_BEHIND:
                writing.popleft().result()
        for written in writing:
            written.result()


def _device(config: RunConfig, share: Share) -> torch.device:
    if config.trainer.accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", share.local % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _missing(batches: Sequence[list[Clip]], root: Path, keys: Mapping[str, FeatureKey]) -> list[list[Clip]]:
    """The batches of which some expert lacks a piece; whole, so that a piece always has the same neighbours."""
    if not batches:
        return []
    digests = [digest for batch in batches for clip in batch for digest in clip.digests]
    there = np.ones(len(digests), dtype=np.bool_)
    for key in keys.values():
        there &= ShardIndex(key.folder(root)).contains(digests)
    ends = np.cumsum([sum(len(clip.digests) for clip in batch) for batch in batches])
    return [batch for batch, part in zip(batches, np.split(there, ends[:-1]), strict=True) if not part.all()]


def _announce(
    batches: Sequence[list[Clip]], encoders: Mapping[str, Encoder], root: Path, share: Share, device: torch.device
) -> None:
    """Say what will be encoded and the disk it needs; raise now what would otherwise be found hours later."""
    lengths = [clip.ref.num_samples for batch in batches for clip in batch]
    cut = [length for samples in lengths for _, length in pieces(samples)]
    need = sum(2 * encoder.dim * encoder.num_frames(length) for encoder in encoders.values() for length in cut)
    free = shutil.disk_usage(root).free
    part = f", part {share.number}/{share.count}" if share.count > 1 else ""
    print(
        f"encoding {len(lengths):,} clips ({sum(lengths) / SAMPLE_RATE / 3600:.3f} h) on {device} into {root}{part}: "
        f"{_size(need)} of disk needed, {_size(free)} free",
        flush=True,
    )
    if need > free:
        message = f"{_size(need)} needed, {_size(free)} free; free some, or name another data.features_dir"
        raise DataError("disk_full", message, str(root))


def _size(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.2f} MB"


@contextlib.contextmanager
def _claimed(root: Path, share: Share) -> Iterator[None]:
    """Wait for a process that does the same work: a whole run excludes parts, a part only itself."""
    root.mkdir(parents=True, exist_ok=True)
    whole = share.count == 1
    locks = {".fill.lock": fcntl.LOCK_EX if whole else fcntl.LOCK_SH}
    if not whole:
        locks[f".fill-{share.number}-of-{share.count}.lock"] = fcntl.LOCK_EX
    with ExitStack() as stack:
        for name, kind in locks.items():
            file = stack.enter_context((root / name).open("w"))
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except OSError:
                print(f"{root}: another process is filling it; waiting for it to end", file=sys.stderr, flush=True)
                fcntl.flock(file, kind)
        yield


def _share(arguments: list[str], environment: Mapping[str, str]) -> tuple[Share, list[str]]:
    """The part that the command line, or torchrun, asks for, and the arguments without it."""
    named = [word for word in arguments if word.startswith("shard=")]
    rest = [word for word in arguments if not word.startswith("shard=")]
    if not named:
        number, count, local = (int(environment.get(key, value)) for key, value in TORCHRUN.items())
        return Share(number, count, local), rest
    found = re.fullmatch(r"shard=(\d+)/(\d+)", named[-1])
    if found is None or not int(found[1]) < int(found[2]):
        raise ConfigError([f"{named[-1]}: write shard=I/N with I from 0 to N - 1, as shard=0/4"])
    return Share(int(found[1]), int(found[2]), int(found[1])), rest


TORCHRUN = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


def _faults(config: RunConfig) -> list[str]:
    faults = missing(config)
    if config.model.random or config.data.made_up is not None:
        faults.append("model.random, data.made_up: are made anew in each run's folder; train.py caches them by itself")
    if config.task == "events":
        faults.append("task=events: hears moments, whose frames a run keeps in memory; nothing to compute ahead")
    if config.data.features_dir is None:
        faults.append("data.features_dir: is null; name the folder where cached frames are kept")
    return faults


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)  # an exception: writers finish their shards on the way out


def main() -> int:
    """The command line."""
    mask_output()
    if len(sys.argv) < 2 or "--help" in sys.argv:
        print(USAGE)
        return 0 if "--help" in sys.argv else 2
    signal.signal(signal.SIGTERM, _terminated)
    try:
        share, overrides = _share(sys.argv[1:], os.environ)
        config = load_config(*overrides)
        if faults := _faults(config):
            raise ConfigError(faults)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        build.scan_data(config, build.build_prompt(config))  # a fault at the end of the data would cost hours
        precompute(config, share)
        print(f"all features of part {share.number}/{share.count} are in {config.data.features_dir}", flush=True)
    except (ConfigError, DataError, EncoderError) as error:
        print(f"precompute: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print("precompute: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

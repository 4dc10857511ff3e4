"""Fill the feature store: run the frozen experts once over every clip that a run will hear."""

import contextlib
import fcntl
import shutil
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnichat import build
from omnichat.audio import SAMPLE_RATE, pieces
from omnichat.config import ConfigError, RunConfig
from omnichat.data.feature_shards import ShardIndex
from omnichat.data.features import FeatureKey, FeatureReader, FeatureWriter
from omnichat.dialogue import DataError
from omnichat.file_hashes import file_sha256
from omnichat.models.encoders import Encoder
from omnichat.recipes import locate
from omnichat.training.clips import Clip, decoded, heard_clips, in_batches
from omnichat.training.precompute.share import WHOLE, Share

WRITE_BEHIND = 2  # batches that are encoded, or being encoded, and not written


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


def precompute(config: RunConfig, share: Share = WHOLE) -> None:
    """Encode this share of what a run hears, as far as it is not there.

    Which clips are encoded together depends on the audio alone: a process that was stopped and goes on, or any number
    of processes, give the same numbers as one.

    Raises:
        DataError: audio that cannot be read, with its file; `foreign_features`, `disk_full`.
        ConfigError: the folder cannot be written to.
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
    """Wait for a process that does the same work: a whole run excludes parts, a part only itself.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    whole = share.count == 1
    locks = {".fill.lock": fcntl.LOCK_EX if whole else fcntl.LOCK_SH}
    if not whole:
        locks[f".fill-{share.number}-of-{share.count}.lock"] = fcntl.LOCK_EX
    with ExitStack() as stack:
        for name, kind in locks.items():
            try:
                root.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context((root / name).open("w"))
            except OSError as error:
                fault = f"data.features_dir: {root} cannot be written to ({error.strerror}); name another folder"
                raise ConfigError([fault]) from None
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except OSError:
                print(f"{root}: another process is filling it; waiting for it to end", file=sys.stderr, flush=True)
                fcntl.flock(file, kind)
        yield

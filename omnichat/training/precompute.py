"""Fill the feature store: run the frozen experts once over every clip that a run will hear.

`python -m omnichat.training.precompute recipe=NAME [key=value ...]`
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import torch
from rich.console import Console
from rich.progress import track

from omnichat import build
from omnichat.audio import SAMPLE_RATE, load_audio, pieces
from omnichat.checkpoint import file_sha256
from omnichat.config import ConfigError, RunConfig, load_config
from omnichat.data.features import FeatureKey, FeatureReader, FeatureWriter
from omnichat.data.store import Store
from omnichat.dialogue import AudioRef, DataError
from omnichat.models.encoders import Encoder, EncoderError
from omnichat.recipes import locate
from omnichat.requirements import missing

BATCH_SAMPLES = 120 * SAMPLE_RATE  # audio encoded in one call; bounds memory whatever the clips' lengths


def fill_feature_store(config: RunConfig) -> FeatureReader:
    """Encode what is missing in `data.features_dir` of all training and validation audio; a second call does nothing.

    Raises:
        DataError: audio that cannot be read, with its dialogue's file; `foreign_features`.
    """
    assert config.data.features_dir is not None, "checked by omnichat.config"
    root = locate(config.data.features_dir)
    encoders = build.build_encoders(config)
    checkpoints = build.expert_checkpoints(config)
    keys = {
        name: FeatureKey(name, file_sha256(locate(checkpoints[name])), encoder.dim, options=encoder.options)
        for name, encoder in encoders.items()
    }
    with ExitStack() as stack:
        writers = {name: stack.enter_context(FeatureWriter(root, key)) for name, key in keys.items()}
        clips = [ref for ref in _heard(config) if not all(writer.has(ref) for writer in writers.values())]
        if clips:
            seconds = sum(ref.num_samples for ref in clips) / SAMPLE_RATE
            size = sum(encoder.dim for encoder in encoders.values()) * 2 * 50 * seconds / 1e6
            print(f"encoding {len(clips):,} clips ({seconds / 3600:.2f} h) into {root}: {size:,.0f} MB", flush=True)
        device = "cuda" if torch.cuda.is_available() and config.trainer.accelerator != "cpu" else "cpu"
        batches = list(_batches(clips))
        for batch in track(batches, "encoding", console=Console(stderr=True), disable=not sys.stderr.isatty()):
            _encode(batch, encoders, writers, torch.device(device))
    return FeatureReader(root, list(keys.values()))


def _heard(config: RunConfig) -> list[AudioRef]:
    """Every clip of a user turn, once, longest first: a batch too large for the device fails at once."""
    stores = [*build.training_stores(config).values(), *build.validation_stores(config).values()]
    clips = {
        turn.audio: None
        for path in stores
        for store in [Store(path)]
        for row in range(len(store))
        for turn in store[row].turns
        if turn.role == "user" and turn.audio is not None
    }
    return sorted(clips, key=lambda ref: -ref.num_samples)


def _batches(clips: Iterable[AudioRef]) -> Iterator[list[AudioRef]]:
    batch: list[AudioRef] = []
    for ref in clips:
        if batch and (len(batch) + 1) * batch[0].num_samples > BATCH_SAMPLES:
            yield batch
            batch = []
        batch.append(ref)
    if batch:
        yield batch


def _encode(
    clips: list[AudioRef], encoders: dict[str, Encoder], writers: dict[str, FeatureWriter], device: torch.device
) -> None:
    waves = [
        torch.from_numpy(wave[start : start + length])
        for ref in clips
        for wave in [load_audio(ref)]
        for start, length in pieces(len(wave))
    ]
    counts = [len(pieces(ref.num_samples)) for ref in clips]
    lengths = torch.tensor([len(wave) for wave in waves], device=device)
    padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True).to(device)
    for name, encoder in encoders.items():
        frames, frame_counts = encoder.to(device)(padded, lengths)
        encoded = [row[:count].float().cpu().numpy() for row, count in zip(frames, frame_counts.tolist(), strict=True)]
        for ref, count in zip(clips, counts, strict=True):
            writers[name].add(ref, encoded[:count])
            del encoded[:count]


def main() -> int:
    """The command line."""
    if len(sys.argv) < 2 or "--help" in sys.argv:
        print(
            "python -m omnichat.training.precompute recipe=NAME [key=value ...]\n"
            "example: python -m omnichat.training.precompute recipe=quickstart"
        )
        return 0 if "--help" in sys.argv else 2
    try:
        config = load_config(*sys.argv[1:])
        if faults := missing(config):
            raise ConfigError(faults)
        fill_feature_store(config)
    except (ConfigError, DataError, EncoderError) as error:
        print(f"precompute: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command: of which run, and which share of it."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from omnichat.config import ConfigError, RunConfig, load_config
from omnichat.requirements import missing
from omnichat.secrets import mask_output
from omnichat.training.precompute.share import read_share

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
        share, overrides = read_share(sys.argv[1:], os.environ)
        config = load_config(*overrides)
        if faults := _faults(config):
            raise ConfigError(faults)
        # Help and mistakes need not wait for torch.
        import torch

        from omnichat import build
        from omnichat.training.precompute.fill import precompute
    except ConfigError as error:
        print(f"precompute: {error}", file=sys.stderr)
        return 2
    try:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        build.scan_data(config, build.build_prompt(config))  # a fault at the end of the data would cost hours
        precompute(config, share)
        print(f"all features of part {share.number}/{share.count} are in {config.data.features_dir}", flush=True)
    except (ValueError, OSError) as error:  # ours say what, where and how to mend it
        print(f"precompute: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print("precompute: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

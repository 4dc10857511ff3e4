"""The command: of which config."""

import sys
from collections.abc import Sequence

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from omnichat.config import ConfigError, load_config
from omnichat.secrets import mask_output

USAGE = """Memory, seconds a step and hours of a run on several GPUs, counted from its config; no weights are needed.

  python -m omnichat.training.estimate recipe=NAME [key=value ...]
  python -m omnichat.training.estimate --markdown      the table of docs/hardware.md

Example:

  python -m omnichat.training.estimate recipe=dailytalk trainer.devices=1 trainer.micro_batch=4

Everything is estimated: docs/hardware.md says how, and from which measurement."""


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    mask_output()
    if not arguments or any(argument in ("-h", "--help", "help") for argument in arguments):
        print(f"{USAGE}\n\nExit codes: 0 done, 1 failed, 2 wrong usage.")
        return 0 if arguments else 2
    try:
        config = None if list(arguments) == ["--markdown"] else load_config(*arguments)
        from omnichat.training.estimate.counted import markdown, report

        print(markdown() if config is None else report(config))
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        print(
            f"estimate: {' '.join(str(error).split()) if not isinstance(error, ConfigError) else error}",
            file=sys.stderr,
        )
        return 2
    except (ValueError, OSError) as error:
        print(f"estimate: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

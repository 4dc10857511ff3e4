"""Save an expert's published file as safetensors and JSON, which nothing needs to be trusted to read.

SRC is upstream's file or folder. OUT/encoder.json has the kind of network and its sizes, OUT/encoder.safetensors what
gives frames, in float32; OUT goes wherever SRC went (`model.encoders.NAME.checkpoint=OUT`).

example:
  python -m data_prep.convert_encoder beats checkpoints/BEATs.pt checkpoints/beats
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep.arguments import command_line
from omnichat.secrets import mask_output

NAMES = ("whisper", "emotion2vec", "beats")


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert what the command line names; 0, or 1 with what is wrong with it on stderr."""
    mask_output()
    parser = command_line("data_prep.convert_encoder", __doc__)
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("source", type=Path, metavar="SRC", help="upstream's file or folder")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    given = parser.parse_args(arguments)
    from omnichat.models.encoders import load_encoder
    from omnichat.models.encoders.converted import save_converted

    try:
        save_converted(load_encoder(given.name, given.source), given.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{given.out}: {given.name} as safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())

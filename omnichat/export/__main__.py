"""The command: which run, and where to."""

import sys

from omnichat.config import ConfigError
from omnichat.recipes import did_you_mean
from omnichat.secrets import mask_output

USAGE = """Write what a run trained in the formats that others read.

  python -m omnichat.export run=runs/NAME out=FOLDER [checkpoint=newest|best|STEP] [merge=true]

Example:

  python -m omnichat.export run=runs/quickstart out=exports/quickstart merge=true

OUT gets the LoRA adapter as PEFT lays it out, mixformer.safetensors, omnichat_config.yaml, the tokenizer, and a model
card (README.md); omnichat loads it as it loads a run: Chat.load("OUT"), init_from=OUT. With merge=true, OUT/merged is
the language model with the adapter in its weights."""
KEYS = ("run", "out", "checkpoint", "merge")


def parse(arguments: list[str]) -> dict[str, str]:
    """`key=value` arguments by key.

    Raises:
        ConfigError: all unknown, malformed and missing ones at once.
    """
    values, faults = {}, []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not value:
            faults.append(f"{argument}: is not of the form key=value")
        elif key not in KEYS:
            faults.append(f"{key}: unknown key{did_you_mean(key, KEYS)}")
        else:
            values[key] = value
    if not faults:
        faults += [f"{key}: is missing; see --help" for key in ("run", "out") if key not in values]
    if values.get("merge", "false") not in ("true", "false"):
        faults.append(f"merge: true or false, got {values['merge']!r}")
    if faults:
        raise ConfigError(faults)
    return values


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    mask_output()
    if any(argument in ("-h", "--help", "help") for argument in arguments):
        print(f"{USAGE}\n\nExit codes: 0 done, 1 failed, 2 wrong usage.")
        return 0
    try:
        values = parse(arguments)
        from omnichat.export.formats import export

        start = export(values["run"], values["out"], values.get("checkpoint", "newest"), values.get("merge") == "true")
    except ConfigError as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    print(f"{values['out']}: step {start.step} of {values['run']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

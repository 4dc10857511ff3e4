"""What the command lines of `eval/` have in common: `key=value`, help, exit codes. Light: nothing heavy is imported."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from omnichat.recipes import did_you_mean
from omnichat.secrets import mask_output

DONE, FAILED, WRONG_USAGE = 0, 1, 2


class UsageError(ValueError):
    """A command line that makes no sense; the message says what would."""


def guarded(arguments: Sequence[str], usage: str, body: Callable[[], None]) -> int:
    """Print the usage where it is asked for, else run `body`; returns the exit code and never shows a traceback."""
    mask_output()
    if any(argument in ("-h", "--help", "help") for argument in arguments):
        print(f"{usage}\n\nExit codes: 0 done, 1 failed, 2 wrong usage.")
        return DONE
    program = Path(sys.argv[0]).name
    try:
        body()
    except UsageError as error:
        print(f"{program}: {error}\nsee: python {sys.argv[0]} --help", file=sys.stderr)
        return WRONG_USAGE
    except (ValueError, OSError) as error:  # ours say what, where and how to mend it
        print(f"{program}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"{program}: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return FAILED
    return DONE


def read_pairs(arguments: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """`key=value` arguments by key.

    Raises:
        UsageError: all unknown keys and malformed arguments at once.
    """
    values, faults = {}, []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            faults.append(f"{argument}: is not of the form key=value")
        elif key not in known:
            faults.append(f"{key}: unknown key{did_you_mean(key, known)}")
        else:
            values[key] = value
    if faults:
        raise UsageError("; ".join(faults))
    return values


def split_arguments(arguments: Sequence[str], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments without `=` that stand first, as many as there are `names`; and the rest.

    Raises:
        UsageError: fewer, with the names of all.
    """
    count = next((place for place, one in enumerate(arguments) if "=" in one), len(arguments))
    if count < len(names):
        raise UsageError(f"{' '.join(names[count:])}: missing; the arguments are {' '.join(names)} [key=value ...]")
    return list(arguments[: len(names)]), list(arguments[len(names) :])


def read_numbers(values: Mapping[str, str], keys: Sequence[str]) -> dict[str, int]:
    """Those of the keys that are given, as whole numbers.

    Raises:
        UsageError: all that are none.
    """
    given = {key: values[key] for key in keys if key in values}
    if wrong := [f"{key}: a whole number, got {value!r}" for key, value in given.items() if not value.isdecimal()]:
        raise UsageError("; ".join(wrong))
    return {key: int(value) for key, value in given.items()}


def read_folder(values: Mapping[str, str], key: str) -> Path | None:
    """A folder that is there; None where the key is not given.

    Raises:
        UsageError: there is no such folder.
    """
    if not values.get(key):
        return None
    path = Path(values[key]).expanduser()
    if not path.is_dir():
        raise UsageError(f"{key}: {path} is not a folder")
    return path


def read_names(values: Mapping[str, str], key: str) -> tuple[str, ...]:
    """A list with commas, empty where the key is not given."""
    return tuple(name for name in values.get(key, "").split(",") if name)


def read_flag(values: Mapping[str, str], key: str, default: bool) -> bool:
    """`true` or `false`.

    Raises:
        UsageError: anything else.
    """
    value = values.get(key, str(default).lower())
    if value not in ("true", "false"):
        raise UsageError(f"{key}: true or false, got {value!r}")
    return value == "true"

"""What the command lines of `data_prep` share."""

import argparse


def command_line(module: str, about: str | None, epilog: str | None = None) -> argparse.ArgumentParser:
    """An empty command line whose help keeps its line breaks, so that examples stay as they are written.

    Args:
        module: dotted, what stands behind `python -m`.
        about: the module's docstring.
        epilog: what stands behind the options.
    """
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog=f"python -m {module}", description=about, epilog=epilog, formatter_class=raw)


def at_least_one(text: str) -> int:
    """A number of things, as an argument's `type`.

    Raises:
        ArgumentTypeError: it is no whole number, or below 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)

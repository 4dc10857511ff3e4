"""Which part of the work a process does."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from omnichat.config import ConfigError

TORCHRUN = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


@dataclass(frozen=True, slots=True)
class Share:
    """Part `number` of `count` of the work, done by one process; `local` is its number on its machine."""

    number: int = 0
    count: int = 1
    local: int = 0


WHOLE = Share()


def read_share(arguments: list[str], environment: Mapping[str, str]) -> tuple[Share, list[str]]:
    """The part that the command line, or torchrun, asks for, and the arguments without it.

    Raises:
        ConfigError: a `shard=` that names no part.
    """
    named = [word for word in arguments if word.startswith("shard=")]
    rest = [word for word in arguments if not word.startswith("shard=")]
    if not named:
        number, count, local = (int(environment.get(key, value)) for key, value in TORCHRUN.items())
        return Share(number, count, local), rest
    found = re.fullmatch(r"shard=(\d+)/(\d+)", named[-1])
    if found is None or not int(found[1]) < int(found[2]):
        raise ConfigError([f"{named[-1]}: write shard=I/N with I from 0 to N - 1, as shard=0/4"])
    return Share(int(found[1]), int(found[2]), int(found[1])), rest

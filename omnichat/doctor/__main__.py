"""The command: one page on this machine, and on one run where it is named."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby

from omnichat.config import ConfigError, load_config
from omnichat.secrets import mask_output

USAGE = """What this machine has and lacks, and with a recipe what that needs of it, each with its remedy.

  python -m omnichat.doctor [recipe=NAME key=value ...] [--json]

Example:

  python -m omnichat.doctor recipe=dailytalk trainer.devices=4

Nothing is loaded, downloaded or written. `-` is not there and not needed, `?` may fail or be slow.

Exit codes: 0 nothing that is needed is missing, 1 something is, 2 wrong usage."""
MARKS = {"ok": "ok", "absent": "-", "doubtful": "?", "missing": "MISSING"}


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    mask_output()
    if any(argument in ("-h", "--help", "help") for argument in arguments):
        print(USAGE)
        return 0
    overrides = [argument for argument in arguments if argument != "--json"]
    try:
        config = load_config(*overrides) if overrides else None
    except ConfigError as error:
        print(f"doctor: {error}", file=sys.stderr)
        return 2
    from omnichat.doctor.computing import computing
    from omnichat.doctor.findings import Finding, machine, packages, programs
    from omnichat.doctor.this_run import needed

    found: list[Finding] = [*machine(), *packages(), *computing(config), *programs()]
    found += needed(config) if config is not None else []
    lacking = [one for one in found if one.state == "missing"]
    if len(overrides) < len(arguments):
        print(json.dumps({"sound": not lacking, "findings": [asdict(one) for one in found]}, indent=1))
        return 1 if lacking else 0
    width = max(len(one.name) for one in found)
    for area, some in groupby(found, key=lambda one: one.area):
        print(area if area != "this run" else f"this run: {' '.join(overrides)}")
        for one in some:
            cure = f"; {one.remedy}" if one.remedy else ""
            print(f"  {MARKS[one.state]:<8} {one.name:<{width}}  {one.found}{cure}")
    print(f"{len(lacking)} needed, and missing" if lacking else "nothing that is needed is missing")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

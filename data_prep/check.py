"""Every fault of a store, a line each with its reason, file, line and turn; then how much the store holds.

STORE is a store's folder (all its splits), the folder of a split in shards, or a JSONL file:

    python -m data_prep.check corpora/dailytalk
    python -m data_prep.check my/train.jsonl --no-decode --json faults.json

All audio is decoded, shards are compared with their sha256, and so are audio files that have one. Silent, clipped and
too loud clips, and control tokens spelled out in texts, are counted, and no fault. Exit codes: 0 sound, 1 faults,
2 wrong usage.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.arguments import at_least_one, command_line
from data_prep.resumable import Task, digest, run_tasks, write_whole
from omnichat.data.store_check import Found, Ids, Options, Part, check_part, parts_of, prompt_of, reasons
from omnichat.dialogue import DataError
from omnichat.prompt import INPUTS
from omnichat.secrets import mask_output, masked

SOUND, FAULTS, INTERRUPTED = 0, 1, 130
MAX_SHOWN = 600  # characters of a fault's line: a broken file may hold anything, and all of it on one line


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the store that the command line names."""
    mask_output()
    parser = _command_line()
    given = parser.parse_args(arguments)
    if (given.tokenizer is None) != (given.max_tokens is None):
        parser.error("--tokenizer and --max-tokens go together")
    tokenizer = given.tokenizer / "tokenizer.json" if given.tokenizer is not None else None
    if tokenizer is not None and not tokenizer.is_file():
        parser.error(f"no file {tokenizer}; --tokenizer takes the folder of a language model")
    options = Options(given.decode, tokenizer, given.max_tokens, given.input)
    try:
        prompt_of(options)  # a tokenizer that cannot be used is no fault of the store
        parts, faults = parts_of(given.store)
    except DataError as error:
        parser.error(str(error))
    try:
        splits = check(parts, options, given.workers, faults)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAULTS
    notices = [notice for found in splits.values() for notice in found.notices]
    if given.json is not None:
        write_whole(given.json, masked(report(str(given.store), splits, faults, notices)))
    for fault in faults:
        print(shown(fault))
    print(table(splits, faults, notices), flush=True)
    return FAULTS if faults else SOUND


def check(parts: Sequence[Part], options: Options, workers: int, faults: list[dict[str, Any]]) -> dict[str, Found]:
    """What each split holds; all faults are added to `faults`, in the order of the store."""
    tasks = [Task(digest(repr(part)), (part, options)) for part in parts]
    splits: dict[str, Found] = {}
    twice: list[dict[str, Any]] = []
    ids = Ids(parts)
    with tempfile.TemporaryDirectory() as kept:
        # One part at a time: all ids of a large store together would fill the memory.
        for number, one in enumerate(run_tasks(tasks, check_part, Path(kept), workers, "checking")):
            found = Found(**one)
            splits.setdefault(parts[number].split, Found()).add(found)
            faults += found.faults
            twice += ids.twice(number, found)
    faults += twice
    return splits


def shown(fault: dict[str, Any]) -> str:
    """A fault on one line, whatever is in it."""
    text = f"{fault['where']}: {fault['message']}"
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    if len(text) > MAX_SHOWN:
        text = f"{text[: MAX_SHOWN // 2]} ... {text[-MAX_SHOWN // 2 :]}"
    return f"{text} [{fault['reason']}]"


def table(splits: dict[str, Found], faults: Sequence[dict[str, Any]], notices: Sequence[dict[str, Any]]) -> str:
    """Sizes of the splits, and how many faults and oddities of each reason there are."""
    total = Found()
    for found in splits.values():
        total.add(found)
    rows = list(splits.items()) if len(splits) < 2 else [*splits.items(), ("all", total)]
    lines = [f"{'':>20} {'dialogues':>10} {'turns':>10} {'with audio':>10} {'hours':>9}"]
    lines += [
        f"{name:>20} {found.dialogues:10d} {found.turns:10d} {found.heard:10d} {found.hours:9.2f}"
        for name, found in rows
    ]
    lines += [f"faults: {len(faults)}", *(f"{name:>20} {count:10d}" for name, count in reasons(faults).items())]
    lines += [f"kept, but odd: {len(notices)}"]
    for name, count in reasons(notices).items():
        first = next(notice for notice in notices if notice["reason"] == name)
        lines.append(f"{name:>20} {count:10d}  first: {shown(first)}")
    return "\n".join(lines)


def report(
    store: str, splits: dict[str, Found], faults: Sequence[dict[str, Any]], notices: Sequence[dict[str, Any]]
) -> str:
    """All of it as JSON."""
    sizes = {
        name: {
            "dialogues": found.dialogues,
            "turns": found.turns,
            "turns_with_audio": found.heard,
            "hours": round(found.hours, 4),
        }
        for name, found in splits.items()
    }
    record = {"store": store, "sound": not faults, "splits": sizes}
    record |= {"reasons": reasons(faults), "odd": reasons(notices), "faults": faults, "notices": notices}
    return json.dumps(record, ensure_ascii=True, indent=2) + "\n"


def _command_line() -> argparse.ArgumentParser:
    parser = command_line("data_prep.check", __doc__)
    parser.add_argument("store", type=Path, metavar="STORE", help="a store's folder, a split's folder, or a JSONL file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every fault and count to a JSON file too")
    decode = "decode all audio and compare sha256 (default); without it, headers and sizes only"
    parser.add_argument("--decode", action=argparse.BooleanOptionalAction, default=True, help=decode)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "--workers", type=at_least_one, default=cores, metavar="N", help=f"processes ({cores}, the cores)"
    )
    lengths = "folder of a language model: dialogues of more than --max-tokens are faults too"
    parser.add_argument("--tokenizer", type=Path, metavar="FOLDER", help=lengths)
    longest = "longest dialogue in tokens, without a system message"
    parser.add_argument("--max-tokens", type=at_least_one, metavar="N", help=longest)
    heard = "what the model gets of a user turn, for --max-tokens (speech)"
    parser.add_argument("--input", choices=INPUTS, default="speech", help=heard)
    return parser


if __name__ == "__main__":
    sys.exit(main())

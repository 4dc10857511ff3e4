"""The commands, and what they print."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType

from rich.console import Console
from rich.table import Table

from data_prep.synthesis.config import ConfigError, compose
from data_prep.synthesis.content import count
from data_prep.synthesis.contracts import REASONS
from data_prep.synthesis.decisions import DecisionError, parse_decisions, take_in
from data_prep.synthesis.estimate import estimate
from data_prep.synthesis.figures import figures, listed
from data_prep.synthesis.folder import FolderError, RunFolder, enter
from data_prep.synthesis.leases import living_drivers, lost_drivers
from data_prep.synthesis.ledger import Ledger, LedgerError
from data_prep.synthesis.merge import merge
from data_prep.synthesis.pilot import write_pilot
from data_prep.synthesis.pipeline import WORKED
from data_prep.synthesis.report import HTML, Rows, summary, write_report
from data_prep.synthesis.runner import DiskFull
from data_prep.synthesis.serve import StageFailed
from data_prep.synthesis.session import session
from data_prep.synthesis.stage import BackendError
from data_prep.synthesis.store import pack_store
from data_prep.synthesis.verify import verify
from omnichat.dialogue import DataError
from omnichat.secrets import mask_output

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
OURS = (DiskFull, StageFailed, LedgerError, BackendError, DataError, ValueError, OSError)


class UsageError(ValueError):
    """An option that makes no sense; the message says what would."""


def run_command(options: argparse.Namespace) -> int:
    """Run a parsed command; the exit code."""
    mask_output()
    signal.signal(signal.SIGTERM, _interrupt)  # how SLURM and others end a job
    try:
        return COMMANDS[options.command](options)
    except (ConfigError, FolderError, UsageError, DecisionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_USAGE
    except OURS as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"stopped; what is done is kept, `resume {options.out}` goes on from there", file=sys.stderr)
        return INTERRUPTED


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _configured(options: argparse.Namespace) -> RunFolder:
    """The folder of a command that takes a config. What is not given is as the folder has it."""
    folder = RunFolder(options.out)
    settings = list(options.settings)
    if getattr(options, "shard", None):
        settings.append(f"shard={options.shard}")
    old = folder.config() if folder.configured else None
    if old is not None and not settings:
        return folder
    return enter(options.out, compose(settings, old), options.change)


def plan(options: argparse.Namespace) -> int:
    """Name the scripts of a run."""
    folder = _configured(options)
    with session(folder) as pipeline:
        scripts = pipeline.want_scripts()
        branches = pipeline.config.writing.branches
        splits: dict[str, int] = {}
        for brief in pipeline.briefs:
            splits[brief.split] = splits.get(brief.split, 0) + 1
        shown = ", ".join(f"{split} {number:,}" for split, number in splits.items())
        print(f"{folder.root}: {scripts:,} scripts ({shown}), up to {scripts * branches:,} dialogues")
        print(f"next: python -m data_prep.synthesis estimate {folder.root}, or resume {folder.root}")
    return DONE


def run(options: argparse.Namespace) -> int:
    """Make everything."""
    return _make(_configured(options))


def resume(options: argparse.Namespace) -> int:
    """Go on."""
    return _make(RunFolder(options.out))


def _make(folder: RunFolder) -> int:
    began = time.monotonic()
    with session(folder) as pipeline:
        pipeline.walk()
        made = count(pipeline.mixed())
        if pipeline.config.shard is None:
            pack_store(pipeline)
    with session(folder) as pipeline:  # a second time, so that the report knows of the first
        write_report(pipeline)
        for title, (head, rows) in summary(figures(pipeline.ledger), made).items():
            _print_table(title, head, rows)
        where = (
            f"store: {folder.store}" if pipeline.config.shard is None else "a shard: `merge` packs it with the others"
        )
    print(f"{where}; report: {folder.root / HTML}; {time.monotonic() - began:.0f} s")
    return DONE


def status(options: argparse.Namespace) -> int:
    """What there is."""
    folder = RunFolder(options.out)
    with session(folder) as pipeline:
        ledger = pipeline.ledger
        found = figures(ledger)
        content = count(pipeline.mixed())
        for title, (head, rows) in summary(found, content).items():
            _print_table(title, head, rows)
        drivers = [name for name in living_drivers(ledger.connection) if name != pipeline.lease.name]
        lost = lost_drivers(ledger.connection)
        print(f"drivers at work: {', '.join(drivers) or 'none'}" + (f"; gone: {', '.join(lost)}" if lost else ""))
        for one in found:
            if one.reasons:
                example = next(result.message for result in ledger.results(one.stage) if result.reason)
                print(f"{one.stage}: {listed(one.reasons)}; for example: {example}")
    return DONE


def retry(options: argparse.Namespace) -> int:
    """Open refused items again and go on."""
    folder = RunFolder(options.out)
    if options.reason is not None and options.reason not in REASONS:
        from omnichat.recipes import did_you_mean  # Hydra comes with it

        raise UsageError(f"--reason {options.reason}: is no reason{did_you_mean(options.reason, REASONS)}")
    if options.stage is not None and options.stage not in WORKED:
        raise UsageError(f"--stage {options.stage}: is not one of {', '.join(WORKED)}")
    with session(folder) as pipeline:
        if options.decisions is not None:
            scripts = {mixed.plan.id: mixed.plan.brief.number for mixed in pipeline.mixed()}
            new = parse_decisions(options.decisions)
            take_in(pipeline.ledger, new, scripts)
            refused = sum(decision.verdict == "refused" for decision in new.values())
            print(f"{len(new)} decisions, {refused} dialogues are made again")
        else:
            opened = pipeline.ledger.reopen(options.reason, (options.stage,) if options.stage else WORKED)
            print(f"{opened:,} items of reason {options.reason} are pending again")
            for note in _settled(pipeline.ledger, options.reason) if options.stage is None else ():
                print(note)
            if not opened:
                return DONE
    return _make(folder)


def _settled(ledger: Ledger, reason: str) -> list[str]:
    """What else was refused for this reason, by rules that would decide alike again, and what would change that."""
    cures = {"deduplicate": "write others with another seed", "conversation": "raise conversation.max_takes"}
    counts = {stage: sum(one.reason == reason for one in ledger.results(stage)) for stage in cures}
    if reason == "turn_missing":
        cures["conversation"] = "`retry` the reason of their turn in stage speak"
    elif reason == "wer":
        cures["conversation"] += " or conversation.max_wer, with `run OUT KEY=VALUE --change`"
    return [f"{counts[stage]:,} more in stage {stage} stay refused: {cures[stage]}" for stage in cures if counts[stage]]


def check(options: argparse.Namespace) -> int:
    """Verify a run."""
    with session(RunFolder(options.out)) as pipeline:
        faults = verify(pipeline)
    for fault in faults:
        print(fault)
    print(f"{options.out}: {len(faults)} faults" if faults else f"{options.out}: sound")
    return FAILED if faults else DONE


def extrapolate(options: argparse.Namespace) -> int:
    """Make the first scripts and say what all would take."""
    folder = _configured(options)
    with session(folder, limit=options.items) as pipeline:
        pipeline.walk()
        scripts = sum(pipeline.config.has(number) for number in range(pipeline.config.scripts))
        rows = [
            [one.name, *(f"{value:,.3g} {one.unit}".strip() for value in (one.value, one.low, one.high))]
            for one in estimate(pipeline, scripts)
        ]
        made = len(pipeline.briefs)
    _print_table(f"{scripts:,} scripts, from the first {made}", ["quantity", "estimate", "95 % from", "to"], rows)
    print("The interval is the spread between scripts. Worker hours are divided by what a worker does side by side.")
    return DONE


def listen(options: argparse.Namespace) -> int:
    """Make the first dialogues and the page to judge them."""
    folder = _configured(options)
    branches = folder.config().writing.branches
    with session(folder, limit=-(-options.dialogues // branches)) as pipeline:
        pipeline.walk()
        shown = write_pilot(pipeline, options.dialogues, options.embed)
    print(f"{folder.pilot}: {shown} dialogues; judge them, save the file, then: retry {folder.root} --decisions FILE")
    return DONE


def report(options: argparse.Namespace) -> int:
    """Write the report."""
    folder = RunFolder(options.out)
    with session(folder) as pipeline:
        write_report(pipeline)
    print(f"report: {folder.root / HTML}")
    return DONE


def unite(options: argparse.Namespace) -> int:
    """Merge shards."""
    return _make(merge(options.out, options.shards))


def _print_table(title: str, head: list[str], rows: Rows) -> None:
    if not rows:
        return
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, name in enumerate(head):
        table.add_column(name, justify="left" if number == 0 or name == "meaning" else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = 140
    console.print(table)


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "plan": plan,
    "run": run,
    "resume": resume,
    "status": status,
    "retry": retry,
    "verify": check,
    "estimate": extrapolate,
    "pilot": listen,
    "report": report,
    "merge": unite,
}

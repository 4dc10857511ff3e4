"""The command line: python -m data_prep.synthesis COMMAND. What is heavy is loaded only by a command that needs it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep.arguments import at_least_one, command_line
from omnichat.secrets import mask_output

ABOUT = """\
Write, speak, check and mix spoken dialogues; what is made is remembered and never made twice.

  python -m data_prep.synthesis run data/mini recipe=sharechat_emotion_mini

A run is a folder: config.yaml, ledger.sqlite, blobs/, and in the end store/ (what train.py reads) and report.html.
Kill it whenever you like: `resume` goes on. docs/synthesis.md has real servers, clusters and what large runs take.
"""
CODES = "exit codes: 0 done, 1 failed or faults were found, 2 wrong usage, 130 stopped by Ctrl-C or SIGTERM (`resume`)"
EXAMPLES = {
    "plan": "plan data/mini recipe=sharechat_emotion_mini scripts=50\n  names the scripts of the run; nothing is made",
    "run": "run data/mini recipe=sharechat_emotion_mini seed=1 execution.workers=4\n"
    "  run data/part0 recipe=sharechat_emotion_mini --shard 0/4     (one of four independent parts; see merge)",
    "resume": "resume data/mini",
    "status": "status data/mini",
    "retry": "retry data/mini --reason wer\n  retry data/mini --decisions decisions.json     (of the pilot's page)",
    "verify": "verify data/mini",
    "estimate": "estimate data/mini recipe=sharechat_emotion_mini scripts=20000 --items 20",
    "pilot": "pilot data/mini recipe=sharechat_emotion_mini --dialogues 50",
    "report": "report data/mini",
    "merge": "merge data/whole data/part0 data/part1 data/part2 data/part3",
}
HELP = {
    "plan": "write the config and the list of scripts",
    "run": "make everything: scripts, speech, mixes, store, report",
    "resume": "go on with a run as it was configured",
    "status": "what is made, refused and waiting, and who works on it",
    "retry": "make refused items pending again, then go on",
    "verify": "hash all recordings again, look for leaks between splits, compare ledger and store",
    "estimate": "make the first scripts and extrapolate calls, tokens, hours, disk and money",
    "pilot": "make the first dialogues and a page to accept or refuse them by ear",
    "report": "write report.html and report.md",
    "merge": "unite shards in a new run, byte for byte as if one run had made it",
}
CONFIGURED = ("plan", "run", "estimate", "pilot")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    main = command_line("data_prep.synthesis", ABOUT, CODES)
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, about in HELP.items():
        epilog = f"example:\n  python -m data_prep.synthesis {EXAMPLES[name]}\n\n{CODES}"
        if name in CONFIGURED:
            epilog = f"{_recipes()}\n\n{epilog}"
        command = commands.add_parser(name, help=about, description=about, epilog=epilog, formatter_class=raw)
        command.add_argument("out", type=Path, metavar="OUT", help="folder of the run")
        if name in CONFIGURED:
            command.add_argument(
                "settings", nargs="*", metavar="KEY=VALUE", help="recipe=NAME (or a YAML file), and overrides"
            )
            command.add_argument(
                "--change", action="store_true", help="OUT holds a run of another config: adopt this one"
            )
        if name in ("plan", "run"):
            command.add_argument("--shard", metavar="I/N", help="only scripts whose number is I modulo N; I from 0")
        if name == "merge":
            command.add_argument("shards", nargs="+", type=Path, metavar="SHARD", help="folders of all shards")
        if name == "retry":
            what = command.add_mutually_exclusive_group(required=True)
            what.add_argument("--reason", metavar="R", help="what was refused for this reason; `status` lists them")
            what.add_argument("--decisions", type=Path, metavar="FILE", help="what the pilot's page saved")
            command.add_argument("--stage", metavar="S", help="of this stage only: scripts, speak or mix")
        if name == "estimate":
            command.add_argument("--items", type=at_least_one, default=20, metavar="N", help="scripts to make (20)")
        if name == "pilot":
            command.add_argument("--dialogues", type=at_least_one, default=50, metavar="N", help="to listen to (50)")
            command.add_argument("--embed", action="store_true", help="put the audio into the page")
    return main


def _recipes() -> str:
    folder = Path(__file__).with_name("recipes")
    titles = {
        path.stem: path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        for path in sorted(folder.glob("*.yaml"))
    }
    width = max(map(len, titles), default=0)
    return "recipes:\n" + "\n".join(f"  {name:<{width}}  {title}" for name, title in titles.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    mask_output()
    command = parser()
    options, rest = command.parse_known_args(arguments)
    if rest:  # argparse takes no further KEY=VALUE after an option
        if not hasattr(options, "settings") or any(text.startswith("-") or "=" not in text for text in rest):
            command.error(f"unrecognized arguments: {' '.join(rest)}")
        options.settings += rest
    from data_prep.synthesis.commands import run_command

    return run_command(options)


if __name__ == "__main__":
    sys.exit(main())

"""The paper's tables and figures, trained and scored: `python eval/experiment.py NAME [NAME ...]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from omnichat.evaluation.arguments import guarded

EXAMPLES = """examples:
  python eval/experiment.py table4 --seeds 0 1 2          # at tiny size, on two CPU cores
  python eval/experiment.py table4 --size full            # on a cluster's node, as recipes/ have it
  python eval/experiment.py all --out runs/experiments --text docs/results-tiny.md
  python eval/experiment.py table2 --set trainer.max_steps=100 --show
  python eval/experiment.py table4 --size full --rows "alpha 0" "alpha 0.2"   # others may be made elsewhere meanwhile

A run is known by the hash of its config and its dialogues: what is there is not made again, and the same command goes
on after an interruption. Equal rows of several experiments are one run."""


def main(arguments: Sequence[str]) -> int:
    """Run experiments and write their pages; returns the exit code."""
    parser = _parser()
    return guarded(arguments, parser.format_help().rstrip(), lambda: _run(parser.parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eval/experiment.py",
        description="Train and score the rows of the paper's tables and figures; the paper's values beside ours.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="of eval/experiments/NAME.yaml, or all")
    parser.add_argument("--size", default="tiny", help="tiny (default), full, or another that the experiment has")
    parser.add_argument(
        "--rows", nargs="+", default=[], metavar="ROW", help="make these, and those they begin with (all)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N", help="of each row (0)")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="runs side by side (1); tiny ones take a core each"
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of every run")
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"), help="folder of runs and pages")
    parser.add_argument("--text", type=Path, metavar="FILE", help="write all results into one Markdown file too")
    parser.add_argument("--wordnet", type=Path, metavar="FOLDER", help="for METEOR")
    parser.add_argument("--bertscore", type=Path, metavar="FOLDER", help="for BERTScore")
    parser.add_argument("--show", action="store_true", help="list the runs and which are there; make nothing")
    return parser


def _run(options: argparse.Namespace) -> None:
    from omnichat.evaluation.experiments.definition import load, names
    from omnichat.evaluation.experiments.results_page import all_results, write_results
    from omnichat.evaluation.experiments.runs import only, plan, read_outcome, run_all
    from omnichat.secrets import masked

    scoring = [f"{key}={value}" for key in ("wordnet", "bertscore") if (value := getattr(options, key)) is not None]
    results, failed = [], 0
    for name in names() if options.names == ["all"] else options.names:
        experiment = load(name)
        runs = plan(experiment, options.size, options.seeds, options.out, options.set)
        if options.show:
            for outcome in (read_outcome(planned, experiment.splits) for planned in runs):
                state = "scored" if outcome.scores else outcome.fault
                print(f"{name}: {outcome.planned.row}, seed {outcome.planned.seed}: {state}, {outcome.planned.folder}")
            continue
        chosen = only(runs, options.rows) if options.rows else runs
        made = run_all(chosen, experiment.splits, scoring, name, max(1, options.jobs))
        outcomes = made + [read_outcome(planned, experiment.splits) for planned in runs if planned not in chosen]
        failed += sum(bool(outcome.fault) for outcome in made)
        results.append((experiment, outcomes))
        print(f"{name}: {write_results(experiment, options.size, outcomes, options.out, name)}")
    if options.text is not None and results:
        options.text.write_text(masked(all_results(results, options.size)), encoding="utf-8")
        print(f"all results: {options.text}")
    if failed:
        raise ValueError(f"{failed} runs have no scores; each page says why")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

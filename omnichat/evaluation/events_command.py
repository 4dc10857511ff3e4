"""The command line of eval/run_events.py."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from omnichat.evaluation.arguments import UsageError, guarded, read_names, read_pairs
from omnichat.evaluation.command import read_config
from omnichat.recipes import locate
from omnichat.schema import RunConfig

OPTIONS = """  run=FOLDER            a run of task=events, e.g. runs/interact_events
  store=PATH[,PATH...]  two-track dialogues instead of the run's test sets; each set is named after its folder
  checkpoint=newest     or best (by the loss on data.val), or a step"""


def main(arguments: Sequence[str], usage: str) -> int:
    """Classify and score; returns the exit code.

    Args:
        arguments: `key=value` each.
        usage: what `--help` prints before the options.
    """

    def body() -> None:
        values = read_pairs(arguments, ("run", "store", "checkpoint"))
        if not values.get("run"):
            raise UsageError("run: is missing; name the folder of a run, as in run=runs/interact_events")
        run = locate(values["run"])
        config = _config(run)
        stores = _stores(values, config)
        from omnichat.evaluation.events import print_events, score_events

        print_events(score_events(run, config, stores, values.get("checkpoint", "newest")))

    return guarded(arguments, f"{usage}\n\n{OPTIONS}", body)


def _config(run: Path) -> RunConfig:
    config = read_config(run, {})
    if not isinstance(config, RunConfig):
        raise UsageError(f"run: {run} holds a baseline, not a run of train.py")
    if config.task != "events":
        raise UsageError(f"run: {run} is a run of task={config.task}; score it with eval/run_store.py")
    return config


def _stores(values: Mapping[str, str], config: RunConfig) -> dict[str, Path]:
    paths = read_names(values, "store")
    named = {Path(path).stem: path for path in paths} or dict(config.data.test)
    if len(named) < len(paths):
        raise UsageError("store: two have the same name, their scores could not be told apart; one at a time")
    if not named:
        raise UsageError("store: missing, and the run's config has no data.test")
    found = {name: locate(path) for name, path in named.items()}
    if absent := [str(path) for path in found.values() if not path.exists()]:
        raise UsageError(f"no such file: {', '.join(absent)}; make the store first, or correct the path")
    return found

"""The command line of `eval/`: stages of one run, each repeatable alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from omnichat.config import ConfigError, saved_config
from omnichat.evaluation.arguments import (
    UsageError,
    guarded,
    read_flag,
    read_folder,
    read_names,
    read_numbers,
    read_pairs,
)
from omnichat.evaluation.baselines.settings import BaselineConfig, ScoredConfig, read_baseline
from omnichat.recipes import did_you_mean, locate
from omnichat.run_folder import config_file
from omnichat.schema import EvaluationConfig, RunConfig

STAGES = ("all", "generate", "score", "report")

OPTIONS = """  run=FOLDER            a run of train.py, e.g. runs/quickstart
  checkpoint=newest     or best, or a step: the weights that answer (replies of others are dropped)
  split=NAME[,NAME...]  sets of the run's data.test or data.val; by default all of data.test
  store=PATH            any dialogues instead, a JSONL file or a folder of shards; its set is named after it
  stage=NAME            all (default) | generate | score | report; score and report need no model (a baseline's
                        folder has these alone: eval/baseline.py)
  limit=NUMBER          answer only so many dialogues of a set; the scores are marked as partial
  partial=true          score a set whose replies are not all there, and mark it; otherwise that is an error
  wordnet=FOLDER        WordNet's files, for METEOR (Debian's wordnet-base: /usr/share/wordnet)
  bertscore=FOLDER      a Hugging Face encoder, for BERTScore (usual: roberta-large); bertscore_layers=NUMBER
  beside=FOLDER[,...]   scored runs to stand beside this one in the report
  title=TEXT            of the report
  turns=last            the paper's; gold_history or own_history: every assistant turn, after the corpus's history or
                        after the model's own replies; such a set is named NAME.gold_history
  batch_size= max_new_tokens= bootstrap= seed=   override the run's evaluation.* settings"""


@dataclass(frozen=True, slots=True)
class Command:
    """A parsed command line."""

    run: Path
    stage: str
    splits: Mapping[str, Path]
    checkpoint: str = "newest"
    limit: int | None = None
    partial: bool = False
    wordnet: Path | None = None
    bertscore: Path | None = None
    bertscore_layers: int | None = None
    beside: tuple[Path, ...] = ()
    title: str = ""


def main(arguments: Sequence[str], usage: str, store: str | None = None) -> int:
    """Run the stages that the arguments ask for; returns the exit code.

    Args:
        arguments: `key=value` each.
        usage: what `--help` prints before the options: what the program does, and an example.
        store: the dialogues that are scored by default, instead of the run's own test sets.
    """

    def body() -> None:
        values = parse(arguments)
        names = [name for name in EvaluationConfig.model_fields if name != "turns"]
        settings: dict[str, int | str] = {**read_numbers(values, names)}
        settings |= {"turns": values["turns"]} if "turns" in values else {}
        config = read_config(locate(values["run"]), settings)
        run_stages(_command(values, config, store), config)

    return guarded(arguments, f"{usage}\n\n{OPTIONS}", body)


def run_stages(command: Command, config: ScoredConfig) -> None:
    """Generate, score, report: those that are asked for.

    Raises:
        DataError, CheckpointError, ValueError: with what failed, where, and the cure.
    """
    if command.stage in ("all", "generate") and isinstance(config, RunConfig):
        from omnichat.chat import load_run  # torch and transformers: seconds that the other stages need not wait
        from omnichat.evaluation.generate import generate

        loaded = load_run(command.run, command.checkpoint)
        settings = loaded.config.model_copy(update={"evaluation": config.evaluation})
        generate(replace(loaded, config=settings), command.splits, command.run, command.limit)
    if command.stage in ("all", "score"):
        from omnichat.evaluation.measure import Resources
        from omnichat.evaluation.score import score_run
        from omnichat.evaluation.screen import print_scores

        resources = Resources(command.wordnet, command.bertscore, command.bertscore_layers)
        print_scores(score_run(command.run, config, resources, command.partial))
    if command.stage in ("all", "report"):
        from omnichat.evaluation.report import write_report

        print(f"report: {write_report(command.run, config, command.title, command.beside)}")


def parse(arguments: Sequence[str]) -> dict[str, str]:
    """`key=value` arguments by key.

    Raises:
        UsageError: all unknown keys and malformed arguments at once; or no `run`.
    """
    known = [name for name in Command.__dataclass_fields__ if name != "splits"]
    known += ["split", "store", *EvaluationConfig.model_fields]
    values = read_pairs(arguments, known)
    if not values.get("run"):
        raise UsageError("run: is missing; name the folder of a run, as in run=runs/quickstart")
    return values


def read_config(run: Path, settings: Mapping[str, int | str]) -> ScoredConfig:
    """The config of a run folder, an export or a baseline's folder, with its evaluation settings overridden.

    Raises:
        UsageError: no run there, a config that does not fit the schema, or a setting out of range.
    """
    path = config_file(run)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        is_baseline = isinstance(values, dict) and "baseline" in values
        read: Callable[[Any, Path], ScoredConfig] = read_baseline if is_baseline else saved_config
        config = read(values, path)
    except FileNotFoundError:
        raise UsageError(f"run: {path} is not there; train the run first, or correct run=") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"run: {path} is not the config of a run ({error!r})") from None
    except ConfigError as error:
        raise UsageError(f"run: {error}") from None
    changed = {"evaluation": {**config.evaluation.model_dump(), **settings}}
    try:
        return read(config.model_dump(mode="json") | changed, path)
    except ConfigError as error:  # the command line's, not the file's
        raise UsageError("; ".join(fault.removeprefix(f"{path}: evaluation.") for fault in error.faults)) from None


def _command(values: Mapping[str, str], config: ScoredConfig, store: str | None) -> Command:
    stage = values.get("stage", "all")
    if stage not in STAGES:
        raise UsageError(f"stage: {stage!r} is not one of {', '.join(STAGES)}{did_you_mean(stage, STAGES)}")
    baseline = isinstance(config, BaselineConfig)
    if baseline and (stage == "generate" or "split" in values or "store" in values):
        raise UsageError(
            f"run: {values['run']} holds a baseline, whose replies eval/baseline.py makes; use stage=score"
        )
    if "split" in values and "store" in values:
        raise UsageError("split, store: name one of them")
    numbers = read_numbers(values, ("limit", "bertscore_layers"))
    if numbers.get("limit", 1) < 1:
        raise UsageError(f"limit: must be at least 1, got {numbers['limit']}")
    partial = read_flag(values, "partial", False)
    return Command(
        run=locate(values["run"]),
        stage=stage,
        splits=_splits(values, config, store) if isinstance(config, RunConfig) and stage in ("all", "generate") else {},
        checkpoint=values.get("checkpoint", "newest"),
        limit=numbers.get("limit"),
        partial=partial,
        wordnet=read_folder(values, "wordnet"),
        bertscore=read_folder(values, "bertscore"),
        bertscore_layers=numbers.get("bertscore_layers"),
        beside=tuple(map(locate, read_names(values, "beside"))),
        title=values.get("title", ""),
    )


def _splits(values: Mapping[str, str], config: RunConfig, store: str | None) -> dict[str, Path]:
    known = config.data.val | config.data.test
    if "split" in values:
        names = read_names(values, "split")
        if unknown := [name for name in names if name not in known]:
            there = f"no set {', '.join(unknown)} in the run's config; there are: {', '.join(known) or 'none'}"
            raise UsageError(f"split: {there}; or name another with store=PATH")
        chosen = {name: known[name] for name in names}
    elif path := values.get("store", store):
        chosen = {Path(path).stem if store is None or "store" in values else Path(path).parent.name: path}
    else:
        chosen = dict(config.data.test)
    if not chosen:
        there = f" (split={','.join(config.data.val)} names the validation sets)" if config.data.val else ""
        raise UsageError(f"split: the run's config has no data.test; use split=NAME{there} or store=PATH")
    found = {name: locate(path) for name, path in chosen.items()}
    if absent := [str(path) for path in found.values() if not path.exists()]:
        raise UsageError(f"no such file: {', '.join(absent)}; make the store first, or name another with store=PATH")
    return found

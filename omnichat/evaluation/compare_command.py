"""The command line of eval/compare.py."""

import json
from collections.abc import Sequence
from pathlib import Path

from omnichat.evaluation.arguments import (
    UsageError,
    guarded,
    read_folder,
    read_names,
    read_numbers,
    read_pairs,
    split_arguments,
)
from omnichat.recipes import locate

OPTIONS = """  split=NAME[,NAME...]  sets to compare; by default all that both runs have
  wordnet=FOLDER        WordNet's files, for METEOR (Debian's wordnet-base: /usr/share/wordnet)
  bertscore=FOLDER      a Hugging Face encoder, for BERTScore (usual: roberta-large); bertscore_layers=NUMBER
  resamples=10000       of the paired bootstrap and of the permutation test; seed=0
  out=FILE              write the comparison as JSON too"""
KEYS = ("split", "wordnet", "bertscore", "bertscore_layers", "resamples", "seed", "out")


def main(arguments: Sequence[str], usage: str) -> int:
    """Compare two run folders; returns the exit code.

    Args:
        arguments: the two folders, then `key=value` each.
        usage: what `--help` prints before the options.
    """

    def body() -> None:
        folders, rest = split_arguments(arguments, ("RUN_A", "RUN_B"))
        values = read_pairs(rest, KEYS)
        numbers = {"resamples": 10_000, "seed": 0} | read_numbers(values, ("resamples", "seed", "bertscore_layers"))
        if absent := [folder for folder in folders if not locate(folder).is_dir()]:
            raise UsageError(f"{', '.join(absent)}: no such folder; name two folders of runs")
        wordnet, bertscore = read_folder(values, "wordnet"), read_folder(values, "bertscore")
        from omnichat.evaluation.compare import compare_runs, print_comparison
        from omnichat.evaluation.measure import Resources

        resources = Resources(wordnet, bertscore, numbers.get("bertscore_layers"))
        a, b = map(locate, folders)
        found = compare_runs(a, b, read_names(values, "split"), numbers["resamples"], numbers["seed"], resources)
        print_comparison(found)
        if values.get("out"):
            Path(values["out"]).write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    return guarded(arguments, f"{usage}\n\n{OPTIONS}", body)

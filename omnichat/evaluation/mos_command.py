"""The command line of eval/mos.py."""

from collections.abc import Sequence
from pathlib import Path

from omnichat.evaluation.arguments import UsageError, guarded, read_flag, read_names, read_numbers, read_pairs
from omnichat.recipes import locate

REFERENCE = "reference"  # the corpus's own replies, as a system among the others

OPTIONS = """page:
  out=FOLDER            for the page and its key; default mos
  samples=20            dialogues; each is rated once for every system
  split=NAME[,NAME...]  sets to draw from; by default all
  speech=FOLDER[,...]   spoken replies, FOLDER/<id>.wav or .flac: a folder for each run in their order, one more for the
                        reference where it is rated; without, text is shown. FOLDER/<id>-<turn>.wav where several turns
                        of a dialogue are answered, turns counted from 0
  reference=true        the corpus's own replies among the systems
  seed=0                of the draw and of the order
score:
  partial=true          take listeners who left replies unrated, and say so; otherwise that is an error
  seed=0                of the bootstrap"""


def main(arguments: Sequence[str], usage: str) -> int:
    """Make a listening page, or score ratings; returns the exit code.

    Args:
        arguments: `page` and run folders, or `score`, a key and files of ratings; then `key=value` each.
        usage: what `--help` prints before the options.
    """

    def body() -> None:
        verbs = {"page": _page, "score": _score}
        if not arguments or arguments[0] not in verbs:
            raise UsageError(f"the first argument is one of {', '.join(verbs)}")
        files = [Path(one) for one in arguments[1:] if "=" not in one]
        verbs[arguments[0]](files, [one for one in arguments[1:] if "=" in one])

    return guarded(arguments, f"{usage}\n\n{OPTIONS}", body)


def _page(runs: list[Path], rest: list[str]) -> None:
    values = read_pairs(rest, ("out", "samples", "split", "speech", "reference", "seed"))
    numbers = {"samples": 20, "seed": 0} | read_numbers(values, ("samples", "seed"))
    if numbers["samples"] < 1:
        raise UsageError("samples: must be at least 1")
    runs = [locate(str(run)) for run in runs]
    names, speech = [run.resolve().name for run in runs], read_names(values, "speech")
    reference = read_flag(values, "reference", False)
    systems = [*names, REFERENCE] if reference else names
    if not runs or len(set(systems)) < len(systems):
        raise UsageError("page: name the folders of one or more runs, of different names (and not 'reference')")
    if absent := [str(path) for path in (*runs, *map(Path, speech)) if not path.is_dir()]:
        raise UsageError(f"{', '.join(absent)}: no such folder")
    if speech and len(speech) != len(systems):  # what is heard and what is read would not be rated alike
        given = f"{len(speech)} folders for {len(systems)} systems"
        raise UsageError(f"speech: {given} ({', '.join(systems)}); name one for each, in their order")
    from omnichat.evaluation.mos_page import choose_items, write_page
    from omnichat.evaluation.score import read_sets

    chosen = read_names(values, "split")
    replies = {}
    for name, run in zip(names, runs, strict=True):
        sets = read_sets(run)[0]
        if unknown := [split for split in chosen if split not in sets]:
            raise UsageError(f"split: {run} has no {', '.join(unknown)}; there are: {', '.join(sets)}")
        replies[name] = [answer for split in chosen or sets for answer in sets[split].answers]
    spoken = dict(zip(systems, map(Path, speech), strict=False))
    items = choose_items(replies, numbers["samples"], numbers["seed"], spoken, reference)
    page, key = write_page(items, Path(values.get("out", "mos")), numbers["seed"])
    print(f"{len(items)} replies to rate: {page} (for the listeners), {key} (not for them)")


def _score(files: list[Path], rest: list[str]) -> None:
    values = read_pairs(rest, ("partial", "seed"))
    if len(files) < 2:
        raise UsageError("score: name the key, then a file of ratings for each listener")
    partial, seed = read_flag(values, "partial", False), read_numbers(values, ("seed",)).get("seed", 0)
    from omnichat.evaluation.mos import score_ratings

    found = score_ratings(files[0], files[1:], partial, seed)
    if found.missing:
        left = ", ".join(f"{rater} {count}" for rater, count in found.missing.items())
        print(f"PARTIAL: replies not rated by {left}")
    for name, one in found.systems.items():
        spread = f"[{one.ci95[0]:.2f}, {one.ci95[1]:.2f}] over dialogues" if one.ci95 else "one dialogue"
        around = f"± {one.half_width:.2f} (95 %, n={one.n} ratings)" if one.n > 1 else "(one rating)"
        print(f"{name}: {one.mean:.2f} {around}; {spread}")

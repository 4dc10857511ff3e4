"""How well a run of `task: events` tells interaction events apart, class by class, beside a constant guess."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omnichat import build
from omnichat.audio import SAMPLE_RATE
from omnichat.checkpoint import find_checkpoint, load_checkpoint, restore_trained
from omnichat.data.moments import CLIP, EVENTS, Moments
from omnichat.data.scan import raise_faults
from omnichat.dialogue import DataError
from omnichat.evaluation.replies import replace_file
from omnichat.metrics.emotion import confusion, emotion_f1, majority
from omnichat.metrics.statistic import resample
from omnichat.run_folder import CHECKPOINTS
from omnichat.schema import RunConfig
from omnichat.training.heard import Heard, classify, likeliest

EVENTS_FILE, SCORES = "events.jsonl", "event_scores.json"


def score_events(
    run_dir: Path, config: RunConfig, stores: Mapping[str, Path], checkpoint: str = "newest"
) -> dict[str, Any]:
    """Classify the moments of stores into `events.jsonl`, score them into `event_scores.json`, return the scores.

    Args:
        run_dir: of the run.
        config: of the run.
        stores: by name.
        checkpoint: as in `find_checkpoint`.

    Raises:
        DataError: all that is wrong with the stores, before anything is heard or written.
        CheckpointError: there is none, or it is damaged.
        EncoderError: an expert's weights are not there any more, or cannot be read.
    """
    heard = _moments(stores)
    start = load_checkpoint(find_checkpoint(run_dir / CHECKPOINTS, checkpoint))
    model = build.build_event_model(config, len(EVENTS), CLIP)
    restore_trained(model, start)
    lines, sets = [], {}
    for name, moments in heard.items():
        found = likeliest(classify(model, Heard(model, moments, "live"), config.trainer.micro_batch))
        sets[name] = {"store": str(stores[name]), **scores(moments, found, config)}
        for moment, event in zip(moments.found, found, strict=True):
            record = {"set": name, "dialogue": moment.dialogue, "second": round(moment.sample / SAMPLE_RATE, 3)}
            lines.append(record | {"role": moment.role, "event": moment.event, "found": event})
    result = {"run": config.run_name, "step": start.step, "sets": sets}
    replace_file(run_dir / EVENTS_FILE, "".join(json.dumps(line) + "\n" for line in lines).encode())
    replace_file(run_dir / SCORES, (json.dumps(result, indent=1) + "\n").encode())
    return result


def _moments(stores: Mapping[str, Path]) -> dict[str, Moments]:
    moments, faults = dict[str, Moments](), list[DataError]()
    for name, store in stores.items():
        try:
            moments[name] = Moments(store)
        except DataError as error:
            faults += error.all()
    raise_faults(faults)
    return moments


def scores(moments: Moments, found: Sequence[str], config: RunConfig) -> dict[str, Any]:
    """F1 of each class and of all, with 95 % intervals from a bootstrap over dialogues; and the constant guess's."""
    gold = [moment.event for moment in moments.found]
    weights = resample(
        [moment.dialogue for moment in moments.found], config.evaluation.bootstrap, config.evaluation.seed
    )
    whole = {}
    for average in ("macro", "weighted"):
        statistic = emotion_f1(gold, list(found), average)
        interval = statistic.interval(weights)
        whole[f"f1_{average}"] = {"value": statistic.value, "ci95": None if interval is None else list(interval)}
    guess = majority(gold)
    return {
        "n": len(gold),
        **whole,
        "by_event": by_event(gold, found),
        "majority": {"event": guess, **{f"f1_{key}": value for key, value in _guessed(gold, guess).items()}},
    }


def by_event(gold: Sequence[str], found: Sequence[str]) -> dict[str, dict[str, float | int]]:
    """Precision, recall, F1 and number of references of each event that occurs among them."""
    counts = confusion(list(gold), list(found))
    figures: dict[str, dict[str, float | int]] = {}
    for row, label in enumerate(counts.labels):
        right = int(counts.counts[row, counts.columns.index(label)])
        wanted, written = int(np.sum(counts.counts[row])), list(found).count(label)
        figures[label] = {
            "precision": right / written if written else 0.0,
            "recall": right / wanted,
            "f1": 2 * right / (wanted + written),
            "n": wanted,
        }
    return {event: figures[event] for event in EVENTS if event in figures}


def _guessed(gold: Sequence[str], guess: str) -> dict[str, float]:
    constant = [guess] * len(gold)
    return {name: emotion_f1(list(gold), constant, name).value for name in ("macro", "weighted")}


def print_events(result: Mapping[str, Any]) -> None:
    """The scores as a table, times 100."""
    print(f"{result['run']}, step {result['step']}: F1 x 100, [95 % interval over dialogues]")
    for name, one in result["sets"].items():
        guess = one["majority"]
        print(f"{name}: {one['n']} moments")
        for key in ("macro", "weighted"):
            value, ends = one[f"f1_{key}"]["value"], one[f"f1_{key}"]["ci95"]
            interval = f" [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]" if ends else ""
            print(f"  {key:14}{100 * value:6.1f}{interval}   always {guess['event']}: {100 * guess[f'f1_{key}']:.1f}")
        for event, figures in one["by_event"].items():
            print(
                f"  {event:14}{100 * figures['f1']:6.1f}   precision {100 * figures['precision']:.1f}, "
                f"recall {100 * figures['recall']:.1f}, n={figures['n']}"
            )

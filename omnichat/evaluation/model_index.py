"""The scores of a run as hubs read them: `model-index` in a card's front matter, in Hugging Face's form."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import eval_results_to_model_index

from omnichat.data.info import read_info
from omnichat.dialogue import DataError
from omnichat.evaluation.measure import RATINGS, TITLES
from omnichat.evaluation.replies import read_generation
from omnichat.recipes import locate

TASK = "audio-text-to-text", "spoken dialogue"  # type and name; the type is one of the hub's
# What the hub calls metrics, where it has a name; all others keep ours.
TYPES = {
    "emotion_f1_weighted": "f1",
    "emotion_f1_macro": "f1",
    "rouge_l": "rouge",
    **{name: "accuracy" for name in TITLES if "accuracy" in name},
}


def model_index(run_dir: Path, name: str, scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An entry for each set and each metric that has a value: corpus, set, value, n, interval, signature.

    Args:
        run_dir: holds `generation.json`, which says what store a set is.
        name: of the model.
        scores: of `scores.json`.
    """
    stores = read_generation(run_dir).get("splits", {})
    results = [
        result
        for split, record in scores["splits"].items()
        for result in _results(split, record, _corpus(stores.get(split)) or split)
    ]
    return eval_results_to_model_index(name, results) if results else []


def _results(split: str, record: Mapping[str, Any], corpus: str) -> Iterator[EvalResult]:
    partial = record.get("partial")
    about = {"n": record["n"], "turns": record.get("turns", "last")}
    about |= {"partial": f"{partial['replies']} of {partial['of']}"} if partial else {}
    for key, title in TITLES.items():
        found = record["metrics"].get(key)
        if not found or found.get("value") is None:
            continue
        scale = 1 if key in RATINGS else 100
        measured = {"n": found.get("n", record["n"]), "signature": found.get("signature")}
        measured |= {"ci95": [round(scale * end, 2) for end in found["ci95"]]} if found.get("ci95") else {}
        yield EvalResult(
            task_type=TASK[0],
            task_name=TASK[1],
            dataset_type=re.sub(r"[^a-z0-9._-]+", "-", corpus.lower()).strip("-") or "dialogues",
            dataset_name=corpus,
            dataset_split=split,
            dataset_args=about,
            metric_type=TYPES.get(key, key),
            metric_name=title if scale == 1 else f"{title}, x 100",
            metric_value=round(scale * found["value"], 2),
            metric_args={name: value for name, value in measured.items() if value is not None},
        )


def _corpus(record: Any) -> str | None:
    """The name that the store of a set gives itself; None where it is not known."""
    store = record.get("store") if isinstance(record, dict) else None
    for folder in (locate(store), locate(store).parent) if isinstance(store, str) else ():
        try:
            return read_info(folder).name or None
        except DataError:
            continue
    return None

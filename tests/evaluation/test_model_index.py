"""Scores in a card's front matter: what the hub's own reader makes of them is what scores.json holds."""

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard

from omnichat.config import RunConfig
from omnichat.data.info import StoreInfo, write_info
from omnichat.evaluation.measure import TITLES
from omnichat.evaluation.model_index import model_index
from omnichat.evaluation.score import score_run
from omnichat.run_folder import GENERATION


def as_the_hub_reads(index: object) -> list[EvalResult]:
    """Of a card with this front matter."""
    card = ModelCard(f"---\n{yaml.safe_dump({'model-index': index}, sort_keys=False)}---\n\n# x\n")
    assert card.data.model_name == "mine"
    return card.data.eval_results


def test_every_score_of_every_set_is_found_again(run_dir: Path, config: RunConfig) -> None:
    """A hub that reads no results says so to nobody; a value in the wrong set, or scaled twice, is a wrong result."""
    scores = score_run(run_dir, config)
    found = as_the_hub_reads(model_index(run_dir, "mine", scores))
    expected = {
        (split, title): 100 * record["metrics"][key]["value"]
        for split, record in scores["splits"].items()
        for key, title in TITLES.items()
        if record["metrics"].get(key, {}).get("value") is not None
    }
    assert {split for split, _ in expected} == {"scripts", "voices"}
    assert len(found) == len(expected)
    for one in found:
        title = one.metric_name.removesuffix(", x 100")
        assert one.metric_value == pytest.approx(expected[one.dataset_split, title], abs=0.005)
        assert one.dataset_args["n"] == {"scripts": 4, "voices": 2}[one.dataset_split]
        assert one.metric_args["n"] <= one.dataset_args["n"]
    weighted = {one.dataset_split: one for one in found if one.metric_name == "emotion, weighted F1, x 100"}
    assert weighted["scripts"].metric_type == "f1"
    low, high = weighted["scripts"].metric_args["ci95"]
    assert 0 <= low <= weighted["scripts"].metric_value <= high <= 100


def test_a_set_goes_by_the_name_of_its_corpus(run_dir: Path, config: RunConfig, tmp_path: Path) -> None:
    """`test` alone says nothing; what a store calls itself does, and a split that is there in part is called so."""
    about = json.loads((run_dir / GENERATION).read_text())
    about["splits"]["scripts"] |= {"store": str(tmp_path / "store" / "test"), "of": 9}
    (run_dir / GENERATION).write_text(json.dumps(about))
    (tmp_path / "store" / "test").mkdir(parents=True)
    write_info(tmp_path / "store", StoreInfo("My Corpus (v2)", "", "", {"test": 4}))
    found = as_the_hub_reads(model_index(run_dir, "mine", score_run(run_dir, config, partial=True)))
    named = {one.dataset_split: (one.dataset_name, one.dataset_type, one.dataset_args.get("partial")) for one in found}
    assert named == {"scripts": ("My Corpus (v2)", "my-corpus-v2", "4 of 9"), "voices": ("voices", "voices", None)}


def test_a_rating_keeps_its_scale_and_no_value_is_no_entry(tmp_path: Path) -> None:
    """A judge's 3.96 of 5 is not 396; a metric that could not be measured must not stand there as a nought."""
    entry = {"value": 3.96, "ci95": [3.9, 4.0], "n": 7, "signature": None}
    metrics = {"gpt_eval": entry, "meteor": {"value": None, "ci95": None, "n": 0, "signature": None}}
    scores = {"splits": {"test": {"n": 7, "partial": None, "metrics": metrics}}}
    (only,) = as_the_hub_reads(model_index(tmp_path, "mine", scores))
    assert (only.metric_type, only.metric_name, only.metric_value) == ("gpt_eval", TITLES["gpt_eval"], 3.96)
    assert only.metric_args == {"n": 7, "ci95": [3.9, 4.0]}
    assert model_index(tmp_path, "mine", {"splits": {"test": {"n": 7, "metrics": {}}}}) == []

"""Opinion scores: a page that gives nothing away, and ratings that are all there and of this page."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from omnichat.config import RunConfig
from omnichat.dialogue import DataError, Reply
from omnichat.evaluation import mos_command
from omnichat.evaluation.mos import score_ratings
from omnichat.evaluation.mos_page import choose_items, write_page
from omnichat.evaluation.replies import Answer
from tests.evaluation.conftest import write_run


@pytest.fixture
def systems(answers: list[Answer]) -> dict[str, list[Answer]]:
    """Two systems over six dialogues."""
    return {
        "first_system": answers,
        "second_system": [replace(answer, reply=answer.reference) for answer in answers],
    }


@pytest.fixture
def key(systems: dict[str, list[Answer]], tmp_path: Path) -> Path:
    """The key of a page of four dialogues for both systems."""
    return write_page(choose_items(systems, 4, 0, {}), tmp_path / "mos", 0)[1]


def rate(key: Path, name: str, values: dict[str, list[int]], **changes: Any) -> Path:
    """A file of ratings as the page saves it; each system's items get the values in turn."""
    record = json.loads(key.read_text())
    ratings = {}
    for system, given in values.items():
        tokens = [token for token, item in record["items"].items() if item["system"] == system]
        ratings |= dict(zip(tokens, given, strict=False))
    path = key.with_name(f"{name}.json")
    path.write_text(json.dumps({"page": record["page"], "rater": name, "ratings": ratings} | changes))
    return path


def test_the_page_gives_nothing_away(systems: dict[str, list[Answer]], tmp_path: Path) -> None:
    """Neither names nor order: the key tells, and it stays behind. Every dialogue is there once for each system."""
    items = choose_items(systems, 6, 0, {})
    page, key = write_page(items, tmp_path, 0)
    text = page.read_text()
    assert "system" not in text.split("<body>")[1].split("<script")[0]
    assert all(answer.id not in text for answer in systems["first_system"])
    assert text.count('class="panel dialogue item"') == 12
    assert [item.system for item in items] != sorted(item.system for item in items)
    found = json.loads(key.read_text())["items"]
    pairs = [(one["split"], one["id"], one["system"]) for one in found.values()]
    assert len(set(pairs)) == 12


def test_the_key_of_a_page_that_listeners_have_is_not_replaced(
    systems: dict[str, list[Answer]], tmp_path: Path
) -> None:
    """A second page in the same folder took the first one's key, and with it all ratings that were still to come."""
    _, key = write_page(choose_items(systems, 4, 0, {}), tmp_path, 0)
    kept = key.read_bytes()
    write_page(choose_items(systems, 4, 0, {}), tmp_path, 0)  # the same page again
    again = {name: [replace(one, reply=Reply(None, "Made anew.")) for one in found] for name, found in systems.items()}
    for others, seed in ((systems, 1), (again, 0)):
        with pytest.raises(DataError, match=r"mos_key\.json: is the key of another page.*out=.*\[other_page\]"):
            write_page(choose_items(others, 4, seed, {}), tmp_path, seed)
    assert key.read_bytes() == kept


def test_the_seed_decides(systems: dict[str, list[Answer]]) -> None:
    """The same page can be made again; another seed makes another."""
    assert choose_items(systems, 4, 1, {}) == choose_items(systems, 4, 1, {})
    assert choose_items(systems, 4, 1, {}) != choose_items(systems, 4, 2, {})


def test_systems_that_answer_other_dialogues_are_no_pair(systems: dict[str, list[Answer]]) -> None:
    """Ids alone do not make dialogues the same; and sets of other names are said, as they are the usual slip."""
    other = [replace(one, reference=replace(one.reference, text="something else.")) for one in systems["first_system"]]
    with pytest.raises(DataError, match=r"not the same in a, b.*mismatched_references"):
        choose_items({"a": systems["first_system"], "b": other}, 6, 0, {})
    renamed = [replace(one, split="test") for one in systems["first_system"]]
    with pytest.raises(DataError, match=r"0 dialogues .* same names \(a: scripts, voices; b: test\)"):
        choose_items({"a": systems["first_system"], "b": renamed}, 6, 0, {})


def test_spoken_replies_and_the_reference(systems: dict[str, list[Answer]], tmp_path: Path) -> None:
    """A system with speech is heard; a reply that was never spoken is named."""
    for answer in systems["first_system"]:
        soundfile.write(tmp_path / f"{answer.id}.wav", 0.1 * np.sin(np.arange(8000)), 16_000)
    items = choose_items(systems, 6, 0, {"first_system": tmp_path}, reference=True)
    assert {item.system for item in items if item.speech is None} == {"second_system", "reference"}
    page, _ = write_page(items, tmp_path / "out", 0)
    assert page.read_text().count("<audio") == 18 * 2 + 6
    (tmp_path / "scripts-0.wav").unlink()
    with pytest.raises(DataError, match=r"no scripts-0.wav or .flac"):
        choose_items(systems, 6, 0, {"first_system": tmp_path})


def test_every_turn_has_its_own_recording(systems: dict[str, list[Answer]], tmp_path: Path) -> None:
    """By the dialogue's id alone the same words would be heard for each of its turns, and rated as their reply."""
    last = systems["first_system"][0]
    turns = [replace(last, history=last.history[:1]), last]
    soundfile.write(tmp_path / f"{last.id}.wav", np.zeros(8000), 16_000)
    with pytest.raises(DataError, match=rf"no {last.id}-1.wav or .flac"):
        choose_items({"a": turns}, 2, 0, {"a": tmp_path})
    for turn in (1, 3):
        soundfile.write(tmp_path / f"{last.id}-{turn}.wav", np.zeros(8000), 16_000)
    items = choose_items({"a": turns}, 2, 0, {"a": tmp_path})
    found = {len(item.answer.history): item.speech for item in items}
    assert found == {turn: tmp_path / f"{last.id}-{turn}.wav" for turn in (1, 3)}


def test_one_rating_has_no_interval(key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would be "± nan"."""
    ratings = rate(key, "a", {"first_system": [4]})
    assert mos_command.main(["score", str(key), str(ratings), "partial=true"], "usage") == 0
    assert "first_system: 4.00 (one rating); one dialogue" in capsys.readouterr().out


def test_scores_by_hand(key: Path) -> None:
    """Mean, and 1.96 x standard deviation / sqrt(n), over both listeners' ratings."""
    one = rate(key, "a", {"first_system": [1, 2, 3, 4], "second_system": [5, 5, 5, 5]})
    two = rate(key, "b", {"first_system": [2, 2, 3, 3], "second_system": [5, 5, 5, 5]})
    found = score_ratings(key, [one, two])
    first = found.systems["first_system"]
    assert first.mean == pytest.approx(2.5)
    assert first.n == 8
    assert first.half_width == pytest.approx(1.96 * math.sqrt(6 / 7) / math.sqrt(8))
    assert first.ci95 is not None
    assert first.ci95[0] < 2.5 < first.ci95[1]
    assert found.systems["second_system"].half_width == 0
    assert found.missing == {}


def test_missing_ratings_are_no_full_score(key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused, or on demand marked."""
    half = rate(key, "a", {"first_system": [1, 2], "second_system": [4, 4, 4, 4]})
    with pytest.raises(DataError, match=r"2 of 8 replies are not rated.*incomplete_ratings"):
        score_ratings(key, [half])
    assert mos_command.main(["score", str(key), str(half), "partial=true"], "usage") == 0
    out = capsys.readouterr().out
    assert "PARTIAL: replies not rated by a 2" in out
    assert "second_system: 4.00 ± 0.00 (95 %, n=4 ratings)" in out


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"page": "another"}, "mismatched_ids"),
        ({"ratings": {"unknown": 3}}, "mismatched_ids"),
        ({"ratings": {}}, "empty_file"),
        ({"ratings": None}, "wrong_type"),
        ({"rater": 7}, "wrong_type"),
    ],
)
def test_ratings_of_something_else_are_refused(key: Path, changes: dict[str, Any], reason: str) -> None:
    """With the file."""
    path = rate(key, "a", {"first_system": [1] * 4, "second_system": [1] * 4}, **changes)
    with pytest.raises(DataError, match=r"a\.json") as error:
        score_ratings(key, [path])
    assert error.value.reason == reason


@pytest.mark.parametrize("value", [0, 6, "3", 2.5, True])
def test_a_rating_is_a_whole_number_from_1_to_5(key: Path, value: Any) -> None:
    """Anything else was not clicked."""
    path = rate(key, "a", {"first_system": [value] * 4, "second_system": [1] * 4})
    with pytest.raises(DataError, match="whole numbers from 1 to 5"):
        score_ratings(key, [path])


def test_one_listener_counts_once(key: Path) -> None:
    """A file given twice would narrow the interval."""
    path = rate(key, "a", {"first_system": [1] * 4, "second_system": [1] * 4})
    with pytest.raises(DataError, match="duplicate_rater"):
        score_ratings(key, [path, path])


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_broken_key_is_named(tmp_path: Path, content: str | None) -> None:
    """Not with a traceback."""
    path = tmp_path / "mos_key.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"mos_key\.json"):
        score_ratings(path, [])


def test_command(
    run_dir: Path, answers: list[Answer], config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page of two runs; and mistakes, with the cure."""
    other = tmp_path / "other"
    other.mkdir()
    write_run(other, answers[:5], config)
    out = f"out={tmp_path / 'mos'}"
    assert mos_command.main(["page", str(run_dir), str(other), out, "samples=5", "reference=true"], "usage") == 0
    assert "15 replies to rate: " in capsys.readouterr().out
    assert mos_command.main(["page", str(run_dir), str(other), out, "samples=6"], "usage") == 1
    assert "5 dialogues are answered by all" in capsys.readouterr().err
    for arguments, message in (
        ([], "the first argument is one of page, score"),
        (["page"], "name the folders"),
        (["page", str(run_dir), str(run_dir)], "of different names"),
        (["page", str(run_dir), "split=nope"], "has no nope; there are: scripts, voices"),
        (["page", str(run_dir), str(other), f"speech={tmp_path}"], "1 folders for 2 systems"),
        (["page", str(run_dir), "samples=0"], "samples: must be at least 1"),
        (["score", "key.json"], "a file of ratings for each listener"),
    ):
        assert mos_command.main(arguments, "usage") == 2
        assert message in capsys.readouterr().err

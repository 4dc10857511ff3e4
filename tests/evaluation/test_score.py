"""Scores of hand-written replies, their shape, and what keeps a partial score from passing for a full one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omnichat.config import RunConfig
from omnichat.dialogue import DataError, Reply, Style
from omnichat.evaluation.measure import BASELINES, TITLES
from omnichat.evaluation.replies import Answer, asked_ids, write_answers
from omnichat.evaluation.score import score_answers, score_run
from omnichat.evaluation.screen import print_scores
from omnichat.run_folder import GENERATION, REPLIES, SCORES

MODEL = "0123456789abcdef"  # of the hand-written replies


def values(answers: list[Answer]) -> dict[str, float | None]:
    """Each metric's value."""
    return {key: metric["value"] for key, metric in score_answers(answers, resamples=20)["metrics"].items()}


def test_scores_by_hand(answers: list[Answer]) -> None:
    """Emotion: sad 1 of 2, happy 1 of 2 with one too many; sounds: none of 2 right; content word: 2 of 4."""
    found = values(answers[:4])
    assert found["emotion_f1_weighted"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["style_accuracy"] == 0.5
    assert found["style_accuracy_gender"] == 0.75
    assert found["sound_accuracy"] == 0
    assert found["sound_false_alarm"] == 0
    assert found["content_word_accuracy"] == 0.5
    assert found["exact_reply"] == 0.25
    scores = score_answers(answers[:4], resamples=20)
    assert scores["unparsable_share"] == 0.25
    assert scores["confusion"] == {
        "labels": ("happy", "sad"),
        "columns": ("happy", "sad", "unreadable"),
        "counts": [[1, 0, 1], [1, 1, 0]],
    }
    assert scores["baselines"]["majority_emotion_f1_weighted"] == pytest.approx(1 / 3)
    assert scores["baselines"]["chance_sound_accuracy"] == 0.5
    assert scores["baselines"]["chance_content_word_accuracy"] == 1


def test_the_right_replies_score_one(answers: list[Answer]) -> None:
    """Every metric has its best value at the reference itself."""
    right = [replace(answer, reply=answer.reference) for answer in answers[:4]]
    found = values(right)
    best = {key: 0.0 if key == "sound_false_alarm" else 1.0 for key, value in found.items() if value is not None}
    best = {key: value for key, value in best.items() if not key.startswith("distinct")}
    assert {key: found[key] for key in best} == pytest.approx(best)
    assert len(best) >= 12


def test_an_unknown_field_of_the_reference_is_no_fault(answers: list[Answer]) -> None:
    """A corpus that knows emotions only cannot call a reply's gender wrong."""
    wanted = Reply(Style(emotion="sad"), "i am sorry.")
    reply = Reply(Style("male", "sad", "slow", "low"), "i am sorry.")
    found = values([replace(answers[0], reference=wanted, reply=reply)])
    assert found["exact_reply"] == 1
    assert "style_accuracy_gender" not in found


def test_metrics_that_have_nothing_to_compare_are_absent(answers: list[Answer]) -> None:
    """A store without sounds, content words or styles gets text metrics only."""
    bare = [replace(answer, scene={}, reference=Reply(Style(), answer.reference.text)) for answer in answers]
    texts = {"exact_reply", "bleu", "rouge_l", "distinct_1", "distinct_2", "length_ratio"}
    assert {key for key, value in values(bare).items() if value is not None} == texts
    assert score_answers(bare, resamples=5)["baselines"] == {}


def test_what_cannot_be_computed_has_a_reason_and_no_number(answers: list[Answer]) -> None:
    """Without WordNet there is no METEOR, and nothing in its place."""
    entry = score_answers(answers, resamples=5)["metrics"]["bertscore"]
    assert entry["value"] is None
    assert entry["ci95"] is None
    assert "bertscore=FOLDER" in entry["reason"]


def test_scores_json_has_the_agreed_shape(run_dir: Path, config: RunConfig) -> None:
    """Other tools read it: top-level keys of the first set, each metric with interval and signature, all sets below."""
    score_run(run_dir, config)
    scores = json.loads((run_dir / SCORES).read_text())
    assert {"n", "seed", "input", "metrics", "baselines", "unparsable_share"} <= set(scores)
    assert (scores["n"], scores["seed"], scores["input"]) == (4, 0, "speech")
    assert list(scores["splits"]) == ["scripts", "voices"]
    for key in ("n", "metrics", "baselines", "confusion", "gates"):
        assert scores[key] == scores["splits"]["scripts"][key]
    for metric in scores["metrics"].values():
        assert {"value", "ci95", "signature"} <= set(metric)
        assert metric["signature"] or metric["reason"]
        if metric["ci95"] is not None:
            assert 0 <= metric["ci95"][0] <= metric["ci95"][1] <= 1
            assert metric["signature"]
    assert set(scores["splits"]["scripts"]["by_scenario"]) == {"audio", "emotion"}
    assert scores["splits"]["scripts"]["gates"]["audio"]["beats"]["mean"] == pytest.approx(0.9)
    assert set(scores["metrics"]) <= set(TITLES)
    assert set(BASELINES) <= set(TITLES)


def test_scoring_again_gives_the_same_file(run_dir: Path, config: RunConfig) -> None:
    """Whatever the order of the replies: a resumed generation writes another one."""
    score_run(run_dir, config)
    first = (run_dir / SCORES).read_bytes()
    path = run_dir / REPLIES
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    score_run(run_dir, config)
    assert (run_dir / SCORES).read_bytes() == first


def test_missing_replies_are_refused_by_set(run_dir: Path, config: RunConfig, answers: list[Answer]) -> None:
    """A score over the first half of a set is not its score."""
    write_answers(run_dir / REPLIES, answers[1:])
    with pytest.raises(DataError, match=r"split 'scripts' has 3 of 4 replies.*incomplete_replies"):
        score_run(run_dir, config)
    assert not (run_dir / SCORES).exists()


def test_partial_scores_say_so_everywhere(
    run_dir: Path, config: RunConfig, answers: list[Answer], capsys: pytest.CaptureFixture[str]
) -> None:
    """On demand they are computed, and marked in the file and on the screen."""
    write_answers(run_dir / REPLIES, answers[1:])
    scores = score_run(run_dir, config, partial=True)
    assert scores["splits"]["scripts"]["partial"] == {"replies": 3, "of": 4}
    assert scores["splits"]["voices"]["partial"] is None
    print_scores(scores)
    assert "PARTIAL: scripts has 3 of 4" in capsys.readouterr().out


def test_replies_to_other_dialogues_than_were_asked_for_are_refused(
    run_dir: Path, config: RunConfig, answers: list[Answer]
) -> None:
    """As many as there must be, but one is not of this set: a file put together by hand, or of another corpus."""
    about = json.loads((run_dir / GENERATION).read_text())
    about["splits"]["scripts"]["ids"] = asked_ids(answer.key for answer in answers[:4])
    (run_dir / GENERATION).write_text(json.dumps(about))
    assert score_run(run_dir, config)["n"] == 4
    write_answers(run_dir / REPLIES, [replace(answers[0], id="another"), *answers[1:]])
    with pytest.raises(DataError, match=r"split 'scripts' has replies to other turns.*mismatched_ids"):
        score_run(run_dir, config)


def test_a_limit_makes_scores_partial(run_dir: Path, config: RunConfig) -> None:
    """The first dialogues of a set are not the set, though all that were asked for are there."""
    about = json.loads((run_dir / GENERATION).read_text())
    about["splits"]["scripts"] |= {"limit": 4, "of": 252}
    (run_dir / GENERATION).write_text(json.dumps(about))
    assert score_run(run_dir, config)["splits"]["scripts"]["partial"] == {"replies": 4, "of": 252}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no_file"),
        ("{", "no_file"),
        ('{"model": "another", "splits": {}}', "mixed_models"),
        (f'{{"model": "{MODEL}", "splits": {{}}}}', "mixed_models"),
    ],
)
def test_without_their_description_replies_are_not_scored(
    run_dir: Path, config: RunConfig, content: str | None, reason: str
) -> None:
    """Nobody would know how many are missing."""
    path = run_dir / GENERATION
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError) as error:
        score_run(run_dir, config)
    assert error.value.reason == reason


def test_table_shows_every_number_with_interval_and_baseline(
    run_dir: Path, config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """A number without what a constant guess gets means nothing."""
    print_scores(score_run(run_dir, config))
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("emotion, weighted F1"))
    assert "58.3 [" in line
    assert "33.3" in line
    assert "style unreadable" in printed
    assert "METEOR not computed: " in printed


def branches(answers: list[Answer], key: str) -> list[Answer]:
    """Two scripts, each spoken sadly and happily: the users' words are the same, the right replies are not."""
    sad, happy = Reply(Style(emotion="sad"), "i am so sorry."), Reply(Style(emotion="happy"), "wonderful! enjoy it.")
    made = []
    for script in ("one", "two"):
        for name, wanted in (("sad", sad), ("happy", happy)):
            scene = {key: script}
            made.append(replace(answers[0], id=f"{script}-{name}", scene=scene, reference=wanted, reply=wanted))
    return made


@pytest.mark.parametrize("key", ["group", "script"])
def test_counterfactual_groups_come_from_the_scene(answers: list[Answer], key: str) -> None:
    """Any store can state its groups; a deaf model gets none of them and half of the branches."""
    hearing = branches(answers, key)
    scores = score_answers(hearing, resamples=20)
    assert scores["metrics"]["counterfactual_groups"]["value"] == 1
    assert scores["metrics"]["counterfactual_groups"]["n"] == 2
    assert scores["baselines"]["deaf_counterfactual_groups"] == 0
    assert scores["baselines"]["deaf_counterfactual_branches"] == 0.5
    assert scores["bootstrap"]["units"] == 2
    deaf = score_answers([replace(answer, reply=hearing[0].reply) for answer in hearing], resamples=20)
    assert deaf["metrics"]["counterfactual_groups"]["value"] == 0
    assert deaf["metrics"]["counterfactual_branches"]["value"] == 0.5


def test_dialogues_of_other_words_are_no_group(answers: list[Answer]) -> None:
    """Pieces of one script differ in what is said, so a model needs no ears to tell them apart."""
    hearing = branches(answers, "script")
    history = [
        (*answer.history[:-1], replace(answer.history[-1], text=f"piece {number}"))
        for number, answer in enumerate(hearing)
    ]
    apart = [replace(answer, history=turns) for answer, turns in zip(hearing, history, strict=True)]
    assert "counterfactual_groups" not in score_answers(apart, resamples=5)["metrics"]


@pytest.mark.parametrize("told", ["style", "text"])
def test_dialogues_whose_history_tells_them_apart_are_no_group(answers: list[Answer], told: str) -> None:
    """Where the assistant said something else before, or in another voice, a model that hears nothing can know."""
    hearing = branches(answers, "group")
    apart = []
    for answer in hearing:
        first, said, last = answer.history
        emotion = answer.reference.style.emotion if answer.reference.style else None
        said = replace(said, style=Style(emotion=emotion)) if told == "style" else replace(said, text=f"oh, {emotion}.")
        apart.append(replace(answer, history=(first, said, last)))
    assert "counterfactual_groups" not in score_answers(apart, resamples=5)["metrics"]
    # The model's own turns tell apart only what it heard.
    scores = score_answers(apart, resamples=5, turns="own_history")
    assert scores["metrics"]["counterfactual_groups"]["n"] == 2


def test_user_turns_without_a_transcript_are_no_group(answers: list[Answer]) -> None:
    """Nobody knows that their words are the same."""
    hearing = branches(answers, "group")
    silent = [replace(one, history=(*one.history[:-1], replace(one.history[-1], text=" "))) for one in hearing]
    assert "counterfactual_groups" not in score_answers(silent, resamples=5)["metrics"]


def test_scores_by_turn(answers: list[Answer]) -> None:
    """A model may lose the thread: every metric by how often the user has spoken."""
    first = [replace(answer, history=answer.history[:1]) for answer in answers[:2]]
    second = [replace(answer, reply=answer.reference) for answer in answers[:2]]
    scores = score_answers([*first, *second], resamples=5)["by_turn"]
    assert {turn: part["n"] for turn, part in scores.items()} == {"1": 2, "2": 2}
    assert scores["2"]["metrics"]["exact_reply"]["value"] == 1
    assert scores["1"]["metrics"]["exact_reply"]["value"] == 0.5
    assert score_answers(second, resamples=5)["by_turn"] == {}


def test_replies_of_one_script_have_no_interval(answers: list[Answer]) -> None:
    """The turns of one dialogue, or the branches of one script, say nothing of how far others would differ."""
    one = [replace(answer, scene=answer.scene | {"script": "one"}) for answer in answers]
    entry = score_answers(one, resamples=20)["metrics"]["rouge_l"]
    assert 0 < entry["value"] < 1
    assert entry["ci95"] is None
    assert entry["n"] == len(answers)


@pytest.mark.parametrize(
    ("change", "lacking"),
    [
        ({"splits": {"scripts": {}, "voices": {"replies": 2, "of": 2}}}, "replies of 'scripts', of of 'scripts'"),
        (
            {"splits": {"scripts": {"replies": "4", "of": 4}, "voices": None}},
            "replies of 'scripts', replies of 'voices'",
        ),
        ({"decoding": ...}, "decoding"),
        ({"step": ...}, "step"),
    ],
)
def test_a_description_that_lacks_something_is_named(
    run_dir: Path, config: RunConfig, change: dict[str, Any], lacking: str
) -> None:
    """Of a version to come, or changed by hand: not with a KeyError."""
    path = run_dir / GENERATION
    about = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in about.items() if value is not ...}))
    with pytest.raises(DataError, match=f"does not say {lacking}"):
        score_run(run_dir, config)

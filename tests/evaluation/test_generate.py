"""Generation into a file that survives kills, and never mixes two models."""

import json
from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from omnichat import build
from omnichat.chat import LoadedRun
from omnichat.checkpoint import trainable
from omnichat.config import load_config
from omnichat.data.made_up import made_up_dialogues
from omnichat.dialogue import DataError, Dialogue, Reply, read_dialogues
from omnichat.evaluation.generate import count_parameters, generate, model_hash
from omnichat.evaluation.replies import Answer, asked_ids, read_answers, read_generation, writing_alone
from omnichat.evaluation.score import score_run
from omnichat.evaluation.screen import print_scores
from omnichat.evaluation.turns import answered_places, as_turn
from omnichat.run_folder import REPLIES
from tests.disk import files_up_to


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    """The smoke recipe's model, untrained."""
    config = load_config("recipe=smoke", "data.made_up=6", "evaluation.max_new_tokens=5", "evaluation.batch_size=4")
    config = build.materialise(config, tmp_path_factory.mktemp("weights"))
    return LoadedRun(config, build.build_model(config).eval(), build.build_prompt(config), 3)


@pytest.fixture
def splits(tmp_path: Path) -> dict[str, Path]:
    """Six dialogues, of one to three rounds."""
    made_up_dialogues(tmp_path / "store", 6, seed=1, split="held")
    return {"held": tmp_path / "store" / "held.jsonl"}


def changed(run: LoadedRun, **evaluation: int | str) -> LoadedRun:
    """The same weights with other settings."""
    settings = run.config.evaluation.model_copy(update=evaluation)
    return replace(run, config=run.config.model_copy(update={"evaluation": settings}))


def without_seconds(path: Path) -> list[dict[str, object]]:
    """The file's records; times differ from run to run."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def test_every_dialogue_is_answered_once(run: LoadedRun, splits: dict[str, Path], tmp_path: Path) -> None:
    """With what a score and a report need; and a second time nothing is done."""
    generate(run, splits, tmp_path)
    answers = read_answers(tmp_path / REPLIES)
    assert [answer.id for answer in answers] == [f"held-{number}" for number in range(6)]
    for answer in answers:
        assert answer.history[-1].role == "user"
        assert answer.reference.text
        assert set(answer.gates) == {"whisper", "emotion2vec", "beats"}
        assert all(0 < gate < 1 for gate in answer.gates.values())
        assert answer.seconds > 0
    about = read_generation(tmp_path)
    assert about["step"] == 3
    ids = asked_ids(answer.key for answer in answers)
    assert about["splits"]["held"] == {
        "store": str(splits["held"]),
        "replies": 6,
        "of": 6,
        "limit": None,
        "turns": "last",
        "ids": ids,
    }
    assert about["decoding"]["method"] == "greedy"
    before = (tmp_path / REPLIES).read_bytes()
    generate(run, splits, tmp_path)
    assert (tmp_path / REPLIES).read_bytes() == before
    assert score_run(tmp_path, run.config)["n"] == 6


def test_a_run_that_never_learnt_a_field_says_unknown(run: LoadedRun, splits: dict[str, Path], tmp_path: Path) -> None:
    """A run on recorded dialogues that know the emotion alone; its scores must not be those of unreadable replies."""
    without = replace(changed(run, max_new_tokens=16), style_fields=())
    generate(without, splits, tmp_path)
    answers = read_answers(tmp_path / REPLIES)
    assert all(answer.raw.startswith("(unknown, unknown, unknown, unknown") for answer in answers)
    assert read_generation(tmp_path)["decoding"]["forced_unknown"] == "gender, emotion, speed, pitch"
    assert model_hash(without) != model_hash(changed(run, max_new_tokens=16))


def test_a_killed_generation_goes_on(run: LoadedRun, splits: dict[str, Path], tmp_path: Path) -> None:
    """What is whole stays, what was cut short is made again, and the end is the same as without the kill."""
    generate(run, splits, tmp_path)
    path = tmp_path / REPLIES
    whole = without_seconds(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:50])
    generate(run, splits, tmp_path)
    assert path.read_bytes().startswith(b"".join(lines[:3]))
    assert without_seconds(path) == whole


def test_the_batch_changes_no_reply(run: LoadedRun, splits: dict[str, Path], tmp_path: Path) -> None:
    """Nor does it make the replies another model's."""
    generate(run, splits, tmp_path)
    whole = without_seconds(tmp_path / REPLIES)
    alone = tmp_path / "alone"
    alone.mkdir()
    generate(changed(run, batch_size=1), splits, alone)
    for one, other in zip(without_seconds(alone / REPLIES), whole, strict=True):
        assert one["reply"] == other["reply"]
        assert one["model"] == other["model"]
        assert one["gates"] == pytest.approx(other["gates"], abs=2e-4)


def test_replies_of_other_weights_or_settings_are_made_again(
    run: LoadedRun, splits: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A retrained run scored on its old replies would be the old run."""
    generate(run, splits, tmp_path)
    first = {answer.model for answer in read_answers(tmp_path / REPLIES)}
    generate(changed(run, max_new_tokens=4), splits, tmp_path)
    second = {answer.model for answer in read_answers(tmp_path / REPLIES)}
    assert first != second
    assert "6 replies of other weights, settings or dialogues are dropped" in capsys.readouterr().out
    parameter = next(iter(trainable(run.model).values()))
    before = model_hash(run)
    with torch.no_grad():
        parameter.add_(1e-3)
        try:
            assert model_hash(run) != before
        finally:
            parameter.sub_(1e-3)


@pytest.mark.parametrize("change", ["reference", "audio"])
def test_replies_to_dialogues_that_changed_are_made_again(
    run: LoadedRun, splits: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    """A corpus made anew keeps its ids, not its words and sounds."""
    generate(run, splits, tmp_path)
    records = [json.loads(line) for line in splits["held"].read_text().splitlines()]
    if change == "reference":
        records[2]["turns"][-1]["text"] = "Indeed?"
    else:
        records[2]["turns"][-2]["audio"]["num_samples"] -= 1
    splits["held"].write_text("".join(json.dumps(record) + "\n" for record in records))
    capsys.readouterr()
    generate(run, splits, tmp_path)
    assert "held: 1 of 6 dialogues to answer" in capsys.readouterr().out
    again = {answer.id: answer for answer in read_answers(tmp_path / REPLIES)}["held-2"]
    audio = again.history[-1].audio
    assert audio is not None
    assert again.reference.text == records[2]["turns"][-1]["text"]
    assert audio.num_samples == records[2]["turns"][-2]["audio"]["num_samples"]


def test_a_limit_is_recorded_and_another_set_joins(run: LoadedRun, splits: dict[str, Path], tmp_path: Path) -> None:
    """Scores of the first dialogues must not pass for the set's; sets scored before stay."""
    generate(run, splits, tmp_path, limit=2)
    assert score_run(tmp_path, run.config)["partial"] == {"replies": 2, "of": 6}
    made_up_dialogues(tmp_path / "store", 3, seed=2, split="more")
    generate(run, {"more": tmp_path / "store" / "more.jsonl"}, tmp_path)
    scores = score_run(tmp_path, run.config)
    assert {name: split["n"] for name, split in scores["splits"].items()} == {"held": 2, "more": 3}
    generate(run, splits, tmp_path)
    assert {name: split["n"] for name, split in score_run(tmp_path, run.config)["splits"].items()} == {
        "more": 3,
        "held": 6,
    }


def test_every_turn_with_the_corpus_s_history(run: LoadedRun, splits: dict[str, Path], tmp_path: Path) -> None:
    """Each assistant turn after a user turn, after what the corpus says; beside the replies to last turns, not over."""
    generate(run, splits, tmp_path)
    generate(changed(run, turns="gold_history"), splits, tmp_path)
    answers = read_answers(tmp_path / REPLIES)
    every = [answer for answer in answers if answer.split == "held.gold_history"]
    last = {answer.id: answer for answer in answers if answer.split == "held"}
    dialogues = {dialogue.id: dialogue for dialogue in read_dialogues(splits["held"])}
    assert len(last) == 6
    assert sum(sum(t.role == "assistant" for t in dialogue.turns) for dialogue in dialogues.values()) == len(every)
    for answer in every:
        turns = dialogues[answer.id].turns
        assert [turn.text for turn in answer.history] == [turn.text for turn in turns[: len(answer.history)]]
        assert answer.reference == Reply(turns[len(answer.history)].style, turns[len(answer.history)].text)
        if len(answer.history) == len(turns) - 1:
            assert (answer.reply, answer.prompt) == (last[answer.id].reply, last[answer.id].prompt)
    scores = score_run(tmp_path, run.config)["splits"]
    assert scores["held.gold_history"]["turns"] == "gold_history"
    assert set(scores["held.gold_history"]["by_turn"]) == {"1", "2", "3"}
    assert sum(part["n"] for part in scores["held.gold_history"]["by_turn"].values()) == len(every)


def test_own_history_is_what_the_model_answered(run: LoadedRun, splits: dict[str, Path], tmp_path: Path) -> None:
    """In style and words, turn after turn, whatever is answered side by side; and never the corpus's."""
    own = changed(run, turns="own_history")
    generate(own, splits, tmp_path)
    replies = {answer.key: answer for answer in read_answers(tmp_path / REPLIES)}
    checked = 0
    for (identity, _), answer in replies.items():
        for place, turn in enumerate(answer.history):
            if turn.role == "assistant":
                earlier = replies[identity, place].reply
                assert turn == as_turn(earlier)
                assert earlier != replies[identity, place].reference
                checked += 1
    assert checked > 4
    alone = tmp_path / "alone"
    alone.mkdir()
    generate(changed(own, batch_size=1), splits, alone)
    singly = {answer.key: answer.reply for answer in read_answers(alone / REPLIES)}
    assert singly == {key: answer.reply for key, answer in replies.items()}


def test_own_history_over_the_limit_fails_turn_by_turn(
    run: LoadedRun, splits: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that rambles fills its context: what it leaves no room for is wrong by name, not an end of the run.

    Nor is it ever left out: the score of the turns that still fitted would be better than the run's.
    """
    own = changed(run, turns="own_history", max_new_tokens=60)
    dialogues = list(read_dialogues(splits["held"]))
    own.prompt.max_tokens = max(len(own.prompt.render(dialogue).ids) for dialogue in dialogues) + 20
    try:
        generate(own, splits, tmp_path)
        path = tmp_path / REPLIES
        answers = read_answers(path)
        failed = [answer for answer in answers if answer.failure]
        assert 0 < len(failed) < len(answers)
        assert len(answers) == sum(len(answered_places(dialogue, "own_history")) for dialogue in dialogues)
        for answer in answers:
            assert answer.failure == ("" if _fits(own, answer) else "too_long")
            assert answer.reply == Reply(None, "") or not answer.failure
        assert f"held.own_history: {len(failed)} turns are not answered" in capsys.readouterr().out
        scores = score_run(tmp_path, run.config)
        assert scores["failures"] == {"too_long": len(failed)}
        assert scores["n"] == len(answers)
        assert scores["unparsable_share"] >= len(failed) / len(answers)
        print_scores(scores)
        shown = capsys.readouterr().out
        assert f"{len(failed)} of {len(answers)} turns were not answered (too_long) and count as wrong" in shown
        before = path.read_bytes()
        generate(own, splits, tmp_path)
        assert path.read_bytes() == before
    finally:
        own.prompt.max_tokens = run.config.data.max_tokens


@pytest.mark.parametrize("turns", ["last", "gold_history"])
def test_a_dialogue_over_the_limit_is_a_failure(
    run: LoadedRun, splits: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], turns: str
) -> None:
    """One long dialogue of a test set ended the command, and its config was the run's, not to be changed by now.

    What is too long with its reference alone is asked like any other: the reference is not shown.
    """
    lines = splits["held"].read_text().splitlines()
    record = json.loads(lines[0])
    record["turns"][-1]["text"] = "word " * 3000
    splits["held"].write_text("".join(f"{line}\n" for line in [json.dumps(record), *lines[1:]]))
    asked = [replace(one, turns=one.turns[:-1]) for one in read_dialogues(splits["held"])]
    lengths = {one.id: len(run.prompt.render(one, generation=True).ids) for one in asked}
    short = replace(changed(run, turns=turns), prompt=copy(run.prompt))
    short.prompt.max_tokens = sorted(lengths.values())[3]
    generate(short, splits, tmp_path)
    answers = read_answers(tmp_path / REPLIES)
    failed = {answer.id for answer in answers if answer.failure}
    assert failed == {name for name, length in lengths.items() if length > short.prompt.max_tokens}
    assert 1 <= len(failed) <= 2
    assert "held-0" not in failed
    assert "they do not fit into the model's context" in capsys.readouterr().out
    scores = score_run(tmp_path, short.config)
    assert scores["failures"]["too_long"] == sum(bool(answer.failure) for answer in answers)
    assert scores["partial"] is None


def _fits(run: LoadedRun, answer: Answer) -> bool:
    try:
        run.prompt.render(Dialogue(answer.id, answer.history), generation=True)
    except DataError:
        return False
    return True


@pytest.mark.parametrize("turns", ["gold_history", "own_history"])
def test_replies_to_all_turns_go_on_after_a_kill(
    run: LoadedRun, splits: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], turns: str
) -> None:
    """Whatever was made stays, unless a reply that it answers is gone; the end is the same."""
    every = changed(run, turns=turns)
    generate(every, splits, tmp_path)
    path = tmp_path / REPLIES
    whole = sorted(without_seconds(path), key=str)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-3]) + lines[-3][:40])
    capsys.readouterr()
    generate(every, splits, tmp_path)
    assert f"held.{turns}: 3 of {len(lines)} turns to answer" in capsys.readouterr().out
    assert sorted(without_seconds(path), key=str) == whole
    first = next(n for n, line in enumerate(lines) if json.loads(line)["id"] == "held-5")
    path.write_bytes(b"".join(lines[:first] + lines[first + 1 :]))
    generate(every, splits, tmp_path)
    again = sum(json.loads(line)["id"] == "held-5" for line in lines) if turns == "own_history" else 1
    assert f"{again} of {len(lines)} turns to answer" in capsys.readouterr().out
    assert sorted(without_seconds(path), key=str) == whole


def test_half_precision_says_how_many_replies_the_batch_changes(
    splits: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In float32 none may; in bfloat16 some do, and a reader of the scores is told."""
    config = load_config("recipe=smoke", "model.llm.dtype=bfloat16", "evaluation.max_new_tokens=5")
    config = build.materialise(config, tmp_path / "weights")
    half = LoadedRun(config, build.build_model(config).eval(), build.build_prompt(config), 0)
    generate(half, splits, tmp_path)
    found = read_generation(tmp_path)["one_by_one"]
    assert found["replies"] == 6
    (tmp_path / "alone").mkdir()
    generate(changed(half, batch_size=1), splits, tmp_path / "alone")
    raw = [
        {answer.key: answer.raw for answer in read_answers(path / REPLIES)} for path in (tmp_path, tmp_path / "alone")
    ]
    assert read_generation(tmp_path / "alone")["one_by_one"] is None, "one at a time: there is nothing to compare"
    assert found["same"] == sum(raw[0][key] == raw[1][key] for key in raw[1])
    assert "6 replies made singly too, in torch.bfloat16" in capsys.readouterr().out
    generate(half, splits, tmp_path)
    assert read_generation(tmp_path)["one_by_one"] == found


def test_parameters_are_counted_by_part(run: LoadedRun) -> None:
    """The report says what was trained; the sums must be the model's."""
    counts = count_parameters(run.model)
    assert sum(part["total"] for part in counts.values()) == sum(p.numel() for p in run.model.parameters())
    trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    assert sum(part["trained"] for part in counts.values()) == trained
    assert {name for name, part in counts.items() if part["trained"]} == {"mixformer", "lora"}
    assert {"encoders.whisper", "encoders.emotion2vec", "encoders.beats", "llm"} <= set(counts)


def test_a_smaller_limit_throws_nothing_away(
    run: LoadedRun, splits: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`limit=2` for a quick look must not cost the hours that the others took."""
    generate(run, splits, tmp_path)
    before = (tmp_path / REPLIES).read_bytes()
    assert read_generation(tmp_path)["one_by_one"] is None, "in float32 the batch changes nothing"
    capsys.readouterr()
    generate(run, splits, tmp_path, limit=2)
    assert capsys.readouterr().out == "held: 0 of 6 dialogues to answer\n"
    assert (tmp_path / REPLIES).read_bytes() == before
    assert score_run(tmp_path, run.config)["partial"] is None
    generate(changed(run, max_new_tokens=4), splits, tmp_path, limit=2)
    assert score_run(tmp_path, run.config)["partial"] == {"replies": 2, "of": 6}


def test_a_last_round_too_long_is_a_failure_where_oldest_turns_are_dropped(
    run: LoadedRun, splits: dict[str, Path], tmp_path: Path
) -> None:
    """One such dialogue of a test set ended the command; the others lose the turns that their run lets them lose."""
    lines = [json.loads(line) for line in splits["held"].read_text().splitlines()]
    rounds = {one.id: replace(one, turns=one.turns[-2:-1]) for one in read_dialogues(splits["held"])}
    limit = max(len(run.prompt.render(one, generation=True).ids) for one in rounds.values()) + 40
    lines[0]["turns"][-2] |= {"text": "word " * 3000}
    lines[1]["turns"][-1]["text"] = "word " * 3000  # the reference is not shown
    splits["held"].write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    data = run.config.data.model_copy(
        update={"overlong": "drop_oldest_turns", "max_tokens": limit, "input": "speech+text"}
    )
    config = run.config.model_copy(update={"data": data})
    short = replace(run, config=config, prompt=build.build_prompt(config))
    generate(short, splits, tmp_path)
    answers = {answer.id: answer for answer in read_answers(tmp_path / REPLIES)}
    assert len(answers) == 6
    assert [name for name, answer in answers.items() if answer.failure] == [lines[0]["id"]]
    assert len(answers[lines[1]["id"]].history) < len(lines[1]["turns"]) - 1
    assert score_run(tmp_path, config)["failures"]["too_long"] == 1


@pytest.mark.parametrize("turns", ["last", "gold_history"])
def test_dialogues_that_are_left_out_make_scores_partial(
    run: LoadedRun, splits: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], turns: str
) -> None:
    """A run that leaves out what is too long has not been scored on the set; with nothing left there is no score."""
    limit = sorted(len(run.prompt.render(one).ids) for one in read_dialogues(splits["held"]))[3]
    every = changed(run, turns=turns)
    data = every.config.data.model_copy(update={"overlong": "drop_dialogue", "max_tokens": limit})
    short = replace(every, config=every.config.model_copy(update={"data": data}), prompt=copy(run.prompt))
    short.prompt.max_tokens = limit
    generate(short, splits, tmp_path)
    assert "2 of 6 dialogues are too long and left out" in capsys.readouterr().out
    scores = score_run(tmp_path, short.config)
    assert scores["partial"]["of"] == scores["n"] + 2
    print_scores(scores)
    assert "PARTIAL: held" in capsys.readouterr().out
    short.prompt.max_tokens = 20
    none = tmp_path / "none"
    none.mkdir()
    with pytest.raises(DataError, match="none of its 6 dialogues has a turn that can be asked for"):
        generate(short, splits, none)


def test_a_second_process_is_refused(run: LoadedRun, splits: dict[str, Path], tmp_path: Path) -> None:
    """While one answers, another would take its file away, and the replies would be lost."""
    with writing_alone(tmp_path), pytest.raises(DataError, match="another process writes replies"):
        generate(run, splits, tmp_path)
    assert not (tmp_path / REPLIES).exists()
    generate(run, splits, tmp_path)


def test_generation_goes_on_after_a_full_disk(run: LoadedRun, splits: dict[str, Path], tmp_path: Path) -> None:
    """The file is named, and what was written stays."""
    generate(run, splits, tmp_path)
    path = tmp_path / REPLIES
    whole = without_seconds(path)
    size = path.stat().st_size
    path.unlink()
    with pytest.raises(OSError, match=rf"lines before stay.*{REPLIES}"), files_up_to(size // 2):
        generate(run, splits, tmp_path)
    assert 0 < path.stat().st_size <= size // 2
    generate(run, splits, tmp_path)
    assert without_seconds(path) == whole

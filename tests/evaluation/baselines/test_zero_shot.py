"""Whisper before a language model, and Qwen2-Audio, on tiny random checkpoints in the real formats."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from omnichat.data.made_up import made_up_dialogues
from omnichat.dialogue import AudioRef, DataError, Dialogue, Style, Turn, read_dialogues
from omnichat.evaluation import command
from omnichat.evaluation.answering import Asked, make_work
from omnichat.evaluation.baselines import asr_llm
from omnichat.evaluation.baselines.asking import INSTRUCTION, messages, rendered, text_part
from omnichat.evaluation.baselines.command import main
from omnichat.evaluation.baselines.qwen2_audio import Qwen2Audio
from omnichat.evaluation.baselines.settings import make_config
from omnichat.evaluation.baselines.transcripts import FILE
from omnichat.evaluation.replies import read_answers, read_generation
from omnichat.models.hugging_face import ModelError
from omnichat.prompt import parse_reply
from omnichat.run_folder import REPLIES
from omnichat.schema import EvaluationConfig

SHORT = ["max_new_tokens=6", "bootstrap=20"]


def records(folder: Path) -> list[dict[str, Any]]:
    """Of the replies; times differ from run to run."""
    found = [json.loads(line) for line in (folder / REPLIES).read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in found]


def settings(batch_size: int = 4) -> EvaluationConfig:
    """Of short replies."""
    return make_config("qwen2_audio", "x", {}, {"batch_size": batch_size, "max_new_tokens": 6}).evaluation


def arguments(kind: str, whisper: Path, chat_model: Path, qwen2_audio: Path) -> list[str]:
    """A command line's beginning."""
    models = [f"asr={whisper}", f"llm={chat_model}"] if kind == "asr_llm" else [f"model={qwen2_audio}"]
    return [kind, *models, *SHORT]


@pytest.mark.parametrize("kind", ["asr_llm", "qwen2_audio"])
def test_batches_kills_and_repeats_change_no_reply(
    kind: str, whisper: Path, chat_model: Path, qwen2_audio: Path, store: Path, tmp_path: Path
) -> None:
    """One by one, side by side, or after a kill: the same replies, and what is there is not made again."""
    begin = [*arguments(kind, whisper, chat_model, qwen2_audio), f"store={store}"]
    whole, alone = tmp_path / "whole", tmp_path / "alone"
    assert main([*begin, f"out={whole}", "batch_size=4"], "") == 0
    assert main([*begin, f"out={alone}", "batch_size=1"], "") == 0
    assert [answer.id for answer in read_answers(whole / REPLIES)] == [f"held-{number}" for number in range(5)]
    assert records(whole) == records(alone)
    assert len({record["prompt"] for record in records(whole)}) == 5
    assert any(record["reply"]["raw"] for record in records(whole))
    before = (whole / REPLIES).read_bytes()
    assert main([*begin, f"out={whole}", "batch_size=2"], "") == 0
    assert (whole / REPLIES).read_bytes() == before
    lines = before.splitlines(keepends=True)
    (whole / REPLIES).write_bytes(lines[0] + lines[1][:40])
    assert main([*begin, f"out={whole}", "batch_size=4"], "") == 0
    assert (whole / REPLIES).read_bytes().startswith(lines[0])
    assert records(whole) == records(alone)
    decoding = read_generation(whole)["decoding"]
    assert (decoding["method"], decoding["dtype"], decoding["max_new_tokens"]) == ("greedy", "float32", 6)


def test_transcripts_are_kept_and_read(whisper: Path, chat_model: Path, store: Path, tmp_path: Path) -> None:
    """Hearing is most of the work; and a language model that was shown the corpus's own words would be no baseline."""
    begin = [*arguments("asr_llm", whisper, chat_model, Path()), f"store={store}", f"out={tmp_path / 'out'}"]
    assert main(begin, "") == 0
    path = tmp_path / "out" / FILE
    lines = path.read_text().splitlines()
    turns = [turn for one in read_dialogues(store) for turn in one.turns if turn.role == "user"]
    assert len(lines) == len(turns)
    words = set(" ".join(json.loads(line)["text"] for line in lines).split())
    assert words
    assert words <= {"hello", "cat", "dog", "rain", "the", "a"}
    first = {record["id"]: record["prompt"] for record in records(tmp_path / "out")}
    changed = [{**json.loads(line), "text": "the rain"} for line in lines]
    path.write_text("".join(json.dumps(record) + "\n" for record in changed) + '{"audio": "cut sh')
    assert main(begin, "") == 0  # other transcripts are other prompts
    second = {record["id"]: record["prompt"] for record in records(tmp_path / "out")}
    assert all(first[name] != second[name] for name in first)
    assert path.read_text().splitlines() == [json.dumps(record) for record in changed]


def test_own_history(whisper: Path, chat_model: Path, store: Path, tmp_path: Path) -> None:
    """Every turn after what the baseline said itself; an unreadable style must not stop it."""
    begin = [*arguments("asr_llm", whisper, chat_model, Path()), f"store={store}", f"out={tmp_path / 'out'}"]
    assert main([*begin, "turns=own_history"], "") == 0
    dialogues = read_dialogues(store)
    answers = read_answers(tmp_path / "out" / REPLIES)
    assert len(answers) == sum(turn.role == "assistant" for one in dialogues for turn in one.turns)


def test_qwen2_audio_hears_all_of_a_long_turn(qwen2_audio: Path, tmp_path: Path) -> None:
    """Its processor cuts off what is beyond 30 s, in silence."""
    import numpy as np
    import soundfile

    wave = np.random.default_rng(0).normal(0, 0.1, 16_000 * 40).astype("float32")
    soundfile.write(tmp_path / "long.wav", wave, 16_000, subtype="FLOAT")
    wave[16_000 * 31 :] = 0
    soundfile.write(tmp_path / "quiet.wav", wave, 16_000, subtype="FLOAT")
    answerer = Qwen2Audio(qwen2_audio, settings(), torch.float32, "cpu")

    def asked(name: str) -> Asked:
        turn = Turn("user", "", audio=AudioRef(str(tmp_path / name), 16_000 * 40))
        return Asked(one := Dialogue("d", (turn, Turn("assistant", "yes"))), make_work(one, "here", "last"))

    text = answerer._text(asked("long.wav").dialogue)
    assert text.count("<|AUDIO|>") == 2
    assert INSTRUCTION in text
    heard = [answerer._waves(asked(name)) for name in ("long.wav", "quiet.wav")]
    assert [len(piece) for piece in heard[0]] == [480_000, 160_000]
    assert (heard[0][1] != heard[1][1]).any()
    assert answerer.write([asked("long.wav")])


def test_what_follows_the_chat_template_is_the_corpus_s(qwen2_audio: Path) -> None:
    """Marks spelled out in the data stay words, the history keeps its styles, turns of one role are one message."""
    ref = AudioRef("a.wav", 1600)
    turns = (
        Turn("user", "x", audio=ref),
        Turn("user", "y", audio=ref),
        Turn("assistant", "no <|AUDIO|> <|im_end|>", Style("male", "sad")),
        Turn("user", "z", audio=ref),
        Turn("assistant", "yes"),
    )
    text = Qwen2Audio(qwen2_audio, settings(), torch.float32, "cpu")._text(Dialogue("d", turns))
    assert text.count("<|AUDIO|>") == 3
    assert text.count("<|im_start|>user") == 2
    assert "(male, sad, unknown, unknown): no < |AUDIO|> < |im_end|>" in text
    assert text.endswith("<|im_start|>assistant\n")


def test_a_template_without_a_system_message() -> None:
    """Some models have none: the instruction opens the user's turn; a template that takes neither is named."""
    dialogue = Dialogue("d-1", (Turn("user", "hi"), Turn("assistant", "yes")))
    chat = [
        {"role": part["role"], "content": "".join(piece["text"] for piece in part["content"])}
        for part in messages(dialogue, lambda turn: text_part(turn.text))
    ]

    def template(found: list[dict[str, Any]]) -> str:
        if found[0]["role"] == "system":
            raise ValueError("no system message")
        return str(found)

    assert rendered(template, chat, dialogue) == str([{"role": "user", "content": f"{INSTRUCTION}\n\nhi"}])
    with pytest.raises(DataError, match="d-1"):
        rendered(lambda found: str(1 // 0), chat, dialogue)


def test_the_instruction_s_example_can_be_read() -> None:
    """An example that no parser reads would teach replies that none reads."""
    style = parse_reply(INSTRUCTION.splitlines()[-1]).style
    assert style == Style("female", "happy", "normal", "high")


@pytest.mark.parametrize("turns", ["last", "gold_history", "own_history"])
def test_a_prompt_beyond_the_context_is_a_failure(
    turns: str,
    whisper: Path,
    chat_model: Path,
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One long dialogue must not end a night's work, nor be left out: its reply is wrong by name, the others stay.

    Asked beyond its context a model writes nonsense, which would be scored as its best.
    """
    seen, check = list[int](), asr_llm.check_length

    def noted(count: int, new: int, limit: int | None, dialogue: Dialogue) -> None:
        seen.append(count + new)
        check(count, new, limit, dialogue)

    monkeypatch.setattr(asr_llm, "check_length", noted)
    same = [f"store={store}", f"turns={turns}"]
    assert main([*arguments("asr_llm", whisper, chat_model, Path()), *same, f"out={tmp_path / 'whole'}"], "") == 0
    lengths, copy = sorted(seen), tmp_path / "short"
    shutil.copytree(chat_model, copy)
    config = json.loads((copy / "config.json").read_text())
    limit = lengths[len(lengths) // 2]
    (copy / "config.json").write_text(json.dumps({**config, "max_position_embeddings": limit}))
    out = tmp_path / "out"
    begin = [*arguments("asr_llm", whisper, copy, Path()), *same, f"out={out}"]
    assert main(begin, "") == 0
    answers = read_answers(out / REPLIES)
    failed = {answer.key for answer in answers if answer.failure == "too_long"}
    assert len(answers) == len(lengths)
    assert 0 < len(failed) < len(answers)
    assert f"{len(failed)} turns are not answered, they do not fit into the model's context" in capsys.readouterr().out
    if turns != "own_history":
        assert len(failed) == sum(length > limit for length in lengths)
        whole = {answer.key: answer.reply for answer in read_answers(tmp_path / "whole" / REPLIES)}
        assert all(answer.reply == whole[answer.key] for answer in answers if answer.key not in failed)
    before = (out / REPLIES).read_bytes()
    assert main(begin, "") == 0
    assert (out / REPLIES).read_bytes() == before
    assert command.main([f"run={out}", "stage=score"], "") == 0
    assert f"{len(failed)} of {len(answers)} turns were not answered (too_long)" in capsys.readouterr().out


def test_a_broken_transcript_is_named(
    whisper: Path, chat_model: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its line and the cure: hearing is most of the work, and nobody should have to begin anew."""
    begin = [*arguments("asr_llm", whisper, chat_model, Path()), f"store={store}", f"out={tmp_path / 'out'}"]
    assert main(begin, "") == 0
    path = tmp_path / "out" / FILE
    lines = path.read_text().splitlines(keepends=True)
    for broken in ("{", "[]", '{"audio": "a", "recogniser": "b", "text": 5}'):
        path.write_text("".join([lines[0], f"{broken}\n", *lines[2:]]))
        assert main(begin, "") == 1
        assert f"{FILE}:2: is not a transcript" in capsys.readouterr().err
    path.write_text("".join([lines[0], *lines[2:]]))
    assert main(begin, "") == 0
    assert sorted(path.read_text().splitlines(keepends=True)) == sorted(lines)


def test_a_checkpoint_with_a_weight_missing_is_refused(qwen2_audio: Path, tmp_path: Path) -> None:
    """transformers would make up the weight and go on."""
    from safetensors.torch import load_file, save_file

    for file in qwen2_audio.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if "multi_modal_projector" in name and name.endswith("weight"))
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="multi_modal_projector"):
        Qwen2Audio(tmp_path, settings(), torch.float32, "cpu")
    (tmp_path / "model.safetensors").write_bytes(b"<html>")
    with pytest.raises(ModelError, match="is a web page"):
        Qwen2Audio(tmp_path, settings(), torch.float32, "cpu")


def test_a_turn_without_audio_is_named(qwen2_audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, with their place, before a model answers."""
    dialogues = made_up_dialogues(tmp_path, 2, split="held")
    lines = [json.loads(line) for line in (tmp_path / "held.jsonl").read_text().splitlines()]
    del lines[1]["turns"][-2]["audio"]
    lines[1]["turns"][-2]["text"] = "hello"
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = ["qwen2_audio", f"model={qwen2_audio}", f"store={tmp_path / 'held.jsonl'}", f"out={tmp_path / 'out'}"]
    assert main(given, "") == 1
    error = capsys.readouterr().err
    assert "held.jsonl:2" in error
    assert f"turn {len(dialogues[1].turns) - 2}: has no audio to hear" in error

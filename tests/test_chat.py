"""A chat keeps its cache: what it answers must be what the whole dialogue, read at once, would give."""

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from omnichat import build
from omnichat.audio import audio_ref, load_audio
from omnichat.batch import Example, pack
from omnichat.chat import Chat, LoadedRun, load_run
from omnichat.chat.__main__ import main
from omnichat.checkpoint import CheckpointError
from omnichat.config import ConfigError, load_config
from omnichat.data.store import Store
from omnichat.dialogue import DataError, Dialogue, Turn
from omnichat.models.session import Session
from omnichat.prompt import Slot, Tokens
from omnichat.training.fit import fit
from tests.conftest import CHATML_SPECIAL, make_tokenizer

OVERRIDES = ("data.made_up=4", "trainer.max_steps=1", "trainer.warmup_steps=1", "trainer.validate_every=0")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step: what it answers is noise, but always the same noise."""
    folder = tmp_path_factory.mktemp("runs") / "chat"
    fit(load_config("recipe=smoke", *OVERRIDES), folder)
    return folder


@pytest.fixture(scope="module")
def chatml_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a language model whose tokenizer is of ChatML's family."""
    folder = tmp_path_factory.mktemp("runs") / "chatml"
    made = build.materialise(load_config("recipe=smoke", *OVERRIDES), folder)
    llm = Path(str(made.model.llm.checkpoint))
    make_tokenizer(CHATML_SPECIAL).save(str(llm / "tokenizer.json"))
    (llm / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    fit(made, folder)
    return folder


@pytest.fixture(scope="module")
def run(run_dir: Path) -> LoadedRun:
    """That run as objects."""
    return load_run(run_dir)


@pytest.fixture(scope="module")
def clips(run_dir: Path) -> list[str]:
    """Recordings to say."""
    store = Store(run_dir / "made_up" / "val.jsonl")
    turns = [turn for row in range(len(store)) for turn in store[row].turns]
    return [turn.audio.path for turn in turns if turn.audio is not None]


class Recorder(Session):
    """A session that keeps what it was given and the last logits."""

    def extend(self, embeds: Sequence[Tensor]) -> Tensor:
        """Read on, and remember."""
        self.given = [*getattr(self, "given", []), embeds[0]]
        self.logits = super().extend(embeds)
        return self.logits


@pytest.mark.parametrize("folder", ["run_dir", "chatml_dir"])
def test_cached_chat_equals_full_recompute(folder: str, clips: list[str], request: pytest.FixtureRequest) -> None:
    """Invariant 8: after three turns the cache gives the logits of reading the same ids at once (fp32, 1e-4)."""
    run = load_run(request.getfixturevalue(folder))
    chat = Chat(run)
    chat._session = recorder = Recorder(run.model.llm)
    opening = len(run.prompt.render(Dialogue("", ())).ids)
    slots: list[Slot] = []
    for clip in clips[:3]:
        ref = audio_ref(clip)
        turn = run.prompt.render(Dialogue("", (Turn("user", "", audio=ref),)), generation=True)
        start = turn.slots[0].start + (len(chat.ids) - opening if chat.ids else 0)
        slots.append(Slot(start, turn.slots[0].length, ref))
        chat.reply(clip)
    read = len(chat.ids) - len(chat._unread)
    ids = np.array(chat.ids[:read])
    tokens = Tokens(ids, np.full(read, -100), np.zeros(read, np.uint8), tuple(slots))
    with torch.no_grad():
        whole = run.model.embed(
            pack([Example(tokens, tuple(map(load_audio, (s.audio for s in slots))), None, "")])
        ).embeds
    torch.testing.assert_close(torch.cat(recorder.given), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(recorder.logits, Session(run.model.llm).extend([whole]), atol=1e-4, rtol=0)
    # Between the turns stands what a dialogue that is read at once has there.
    turns = [t for clip in clips[:2] for t in (Turn("user", "", audio=audio_ref(clip)), Turn("assistant", "yes"))]
    rendered = run.prompt.render(Dialogue("", tuple(turns))).ids
    marks = [run.prompt.stop_id, *run.prompt.between, *run.prompt._header("user")]
    assert occurrences(marks, rendered.tolist()) == 2
    assert occurrences(marks, chat.ids) == 3


def occurrences(part: list[int], whole: list[int]) -> int:
    """How often a row of ids stands in another."""
    return sum(whole[start : start + len(part)] == part for start in range(len(whole)))


def test_the_second_dialogue_forgets_the_first(run: LoadedRun, clips: list[str]) -> None:
    """reset() must give the answer of a fresh chat: a leaked cache would colour every later dialogue."""
    chat = Chat(run)
    first = chat.reply(clips[0])
    chat.reply(clips[1])
    chat.reset()
    assert chat.reply(clips[0]) == first


def test_a_stream_ends_in_the_reply_and_grows_towards_it(run: LoadedRun, clips: list[str]) -> None:
    """What is spoken or shown while it is written must be the reply's own words, in order, and nothing else."""
    chat, whole = Chat(run), Chat(run)
    for clip in clips[:2]:
        given, reply = list(chat.stream(clip)), whole.reply(clip)
        assert given[-1] == reply
        assert len(given) > 2
        assert given[0].style is None
        styled = [one for one in given if one.style is not None]
        assert all(one.style == reply.style and reply.text.startswith(one.text) for one in styled)
    assert chat.ids == whole.ids


def test_who_interrupts_a_stream_goes_on_from_what_was_said(run: LoadedRun, clips: list[str]) -> None:
    """The cache must hold what was heard of the reply: the next turn is what reading all of it at once would give."""
    chat = Chat(run)
    chat._session = recorder = Recorder(run.model.llm)
    stream = chat.stream(clips[0])
    for _ in range(5):
        next(stream)
    stream.close()
    assert chat.ids[-1] == run.prompt.stop_id
    chat.reply(clips[1])
    whole = Session(run.model.llm).extend([torch.cat(recorder.given)])
    torch.testing.assert_close(recorder.logits, whole, atol=1e-4, rtol=0)
    said = run.model.llm.model.embed_tokens(torch.tensor(chat._unread)) if chat._unread else None
    assert sum(map(len, recorder.given)) + (0 if said is None else len(said)) == len(chat.ids)


def test_frozen_weights_that_lie_elsewhere_are_named(run_dir: Path, run: LoadedRun, tmp_path: Path) -> None:
    """On another machine they do; all that is missing comes at once, with how to say where it is."""
    llm = Path(str(run.config.model.llm.checkpoint))
    with pytest.raises(ConfigError) as raised:
        load_run(run_dir, weights={"llm": tmp_path / "none", "beats": "neither.pt"})
    for said in (
        "model.llm.checkpoint: no file",
        "model.encoders.beats.checkpoint: no file",
        "Chat.load(..., weights=",
    ):
        assert said in str(raised.value)
    with pytest.raises(ConfigError, match=r"there is no lmm; the model has whisper.*did you mean 'llm'"):
        load_run(run_dir, weights={"lmm": llm})
    moved = tmp_path / "llama"
    shutil.copytree(llm, moved)
    again = load_run(run_dir, weights={"llm": moved})
    assert again.config.model.llm.checkpoint == str(moved)


def test_bad_audio_is_named_and_does_not_end_the_dialogue(run: LoadedRun, clips: list[str], tmp_path: Path) -> None:
    """A user who picks a wrong file goes on as if nothing had been said."""
    chat, undisturbed = Chat(run), Chat(run)
    (tmp_path / "bad.wav").write_text("<html>")
    chat.reply(clips[0])
    with pytest.raises(DataError, match=r"bad\.wav"):
        chat.reply(tmp_path / "bad.wav")
    with pytest.raises(
        DataError, match=r"nope\.wav: no such audio file; correct its path \["
    ):  # there is no store here
        chat.reply("nope.wav")
    undisturbed.reply(clips[0])
    assert chat.reply(clips[1]) == undisturbed.reply(clips[1])


def test_context_is_not_overrun(run: LoadedRun, clips: list[str]) -> None:
    """Beyond its context a model answers nonsense without a word of warning; the chat says so instead."""
    chat = Chat(run)
    chat.ids = [0] * run.config.data.max_tokens
    with pytest.raises(DataError, match=r"data\.max_tokens.*reset"):
        chat.reply(clips[0])


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    """The first mistake of a newcomer: the wrong folder."""
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        load_run(tmp_path)


def test_the_command_takes_a_checkpoint(
    run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is not there is named with those that are; a word that is no option shows how it is called."""
    for arguments, code, said in (
        ([f"run={run_dir}", "checkpoint=7"], 1, "no checkpoint of step 7; there are: 1"),
        ([f"run={run_dir}", "chekpoint=7"], 2, "chekpoint=7: not an option"),
        ([f"run={run_dir}", "best"], 2, "best: not an option"),
        ([], 2, "run: is missing"),
    ):
        monkeypatch.setattr("sys.argv", ["chat", *arguments])
        assert main() == code
        printed = capsys.readouterr()
        assert said in printed.out + printed.err
    lines = iter(["/reset", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    monkeypatch.setattr("sys.argv", ["chat", f"run={run_dir}", "checkpoint=1"])
    assert main() == 0


def test_words_where_a_path_belongs_are_told_what_a_turn_is(
    run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first thing that is typed at a prompt is a greeting; there is no store whose root could be checked."""
    lines = iter(["hello", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    monkeypatch.setattr("sys.argv", ["chat", f"run={run_dir}"])
    assert main() == 0
    assert capsys.readouterr().out == "error: hello: no such audio file; type the path of one\n"


def test_ctrl_c_within_an_answer_begins_a_new_dialogue(
    run_dir: Path, clips: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended in a traceback; and a cache that holds half an answer would spoil every answer after it."""
    lines = iter([clips[0], clips[0], clips[0], "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    monkeypatch.setattr("sys.argv", ["chat", f"run={run_dir}"])
    extend, calls = Session.extend, itertools.count()

    def interrupted(self: Session, embeds: Sequence[Tensor]) -> Tensor:
        logits = extend(self, embeds)
        if next(calls) == second:
            raise KeyboardInterrupt
        return logits

    second = -1
    monkeypatch.setattr(Session, "extend", interrupted)
    chat = Chat.load(run_dir)
    first = chat.reply(clips[0])
    second = next(calls) * 2 + 1  # in the middle of the second answer of the command
    assert main() == 0
    answers = capsys.readouterr().out.splitlines()
    assert answers[1:3] == ["", "interrupted; a new dialogue begins"]
    assert first.text in answers[0]
    assert answers[3] == answers[0]

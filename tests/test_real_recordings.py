"""Real recordings of two corpora through the whole chain: reader, encoders, Mix-Former, LLM, loss, step, reply."""

import json
import math
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from data_prep import deepdialogue, sharechat_demo
from omnichat import build
from omnichat.audio import file_bytes, opened
from omnichat.batch import pack
from omnichat.chat import Chat, load_run
from omnichat.config import load_config
from omnichat.data.store import Store
from omnichat.dialogue import AudioRef
from omnichat.training.fit import fit

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"
CORPORA = {
    # module, folder below the samples, what must be among its recordings
    "sharechat_demo": (sharechat_demo, "sharechatx_demo", {(16_000, "PCM_16"), (16_000, "FLOAT")}),
    "deepdialogue": (deepdialogue, "deepdialogue", {(24_000, "PCM_16")}),
}

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the corpora's recordings are not at ../shared/samples")


@pytest.fixture(scope="module", params=CORPORA)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """The corpus as a store, and a run of one step on it: (name, JSONL, run folder)."""
    module, folder, _ = CORPORA[request.param]
    tmp = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["prog", str(SAMPLES / folder), str(tmp / "store"), "--split", "train"])
        assert module.main() == 0
    path = tmp / "store" / "train"
    overrides = (
        "recipe=smoke", "data.made_up=null", f"data.real={path}", "data.alpha=0", f"+data.val.real={path}",
        "data.max_tokens=4096", "trainer.max_steps=1", "trainer.warmup_steps=1", "trainer.dialogues_per_step=2",
        "trainer.micro_batch=1", "trainer.validate_every=1", "trainer.validation_dialogues=1", "trainer.save_every=1",
        "trainer.generate_dialogues=1",
    )  # fmt: skip
    assert fit(load_config(*overrides), tmp / "run") == 0
    return request.param, path, tmp / "run"


def heard(path: Path) -> list[AudioRef]:
    """Every recording of a user turn."""
    store = Store(path)
    turns = [turn for row in range(len(store)) for turn in store[row].turns]
    return [turn.audio for turn in turns if turn.role == "user" and turn.audio is not None]


def test_the_recordings_are_as_different_as_they_should_be(trained: tuple[str, Path, Path]) -> None:
    """If the store lost the odd formats (float, 24 kHz), the tests below would prove nothing."""
    name, path, _ = trained
    formats = {(info.samplerate, info.subtype) for info in map(soundfile.info, map(opened, heard(path)))}
    assert formats >= CORPORA[name][2]


def test_one_training_step(trained: tuple[str, Path, Path]) -> None:
    """The step's loss is that of a random model: about a uniform guess's, more where random logits are sure of it."""
    _, _, run_dir = trained
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    step = next(line for line in lines if "loss/total" in line)
    vocabulary = build.build_prompt(load_run(run_dir).config).tokenizer.get_vocab_size()
    assert 0.9 < step["loss/total"] / math.log(vocabulary) < 1.5
    assert step["data/alpha_realised"] == 0


def test_every_recording_is_heard_whole(trained: tuple[str, Path, Path]) -> None:
    """Every window of every real dialogue reaches the LLM, with finite embeddings and gates between 0 and 1."""
    _, path, run_dir = trained
    run = load_run(run_dir)
    _, examples = build.eval_examples(run.config, run.prompt, path)
    for example in examples:
        heard = run.model.embed(pack([example]))
        assert int(heard.window_counts.sum()) == sum(slot.length for slot in example.tokens.slots)
        assert torch.isfinite(heard.embeds).all()
        assert ((heard.gates >= 0) & (heard.gates <= 1)).all()


def test_one_reply(trained: tuple[str, Path, Path], tmp_path: Path) -> None:
    """A real recording is answered; random weights answer noise, but no more of it than asked for."""
    _, path, run_dir = trained
    chat = Chat.load(run_dir)
    recording = tmp_path / "turn.wav"
    recording.write_bytes(file_bytes(heard(path)[0]))
    reply = chat.reply(recording)
    assert isinstance(reply.text, str)
    written = len(chat.ids) - len(chat.run.prompt.render(Store(path)[0], generation=True).ids)
    assert written <= chat.run.config.evaluation.max_new_tokens + 1

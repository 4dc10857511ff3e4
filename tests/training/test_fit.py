"""Whole runs of `recipe=smoke`: the loss falls, frozen stays frozen, a stopped run goes on bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaMLP

from omnichat.batch import pack
from omnichat.chat import load_run
from omnichat.checkpoint import CheckpointError, best, load_checkpoint, tensors_sha256
from omnichat.config import ConfigError, RunConfig, load_config
from omnichat.data.made_up import made_up_dialogues
from omnichat.dialogue import STYLE_FIELDS
from omnichat.file_hashes import file_sha256
from omnichat.models import layers
from omnichat.training.fit import fit
from omnichat.training.module import OmniChatModule
from omnichat.training.resume import starting_point

QUICK = ("recipe=smoke", "data.made_up=8", "trainer.validate_every=0", "trainer.warmup_steps=1")


def config(*overrides: str) -> RunConfig:
    """The smoke config, smaller still."""
    return load_config(*QUICK, *overrides)


def losses(run_dir: Path) -> dict[int, float]:
    """The loss of each step, as the run logged it."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss/total"] for line in lines if "loss/total" in line}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of six steps."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    assert fit(config("trainer.max_steps=6", "trainer.save_every=2"), run_dir) == 0
    return run_dir


def trained(run_dir: Path, step: int) -> dict[str, str]:
    """Hashes of the tensors of a checkpoint."""
    return {
        stem: tensors_sha256(group)
        for stem, group in load_checkpoint(run_dir / "checkpoints" / str(step)).tensors.items()
    }


def test_run_folder_and_metrics(whole: Path) -> None:
    """The files that eval, chat and people look for are there, with one line for each step."""
    assert sorted(losses(whole)) == [1, 2, 3, 4, 5, 6]
    last = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])
    for key in ("loss/style", "loss/content", "data/alpha_realised", "gate/whisper/tones"):
        assert key in last
    assert (whole / "config.yaml").is_file()


def test_every_step_says_how_fast_it_was(whole: Path) -> None:
    """Fails when speed, waiting, memory or arithmetic is not in the log, or is what no machine can do."""
    for line in (whole / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "loss/total" not in record:
            continue
        seconds = record["perf/seconds"]
        assert record["perf/tokens_per_s"] * seconds == pytest.approx(record["data/tokens"])
        assert 0 < record["perf/audio_s_per_s"] * seconds < 60 * record["data/dialogues"]
        assert 0 <= record["perf/data_wait"] <= 1
        assert 0.05 < record["perf/memory_gib"] < 1000
        assert 0 < record["perf/tflops_per_s"] < 1e4
        assert "perf/mfu" not in record, "a CPU has no known peak"


def test_a_shared_prefix_trains_alike(whole: Path, tmp_path: Path) -> None:
    """Fails when the key does not reach the batches, or what is computed once is not what each would compute."""
    options = "trainer.max_steps=2", "trainer.save_every=0"
    wanted, found = losses(whole), {}
    with patch("omnichat.data.steps.pack", wraps=pack) as packed:
        assert fit(config(*options, "trainer.shared_prefix=true"), tmp_path) == 0
    assert all(call.args[2] is True for call in packed.call_args_list)
    assert packed.call_args_list
    found = losses(tmp_path)
    assert found == pytest.approx({step: wanted[step] for step in found}, rel=1e-4)


def test_compiled_experts_train_alike(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when the key does not reach the experts' layers and the Q-Formers', or reaches them in another order."""
    kinds = set()

    def recorded(kind: type[nn.Module]) -> Callable[..., torch.Tensor]:
        kinds.add(kind)
        return kind.forward

    monkeypatch.setattr(layers, "compiled_forward", recorded)
    options = "trainer.max_steps=2", "trainer.save_every=0", "preflight=off"
    assert fit(config(*options, "trainer.compile_experts=true", "data.features=live"), tmp_path) == 0
    names = {f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}" for kind in kinds}
    assert names == {"whisper._Block", "emotion2vec._Block", "beats._Layer", "qformer.QFormerLayer"}
    wanted, found = losses(whole), losses(tmp_path)
    assert found == pytest.approx({step: wanted[step] for step in found}, rel=1e-4)


def test_loss_falls(tmp_path: Path) -> None:
    """A run that does not learn at all (a detached graph, a frozen optimizer) must not pass for one.

    Behind a random frozen LLM little can be learnt; the loss of a run that learns nothing stays within 0.01.
    """
    fit(config("trainer.max_steps=25", "trainer.learning_rate=0.01", "trainer.save_every=0"), tmp_path)
    curve = losses(tmp_path)
    assert sum(curve[step] for step in range(21, 26)) / 5 < curve[1] - 0.08


def test_resume_is_bit_exact(whole: Path, tmp_path: Path) -> None:
    """Stopped after 2 steps and after 3 (an unsaved one lost), then finished: same losses, same weights and moments."""
    steps = "trainer.max_steps=6", "trainer.save_every=2"
    state = {"seen": 0}

    def stop_after(count: int) -> None:
        import omnichat.training.callbacks as callbacks

        original = callbacks.StepMetrics.on_train_batch_end

        def interrupt(self: object, trainer: object, *args: object) -> None:
            original(self, trainer, *args)  # type: ignore[arg-type]
            if trainer.global_step >= count:  # type: ignore[attr-defined]
                raise RuntimeError("the machine went down")

        callbacks.StepMetrics.on_train_batch_end = interrupt  # type: ignore[method-assign]
        try:
            with pytest.raises(RuntimeError, match="went down"):
                fit(config(*steps), tmp_path)
        finally:
            callbacks.StepMetrics.on_train_batch_end = original  # type: ignore[method-assign]
        state["seen"] += 1

    stop_after(3)
    stop_after(5)
    assert state["seen"] == 2
    assert fit(config(*steps), tmp_path) == 0
    assert losses(tmp_path) == losses(whole)
    assert trained(tmp_path, 6) == trained(whole, 6)


def test_workers_do_not_change_a_run(whole: Path, tmp_path: Path) -> None:
    """Data workers must not change what is trained on, nor its order."""
    fit(config("trainer.max_steps=2", "trainer.save_every=2", "data.num_workers=2"), tmp_path)
    # max_steps changes the schedule; the first step's loss is before any update
    assert losses(tmp_path)[1] == losses(whole)[1]


def test_cached_features_give_the_live_run_up_to_their_dtype(whole: Path, tmp_path: Path) -> None:
    """A cache that is shifted, cut or of the wrong clip would change the loss far beyond bfloat16's rounding."""
    cached = config(
        "trainer.max_steps=6",
        "trainer.save_every=2",
        "data.features=cached",
        f"data.features_dir={tmp_path / 'features'}",
    )
    fit(cached, tmp_path / "run")
    for step, loss in losses(tmp_path / "run").items():
        assert loss == pytest.approx(losses(whole)[step], rel=2e-3)


def test_frozen_stays_frozen(whole: Path) -> None:
    """Invariant 7: weights on disk untouched, and a checkpoint holds only Mix-Former, LoRA and their moments."""
    checkpoint = load_checkpoint(whole / "checkpoints" / "6")
    for part, identity in checkpoint.state["frozen"].items():
        assert file_sha256(identity["path"]) == identity["sha256"], part
    names = {name for stem in ("mixformer", "adapter") for name in checkpoint.tensors[stem]}
    assert all(name.startswith("mixformer.") or ".lora_" in name for name in names)
    run = load_run(whole)
    fresh = load_run(whole)
    frozen = {name: p for name, p in run.model.named_parameters() if not p.requires_grad}
    assert {name.split(".")[0] for name in frozen} == {"encoders", "llm"}
    assert tensors_sha256(frozen) == tensors_sha256(
        {n: p for n, p in fresh.model.named_parameters() if not p.requires_grad}
    )


@pytest.mark.parametrize("change", ["seed=1", "model.window=9", "data.alpha=0.25", "trainer.dialogues_per_step=4"])
def test_another_config_in_the_same_folder_is_refused(whole: Path, change: str) -> None:
    """Going on with other data or another model would look like one run and be two."""
    with pytest.raises(ConfigError) as caught:
        fit(config("trainer.max_steps=6", "trainer.save_every=2", change), whole)
    assert change.partition("=")[0] in str(caught.value)
    assert "run_name=" in str(caught.value)


def test_other_data_under_the_same_path_is_refused(tmp_path: Path) -> None:
    """A store that was made again with fewer dialogues is another stream, though the config says the same."""
    store = tmp_path / "store"
    made_up_dialogues(store, 8)
    fixed = ("data.made_up=null", f"data.synthetic={store / 'train.jsonl'}", "data.alpha=1", "trainer.max_steps=2")
    fit(config(*fixed, "trainer.save_every=1"), tmp_path / "run")
    made_up_dialogues(store, 7)
    with pytest.raises(CheckpointError, match="other data"):
        fit(config(*fixed, "trainer.save_every=1"), tmp_path / "run")


def test_a_run_knows_which_style_fields_its_data_taught(whole: Path, tmp_path: Path) -> None:
    """Real dialogues may know the emotion alone; chat and evaluation must not ask for what was never learnt."""
    assert load_run(whole).style_fields == STYLE_FIELDS
    made_up_dialogues(tmp_path / "store", 8)
    store = tmp_path / "store" / "train.jsonl"
    lines = [json.loads(line) for line in store.read_text().splitlines()]
    for turn in (turn for line in lines for turn in line["turns"]):
        turn["style"] = {"emotion": "sad"}
    store.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ("data.made_up=null", f"data.real={store}", "data.alpha=0", "trainer.max_steps=1", "trainer.save_every=1")
    fit(config(*options), tmp_path / "run")
    assert load_run(tmp_path / "run").style_fields == ("emotion",)


def test_a_run_on_three_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beyond the paper's two: each source's realised shares are logged, summed up at the end, and kept by a resume."""
    words = []
    for name, weight in (("music", 2), ("talk", 1), ("audio", 1)):
        made_up_dialogues(tmp_path, 5, split=name)
        words += [f"++data.sources.{name}.path={tmp_path / name}.jsonl", f"++data.sources.{name}.weight={weight}"]
    sources = ("data.made_up=null", "data.alpha=null", *words, "trainer.save_every=1")
    assert fit(config(*sources, "trainer.max_steps=1"), tmp_path / "run") == 0
    assert fit(config(*sources, "trainer.max_steps=3"), tmp_path / "run") == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for unit in ("dialogues", "seconds", "targets"):
        assert sum(lines[-1][f"data/share/{unit}/{name}"] for name in ("music", "talk", "audio")) == pytest.approx(1)
    assert sum(lines[-1][f"data/passes/{name}"] * 5 for name in ("music", "talk", "audio")) == pytest.approx(3 * 8)
    assert "data/alpha_realised" not in lines[-1]
    *printed, last = capsys.readouterr().out.partition("drawn in 3 steps:\n")[2].splitlines()
    assert last == f"the run lies in {tmp_path / 'run'}"
    for name, line in zip(("music", "talk", "audio"), printed, strict=True):
        assert line.startswith(f"{name}: {100 * lines[-1][f'data/share/dialogues/{name}']:.2f} % of the dialogues")
    with pytest.raises(ConfigError, match=r"data.sources.talk.weight: 1.0 there, 2.0 here"):
        fit(config(*sources, "++data.sources.talk.weight=2", "trainer.max_steps=3"), tmp_path / "run")


def test_a_named_checkpoint_is_where_a_run_begins_not_where_it_begins_again(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SLURM starts the same command again: beginning at the same place each time, a run would never end."""
    named = whole / "checkpoints" / "4"
    steps = ("trainer.save_every=0", f"resume={named}")
    assert fit(config("trainer.max_steps=5", *steps), tmp_path) == 0
    assert f"going on from {named}" in capsys.readouterr().out
    assert fit(config("trainer.max_steps=6", *steps), tmp_path) == 0
    assert f"going on from {tmp_path / 'checkpoints' / '5'}" in capsys.readouterr().out
    assert sorted(losses(tmp_path)) == [5, 6]
    # Another run's config in this folder would be two runs under one name.
    with pytest.raises(ConfigError, match="seed: 0 there, 1 here"):
        fit(config("trainer.max_steps=6", "seed=1", *steps), tmp_path)


def test_a_run_does_not_go_back_in_its_own_folder(whole: Path) -> None:
    """Its later checkpoints would stay the newest, be gone on from, and cost the new ones; its metrics would be cut."""
    before = losses(whole)
    with pytest.raises(ConfigError, match=r"resume: .*/4 is not .*/6, the newest of its run.*run_name=NAME"):
        fit(config("trainer.max_steps=6", f"resume={whole / 'checkpoints' / '4'}"), whole)
    assert losses(whole) == before
    assert fit(config("trainer.max_steps=6", f"resume={whole / 'checkpoints' / '6'}"), whole) == 0


def test_never_resume(whole: Path, tmp_path: Path) -> None:
    """resume=never protects a finished run, and does not stop a new one."""
    with pytest.raises(ConfigError, match="resume"):
        fit(config("resume=never"), whole)
    assert starting_point(config("resume=never"), tmp_path / "checkpoints") is None


def test_damaged_newest_checkpoint_falls_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flipped bit in the newest checkpoint: the run says so and goes on from the one before."""
    fit(config("trainer.max_steps=4", "trainer.save_every=2"), tmp_path)
    weights = tmp_path / "checkpoints" / "4" / "mixformer.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    expected = losses(tmp_path)
    fit(config("trainer.max_steps=4", "trainer.save_every=2"), tmp_path)
    printed = capsys.readouterr().out
    assert "refused" in printed
    assert "mixformer.safetensors" in printed
    assert losses(tmp_path) == expected


def test_activation_checkpointing_computes_layers_twice_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers leaves it out in silence for layers in evaluation mode, and the memory is not saved."""
    forward, calls = LlamaMLP.forward, []

    def counted(self: LlamaMLP, hidden: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return forward(self, hidden)

    monkeypatch.setattr(LlamaMLP, "forward", counted)
    counts, hashes = [], []
    for value in ("false", "true"):
        overrides = (
            "trainer.max_steps=2",
            "trainer.micro_batch=8",
            f"trainer.activation_checkpointing={value}",
            "preflight=off",
        )
        fit(config(*overrides, "trainer.validate_every=2", "trainer.generate_dialogues=0"), tmp_path / value)
        counts.append(len(calls))
        hashes.append(trained(tmp_path / value, 2))
        calls.clear()
    steps, layers = 2, 1
    assert counts[1] - counts[0] == steps * layers
    assert hashes[0] == hashes[1]


def test_the_best_step_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lowest held-out loss is often not the last step; its checkpoint is what an evaluation wants."""
    # Going on begins with a validation, as nothing is written of the one before.
    values = iter([3.0, 1.0, 1.0, *(2.0, 4.0, 5.0), *(6.0, 0.5)])

    def validated(self: OmniChatModule) -> None:
        self.validation_sums = {}
        self.trainer.callback_metrics["validation/total"] = torch.tensor(next(values))

    monkeypatch.setattr(OmniChatModule, "on_validation_epoch_end", validated)
    overrides = ("trainer.save_every=5", "trainer.keep_last=1", "trainer.validate_every=1")
    for last in (3, 5):  # what was the best before a stop is so after it
        assert fit(load_config(*QUICK, *overrides, "data.made_up=8", f"trainer.max_steps={last}"), tmp_path) == 0
        assert best(tmp_path / "checkpoints") == (tmp_path / "checkpoints" / "2", 1.0)
        assert sorted(path.name for path in (tmp_path / "checkpoints").glob("[0-9]*")) == ["2", str(last)]
    assert fit(load_config(*QUICK, *overrides, "data.made_up=8", "trainer.max_steps=6"), tmp_path) == 0
    assert best(tmp_path / "checkpoints") == (tmp_path / "checkpoints" / "6", 0.5)
    assert [path.name for path in (tmp_path / "checkpoints").glob("[0-9]*")] == ["6"]  # the best before is no more


def test_sigterm_saves_and_exits_143(tmp_path: Path) -> None:
    """A preempted job must lose nothing: finish the step, save, exit 143; the same command finishes the run.

    Schedulers signal every process of a job: a data worker that died of it ended the run before the save.
    """
    command = [
        sys.executable, "train.py", *QUICK, "trainer.max_steps=4000", "trainer.save_every=0", "data.num_workers=2",
        f"hydra.run.dir={tmp_path}", "run_name=preempted",
    ]  # fmt: skip
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"CI": "1"},
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "metrics.jsonl").exists() or not losses(tmp_path):
        assert process.poll() is None, process.stdout.read()  # type: ignore[union-attr]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    saved = [int(path.name) for path in (tmp_path / "checkpoints").iterdir()]
    assert len(saved) == 1
    assert saved[0] == max(losses(tmp_path))

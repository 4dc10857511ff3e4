"""How a step is cut over ranks and micro-batches must not change it (invariant 2), in real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from omnichat import build
from omnichat.batch import PackedBatch
from omnichat.config import load_config
from omnichat.data.steps import StepBatches
from omnichat.training.fit import fit
from omnichat.training.ranks import is_first
from tests.training.empty_rank_job import silence

QUICK = (
    "recipe=smoke", "data.made_up=16", "trainer.max_steps=3", "trainer.save_every=0", "trainer.validate_every=0",
    "trainer.warmup_steps=1",
)  # fmt: skip
WAYS = {
    "one rank": ("trainer.micro_batch=8",),
    "four micro-batches": ("trainer.micro_batch=2",),
    "two ranks of two micro-batches": ("trainer.micro_batch=2", "trainer.devices=2", "trainer.strategy=ddp"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same three steps, cut in each way."""
    folder = tmp_path_factory.mktemp("ranks")
    runs = {way: folder / way.replace(" ", "_") for way in WAYS}
    for way, run_dir in runs.items():
        if "ranks" not in way:
            fit(load_config(*QUICK, *WAYS[way]), run_dir)
            continue
        command = [sys.executable, "train.py", *QUICK, *WAYS[way], f"hydra.run.dir={run_dir}"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=280)
        assert ran.returncode == 0, ran.stderr
    return runs


def steps(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def assert_same_gradients(expected: Path, found: Path, step: int) -> None:
    """Of all steps up to this one, by their running mean."""
    one, other = (load_file(run / "checkpoints" / str(step) / "optimizer.safetensors") for run in (expected, found))
    means = {name: tensor for name, tensor in one.items() if name.endswith(".exp_avg")}
    # The running mean of the gradients, not the weights: AdamW divides by the gradient's size, so that where it is zero
    # but for rounding (the self-attention of a single query) a weight moves by that noise.
    noise = 1e-6 * torch.stack([tensor.norm() for tensor in means.values()]).norm()
    for name, tensor in means.items():
        assert (tensor - other[name]).norm() <= 1e-3 * tensor.norm() + noise, name


ENVIRONMENTS = [
    ({}, True),
    ({"LOCAL_RANK": "1"}, False),  # Lightning's own launcher
    ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
    ({"RANK": "4", "LOCAL_RANK": "0"}, False),  # torchrun, the second node
    ({"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, True),  # torchrun inside srun
    ({"SLURM_PROCID": "3"}, False),  # srun sets no LOCAL_RANK
    ({"SLURM_PROCID": "0"}, True),
]


@pytest.mark.parametrize(("environment", "first"), ENVIRONMENTS)
def test_one_process_owns_the_run_folder(environment: dict[str, str], first: bool) -> None:
    """Two owners would lock each other out, as ranks of srun or the first ranks of two nodes did."""
    assert is_first(environment) is first


@pytest.mark.parametrize("way", [way for way in WAYS if way != "one rank"])
def test_losses_and_gradients_do_not_depend_on_the_cut(runs: dict[str, Path], way: str) -> None:
    """A mean taken per rank or per micro-batch, or divided twice, weighs tokens unequally and shows here."""
    expected, found = steps(runs["one rank"]), steps(runs[way])
    assert [line["step"] for line in found] == [1, 2, 3]
    for one, other in zip(expected, found, strict=True):
        assert other["loss/total"] == pytest.approx(one["loss/total"], rel=1e-6 if one["step"] == 1 else 1e-5)
        for count in ("data/dialogues", "data/tokens", "data/alpha_realised"):
            assert other[count] == one[count]
    for part in ("grad_norm/mixformer", "grad_norm/lora"):
        assert found[-1][part] == pytest.approx(expected[-1][part], rel=1e-3)
    assert_same_gradients(runs["one rank"], runs[way], 3)


def test_a_rank_without_targets_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean per rank is 0/0 there; without gradients it would keep the others waiting for ever.

    The second of three steps, so that what it does to weights and moments shows in the third.
    """
    two_ranks = ("trainer.micro_batch=4", "trainer.devices=2", "trainer.strategy=ddp")
    settings = load_config(*QUICK, *two_ranks)

    def batches(folder: Path) -> list[PackedBatch]:
        """Of both ranks in the second step."""
        config = build.materialise(settings, folder)  # of its own: scans are kept beside the stores
        steps = build.build_data(config, build.build_prompt(config), None).steps
        return [StepBatches(steps, 1, rank, 2)[1] for rank in (0, 1)]

    ids = batches(tmp_path / "before")[1].dialogue_ids
    silence(monkeypatch, set(ids))
    first, second = batches(tmp_path / "after")
    assert second.dialogue_ids == ids
    assert (second.num_targets, second.global_targets) == (0, first.num_targets)
    assert first.num_targets > 0
    assert fit(load_config(*QUICK, *WAYS["one rank"]), tmp_path / "one") == 0
    job = [str(Path(__file__).with_name("empty_rank_job.py")), str(tmp_path / "two"), ",".join(ids)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *job, *QUICK, *two_ranks]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert ran.returncode == 0, ran.stderr
    for one, other in zip(steps(tmp_path / "one"), steps(tmp_path / "two"), strict=True):
        assert other["loss/total"] == pytest.approx(one["loss/total"], rel=1e-5)
        assert other["optim/skipped"] == 0
    assert_same_gradients(tmp_path / "one", tmp_path / "two", 3)


def test_another_number_of_ranks_goes_on_with_the_same_global_batches(tmp_path: Path) -> None:
    """One rank, then two, then one: a run that moves must not train on other data, or twice on some.

    The same dialogues give the same counts, shares and loss; a step of others would not.
    """
    steady = (*QUICK, "trainer.dialogues_per_step=4", "trainer.micro_batch=1", "trainer.min_learning_rate_ratio=1")
    fit(load_config(*steady, "trainer.max_steps=6"), tmp_path / "whole")
    moved = tmp_path / "moved"
    fit(load_config(*steady, "trainer.max_steps=2"), moved)
    two_ranks = ("trainer.max_steps=4", "trainer.devices=2", "trainer.strategy=ddp")
    command = [sys.executable, "train.py", *steady, *two_ranks, f"hydra.run.dir={moved}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, ran.stderr
    fit(load_config(*steady, "trainer.max_steps=6"), moved)
    expected, found = steps(tmp_path / "whole"), steps(moved)
    assert [line["step"] for line in found] == [1, 2, 3, 4, 5, 6]
    for one, other in zip(found, expected, strict=True):
        assert one["loss/total"] == pytest.approx(other["loss/total"], rel=1e-6 if one["step"] <= 3 else 1e-4)
        for key in (key for key in other if key.startswith("data/")):
            assert one[key] == pytest.approx(other[key], rel=1e-6), key

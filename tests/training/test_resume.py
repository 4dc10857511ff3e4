"""A run that is stopped and goes on, again and again, is the run that was never stopped, bit for bit."""

import json
import signal
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import torch
from _pytest.mark import ParameterSet
from omegaconf import OmegaConf

from omnichat.batch import PackedBatch
from omnichat.build import build_prompt
from omnichat.checkpoint import load_checkpoint, tensors_sha256
from omnichat.config import ConfigError, load_config, validate
from omnichat.data.mixture import Mixture
from omnichat.dialogue import read_dialogues
from omnichat.training.callbacks import Checkpointer
from omnichat.training.fit import fit
from omnichat.training.module import OmniChatModule

ALPHA = 0.3
BASE = (
    "recipe=smoke", f"data.alpha={ALPHA}", "data.system=", "trainer.warmup_steps=1", "trainer.validate_every=0",
    "trainer.save_every=0", "trainer.keep_last=0",
)  # fmt: skip


@dataclass(frozen=True)
class Way:
    """How large a step is, with four micro-batches: overrides, dialogues of each source, steps over two passes."""

    overrides: tuple[str, ...]
    dialogues: int
    steps: int


WAYS = {
    "dialogues": Way(("trainer.dialogues_per_step=4", "trainer.micro_batch=1"), dialogues=20, steps=18),
    "tokens": Way(
        ("trainer.dialogues_per_step=null", "trainer.tokens_per_step=720", "trainer.micro_batch_tokens=180"),
        dialogues=30,
        steps=16,
    ),
}
Seen = dict[int, list[tuple[tuple[int, ...], tuple[str, ...]]]]


def train(run_dir: Path, *overrides: str, stop_at: int | None = None) -> Seen:
    """Train, or go on; with `stop_at` as a SIGTERM in that step would. Returns each step's micro-batches."""
    seen: Seen = defaultdict(list)
    step, end = OmniChatModule.training_step, Checkpointer.on_train_batch_end

    def training_step(self: OmniChatModule, batch: PackedBatch, batch_idx: int) -> torch.Tensor:
        seen[self.global_step].append((batch.indices, batch.dialogue_ids))
        return step(self, batch, batch_idx)

    def on_train_batch_end(self: Checkpointer, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == stop_at:
            self.stop.signal = signal.SIGTERM
        end(self, trainer, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmniChatModule, "training_step", training_step)
        patch.setattr(Checkpointer, "on_train_batch_end", on_train_batch_end)
        code = fit(load_config(*BASE, *overrides), run_dir)
    assert code == (0 if stop_at is None else 128 + signal.SIGTERM)
    return dict(seen)


def logged(run_dir: Path) -> list[dict[str, float]]:
    """What is logged of each step, without what the clock says."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("perf/")} for line in lines]


def trained(run_dir: Path, step: int) -> dict[str, str]:
    """Hashes of the weights and moments of a checkpoint."""
    tensors = load_checkpoint(run_dir / "checkpoints" / str(step)).tensors
    assert set(tensors) == {"mixformer", "adapter", "optimizer"}
    return {stem: tensors_sha256(group) for stem, group in tensors.items()}


def stops_of(starts: list[int], dialogues: int, seed: int) -> list[int]:
    """Five stops inside the first pass of the real source, three at the edges of its first two passes.

    Args:
        starts: the index at which each step begins.
        dialogues: of each source.
        seed: of the stream.
    """
    mixture = Mixture((dialogues, dialogues), (ALPHA, 1 - ALPHA), seed)
    passes = [int(mixture.passes(start)[1]) for start in starts]
    first, second = [step for step, (before, after) in enumerate(pairwise(passes)) if after > before][:2]
    assert 5 < first < second - 1
    # Before the step that crosses the first edge, after it, and before the one that crosses the second.
    return [1, 2, 3, 4, 5, first, first + 1, second]


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], tuple[Path, Seen]]:
    """Runs that were never stopped, by way and seed, each made once."""

    @cache
    def whole(way: str, seed: int) -> tuple[Path, Seen]:
        run_dir = tmp_path_factory.mktemp("whole") / "run"
        return run_dir, train(run_dir, *options(way, seed))

    return whole


def options(way: str, seed: int, workers: int = 0) -> list[str]:
    """The overrides of a whole run."""
    one = WAYS[way]
    return [
        *one.overrides,
        f"data.made_up={one.dialogues}",
        f"trainer.max_steps={one.steps}",
        f"seed={seed}",
        f"data.num_workers={workers}",
    ]


def full(*values: object) -> ParameterSet:
    """Runs with `make test-full` only."""
    return pytest.param(*values, marks=[pytest.mark.slow, pytest.mark.full])


ALWAYS = [("dialogues", 0, 2), ("tokens", 1, 0)]
MATRIX = [combination for combination in product(WAYS, (0, 1, 2), (0, 2)) if combination not in ALWAYS]


@pytest.mark.parametrize(("way", "seed", "workers"), [*ALWAYS, *(full(*one) for one in MATRIX)])
def test_stops_change_nothing(
    wholes: Callable[[str, int], tuple[Path, Seen]], tmp_path: Path, way: str, seed: int, workers: int
) -> None:
    """Same micro-batches, same figures, bit-equal weights and moments, over edges of passes and with data workers.

    The second resume, and one beyond a pass, is where other loaders repeat or lose samples.
    """
    whole, expected = wholes(way, seed)
    assert all(len(parts) == 4 for parts in expected.values())
    starts = [min(index for indices, _ in expected[step] for index in indices) for step in range(WAYS[way].steps)]
    found: Seen = {}
    stops = stops_of(starts, WAYS[way].dialogues, seed)
    for stop in [*(stops if way == "dialogues" else stops[4:]), None]:
        part = train(tmp_path, *options(way, seed, workers), stop_at=stop)
        assert not set(part) & set(found)
        found |= part
    assert found == expected
    for one, other in zip(logged(tmp_path), logged(whole), strict=True):
        assert one == pytest.approx(other, rel=1e-6, abs=0)  # the scan keeps seconds in float32
        assert one["loss/total"] == other["loss/total"]
    assert trained(tmp_path, WAYS[way].steps) == trained(whole, WAYS[way].steps)


def test_what_is_logged_of_the_sources_is_what_was_read(wholes: Callable[[str, int], tuple[Path, Seen]]) -> None:
    """The realised shares over the run, counted again from the ids that the model was given and the stores on disk."""
    run_dir, seen = wholes("dialogues", 0)
    prompt = build_prompt(validate(OmegaConf.load(run_dir / "config.yaml")))
    totals: dict[str, list[float]] = {"synthetic": [0, 0, 0], "real": [0, 0, 0]}
    rendered = {
        dialogue.id: prompt.render(dialogue)
        for source in totals
        for dialogue in read_dialogues(run_dir / "made_up" / f"{source}.jsonl")
    }
    for step, line in enumerate(logged(run_dir)):
        for name in (name for _, names in seen[step] for name in names):
            samples = sum(slot.audio.num_samples for slot in rendered[name].slots)
            for place, amount in enumerate((1, samples, rendered[name].num_targets)):
                totals[name.rpartition("-")[0]][place] += amount
        for source, own in totals.items():
            for place, unit in enumerate(("dialogues", "seconds", "targets")):
                share = own[place] / sum(total[place] for total in totals.values())
                assert line[f"data/share/{unit}/{source}"] == pytest.approx(share, rel=1e-9)
            assert line[f"data/passes/{source}"] == own[0] / WAYS["dialogues"].dialogues
    assert 0.1 < line["data/share/dialogues/synthetic"] < 0.5


def test_another_budget_is_refused(wholes: Callable[[str, int], tuple[Path, Seen]]) -> None:
    """Its steps begin elsewhere in the stream: going on would train twice on some dialogues and never on others."""
    run_dir, _ = wholes("tokens", 1)
    with pytest.raises(ConfigError, match=r"trainer.tokens_per_step: 720 there, 721 here"):
        fit(load_config(*BASE, *options("tokens", 1), "trainer.tokens_per_step=721"), run_dir)

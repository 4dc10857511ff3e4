"""Two processes, every engine: `python -m torch.distributed.run --nproc-per-node 2 engines_job.py OUT ENGINE...`.

Run by test_engines.py. Each engine trains under AdamW and stops half way, lets the next engine go on from there, leaves
out a step that is not finite on one rank alone, and trains under SGD, whose steps are the gradients'.
"""

import json
import sys
from collections.abc import Collection, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import SGD

from omnichat.config import load_config
from omnichat.models.omnichat import OmniChat
from omnichat.training import fit as fit_module
from omnichat.training import module, resume
from omnichat.training.engines import build_strategy, gather
from omnichat.training.fit import fit

QUICK = (
    "recipe=smoke",
    "data.made_up=16",
    "data.num_workers=0",
    "trainer.warmup_steps=1",
    "trainer.gradient_clip=0.2",
    "trainer.save_every=2",
    "trainer.validate_every=2",
    "trainer.generate_dialogues=1",
    "evaluation.max_new_tokens=3",
)
CUT = ("trainer.micro_batch=2", "trainer.devices=2")  # 8 dialogues a step: two micro-batches on each of two ranks
EACH_STEP = ("trainer.save_every=1", "trainer.keep_last=0", "trainer.validate_every=0", "preflight=off")
# A clip hides a factor in all gradients, as long as their norm is above it; without one nothing shows how it is taken.
CLIPS = {"clipped": "trainer.gradient_clip=0.2", "unclipped": "trainer.gradient_clip=null"}


def plain_sgd(
    parameters: dict[str, nn.Parameter], learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> SGD:
    """In place of AdamW, which divides by the gradient's size and so hides a factor in it."""
    return SGD(list(parameters.values()), lr=learning_rate)


def run_sgd(out: Path, name: str, *overrides: str, kinds: Collection[str] = tuple(CLIPS)) -> None:
    """Two steps of gradients as they are, with a clip and without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "build_optimizer", plain_sgd)
        for kind in kinds:
            run(out, f"{name}_{kind}", *EACH_STEP, CLIPS[kind], "trainer.max_steps=2", *overrides)


def run(out: Path, name: str, *overrides: str) -> None:
    """One run in a folder of its own."""
    assert fit(load_config(*QUICK, *overrides), out / name) == 0


def run_spoilt(out: Path, name: str, *overrides: str) -> None:
    """Three steps; in the second the first micro-batch of the last rank has no finite loss."""
    forward, calls = OmniChat.forward, count()

    def spoilt(self: OmniChat, batch: Any) -> Any:
        losses = forward(self, batch)
        bad = next(calls) == 2 and torch.distributed.get_rank() == 1
        return losses._replace(total=losses.total * float("nan")) if bad else losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmniChat, "forward", spoilt)
        run(out, name, *EACH_STEP, "trainer.max_steps=3", *overrides)


def released(name: str, accelerator: str) -> str | Strategy:
    """The strategy; stage 3 keeps parameters of up to 100,000 numbers where they are, which are all of a tiny model."""
    strategy = build_strategy(name, accelerator)
    if isinstance(strategy, DeepSpeedStrategy) and strategy.zero_stage_3:
        assert isinstance(strategy.config, dict)
        keys = ("param_persistence_threshold", "max_live_parameters", "max_reuse_distance", "prefetch_bucket_size")
        strategy.config["zero_optimization"] |= {f"stage3_{key}": 0 for key in keys}
    return strategy


def counted(trainer: pl.Trainer, parameters: Mapping[str, nn.Parameter]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """`gather`, and a note of how many numbers the optimizers of all ranks hold."""
    found, optimizer = gather(trainer, parameters), trainer.optimizers[0]
    inner: Any = getattr(optimizer, "optimizer", optimizer)  # DeepSpeed's holds AdamW, over flat shards
    values = [value for state in inner.state.values() for value in state.values() if value.ndim > 0]
    held = torch.tensor(sum(v.to_local().numel() if isinstance(v, DTensor) else v.numel() for v in values))
    torch.distributed.all_reduce(held)
    if trainer.is_global_zero:
        (Path(trainer.default_root_dir) / "held.json").write_text(json.dumps(int(held)))
    return found


def main() -> None:
    """Every engine's runs."""
    out, engines = Path(sys.argv[1]), sys.argv[2:]
    fit_module.build_strategy = released
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume, "gather", counted)
        for engine in engines:
            # Not validated: the next engine does so before it goes on.
            run(out, engine, *CUT, f"trainer.strategy={engine}", "trainer.max_steps=2", "trainer.validate_every=0")
    for engine, following in zip(engines, [*engines[1:], engines[0]], strict=True):
        run(out, engine, *CUT, f"trainer.strategy={following}", "trainer.max_steps=4")
    for engine in engines:
        run_spoilt(out, f"{engine}_spoilt", *CUT, f"trainer.strategy={engine}")
        run_sgd(out, engine, *CUT, f"trainer.strategy={engine}")


if __name__ == "__main__":
    main()

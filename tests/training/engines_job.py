"""Two processes, every engine: `python -m torch.distributed.run --nproc-per-node 2 engines_job.py OUT ENGINE...`.

Run by test_engines.py. Each engine trains under AdamW and stops half way, lets the next engine go on from
there, and trains under SGD, whose weights are the gradients'.
"""

import sys
from pathlib import Path

from torch import nn
from torch.optim import SGD

from omnichat.config import load_config
from omnichat.training import module
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


def plain_sgd(
    parameters: dict[str, nn.Parameter], learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> SGD:
    """In place of AdamW, which divides by the gradient's size and so hides a factor in it."""
    return SGD(list(parameters.values()), lr=learning_rate)


def run(out: Path, name: str, *overrides: str) -> None:
    """One run in a folder of its own."""
    assert fit(load_config(*QUICK, *overrides), out / name) == 0


def main() -> None:
    """Every engine's runs."""
    out, engines = Path(sys.argv[1]), sys.argv[2:]
    adamw = module.build_optimizer
    for engine in engines:
        run(out, engine, *CUT, f"trainer.strategy={engine}", "trainer.max_steps=2")
    for engine, following in zip(engines, [*engines[1:], engines[0]], strict=True):
        run(out, engine, *CUT, f"trainer.strategy={following}", "trainer.max_steps=4")
    module.build_optimizer = plain_sgd  # type: ignore[assignment]
    for engine in engines:
        run(out, f"{engine}_sgd", *CUT, f"trainer.strategy={engine}", "trainer.max_steps=2")
    module.build_optimizer = adamw


if __name__ == "__main__":
    main()

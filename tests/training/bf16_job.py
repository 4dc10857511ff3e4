"""Two processes, engines in bfloat16: `python -m torch.distributed.run --nproc-per-node 2 bf16_job.py OUT ENGINE...`

Run by test_bf16.py. Each engine trains under SGD, whose steps are the gradients'; then under AdamW, without a stop and
with one.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import nn

from omnichat.models.omnichat import OmniChat
from omnichat.training import fit as fit_module
from tests.training.engines_job import CUT, released, run, run_sgd

# As the recipes of full size have it: autocast, and a language model of bfloat16 weights.
BF16 = ("trainer.precision=bf16-mixed", "model.llm.dtype=bfloat16")


def noting(out: Path, forward: Callable[..., Any]) -> Callable[..., Any]:
    """`OmniChat.forward`, and a note of what the linear layers of both parts gave and what is trained."""

    def noted(self: OmniChat, batch: Any) -> Any:
        gave: set[str] = set()
        hooks = [
            module.register_forward_hook(lambda _module, _inputs, output: gave.add(str(output.dtype)))
            for part in (self.llm.model.layers, self.mixformer)
            for module in part.modules()
            if isinstance(module, nn.Linear)
        ]
        losses = forward(self, batch)
        for hook in hooks:
            hook.remove()
        trained = sorted({str(parameter.dtype) for parameter in self.parameters() if parameter.requires_grad})
        if rank_zero_only.rank == 0:
            out.write_text(json.dumps({"computed": sorted(gave), "trained": trained}))
        return losses

    return noted


def main() -> None:
    """Every engine's runs."""
    out, engines = Path(sys.argv[1]), sys.argv[2:]
    fit_module.build_strategy = released
    for engine in engines:
        more = (*BF16, *CUT, f"trainer.strategy={engine}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(OmniChat, "forward", noting(out / f"{engine}.json", OmniChat.forward))
            run_sgd(out, engine, *more, kinds=["unclipped"])
        run(out, f"{engine}_whole", *more, "trainer.max_steps=4", "trainer.validate_every=0")
        for steps in (2, 4):
            run(out, f"{engine}_stopped", *more, f"trainer.max_steps={steps}", "trainer.validate_every=0")


if __name__ == "__main__":
    main()

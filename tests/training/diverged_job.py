"""Two processes that diverge: `python -m torch.distributed.run --nproc-per-node 2 diverged_job.py OUT ENGINE`.

Run by test_diverged.py. From the second step on the last rank has no finite loss; what each rank is told is written.
"""

import os
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from omnichat.models.omnichat import OmniChat
from omnichat.training.guard import TrainingError
from tests.training.engines_job import CUT, EACH_STEP, run


def main() -> None:
    """One run that ends by itself."""
    out, engine = Path(sys.argv[1]), sys.argv[2]
    forward, calls = OmniChat.forward, count()

    def spoilt(self: OmniChat, batch: Any) -> Any:
        losses = forward(self, batch)
        bad = next(calls) >= 2 and torch.distributed.get_rank() == 1
        return losses._replace(total=losses.total * float("nan")) if bad else losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmniChat, "forward", spoilt)
        with pytest.raises(TrainingError) as raised:
            run(out, engine, *EACH_STEP, *CUT, f"trainer.strategy={engine}", "trainer.max_steps=6")
    (out / f"told_{os.environ['RANK']}.txt").write_text(str(raised.value), encoding="utf-8")


if __name__ == "__main__":
    main()

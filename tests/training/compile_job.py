"""Two processes, compiled and not: `torchrun --nproc-per-node 2 compile_job.py OUT KEY ENGINE...`.

KEY is `compile` or `compile_experts`, of the trainer. Prints after each run how many graphs have been compiled so far.
"""

import sys
from pathlib import Path

from torch._dynamo.utils import counters

from omnichat.config import load_config
from omnichat.training.fit import fit
from omnichat.training.ranks import is_first
from tests.training.engines_job import CUT, QUICK


def main() -> None:
    """Each engine without and with what is compiled."""
    out, key = Path(sys.argv[1]), sys.argv[2]
    for engine in sys.argv[3:]:
        for choice in ("false", "true"):
            overrides = (*CUT, f"trainer.strategy={engine}", f"trainer.{key}={choice}", "trainer.max_steps=3")
            assert fit(load_config(*QUICK, "trainer.validate_every=0", *overrides), out / f"{engine}_{choice}") == 0
            if is_first():
                print(f"{engine} {choice}: {counters['stats']['unique_graphs']} graphs", flush=True)


if __name__ == "__main__":
    main()

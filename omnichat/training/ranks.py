"""Which process this is, before Lightning knows: one of them owns the run folder and the screen."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is rank 0 of all: torchrun sets RANK, srun SLURM_PROCID, Lightning NODE_RANK and LOCAL_RANK."""
    for name in ("RANK", "SLURM_PROCID"):
        if name in environment:
            return int(environment[name]) == 0
    return int(environment.get("NODE_RANK", 0)) == 0 and int(environment.get("LOCAL_RANK", 0)) == 0


@contextmanager
def first_speaks() -> Iterator[None]:
    """What all ranks would print alike is printed once; errors of any rank still reach the screen."""
    if is_first():
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nothing, redirect_stdout(nothing):
        yield

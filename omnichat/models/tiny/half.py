"""Tensors in float16."""

from collections.abc import Mapping

import torch
from torch import Tensor


def half(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached float16 copies; a cast beyond float16's range would be silent, so it is refused."""
    halves = {name: tensor.detach().to("cpu", torch.float16, copy=True).contiguous() for name, tensor in state.items()}
    wrong = [name for name, tensor in halves.items() if not tensor.isfinite().all()]
    if wrong:
        raise ValueError(f"not finite in float16: {', '.join(wrong)}")
    return halves

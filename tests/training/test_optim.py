"""AdamW's state, saved and put back."""

import pytest
import torch
from torch import Tensor, nn

from omnichat.training.optim import build_optimizer, optimizer_tensors, restore_optimizer

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
    ),
]


def steps(parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, numbers: range) -> None:
    """Updates by gradients that depend on the step."""
    for number in numbers:
        for place, parameter in enumerate(parameters.values()):
            parameter.grad = torch.sin(parameter.detach() * (number + 1) + place)
        optimizer.step()


@pytest.mark.parametrize("device", DEVICES)
def test_going_on_from_saved_state_is_bit_exact(device: str) -> None:
    """Fails when a moment or the count of steps is lost on the way through a file, on either kind of device."""

    def made() -> dict[str, nn.Parameter]:
        generator = torch.Generator().manual_seed(0)
        shapes = {"weight": (5, 3), "bias": (3,)}
        return {n: nn.Parameter(torch.randn(s, generator=generator).to(device)) for n, s in shapes.items()}

    def optimizer_of(parameters: dict[str, nn.Parameter]) -> torch.optim.AdamW:
        return build_optimizer(parameters, 0.1, weight_decay=0.1, betas=(0.9, 0.99))

    whole, parts = made(), made()
    optimizer = optimizer_of(whole)
    steps(whole, optimizer, range(5))
    first = optimizer_of(parts)
    steps(parts, first, range(2))
    saved: dict[str, Tensor] = {name: tensor.cpu().clone() for name, tensor in optimizer_tensors(first, parts).items()}
    second = optimizer_of(parts)
    restore_optimizer(second, parts, saved)
    steps(parts, second, range(2, 5))
    for name, parameter in whole.items():
        assert torch.equal(parameter, parts[name]), name

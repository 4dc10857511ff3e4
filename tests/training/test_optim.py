"""AdamW's state, saved and put back."""

import pytest
import torch
from torch import Tensor, nn

from omnichat.training.optim import (
    build_optimizer,
    leave_out_unless,
    leaves_out_by_itself,
    optimizer_tensors,
    restore_optimizer,
)

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


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_is_left_out_without_a_word_from_the_host(device: str) -> None:
    """Fails when the fused update, told on the device, changes a weight, a moment or their count of steps."""
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.randn(n, 3, generator=generator).to(device)) for n in (2, 5)]
    optimizer = torch.optim.AdamW(parameters, lr=0.1, fused=True)
    assert leaves_out_by_itself(optimizer)

    def step(finite: bool) -> list[Tensor]:
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 0.5 if finite else float("nan"))
        leave_out_unless(torch.tensor(finite, device=device), optimizer)
        optimizer.step()
        moments = [value for parameter in parameters for value in optimizer.state[parameter].values()]
        return [tensor.detach().cpu().clone() for tensor in (*parameters, *moments)]

    before = step(True)
    assert all(torch.equal(one, other) for one, other in zip(before, step(False), strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(before, step(True), strict=True))

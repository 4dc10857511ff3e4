"""AdamW's state, saved and put back."""

import pytest
import torch
from torch import Tensor, nn

from omnichat.training.optim import (
    build_optimizer,
    learning_rate_at,
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


def test_the_rate_by_hand() -> None:
    """A step off, or a cosine that does not end where it should, trains at other rates than the recipe says."""
    rates = [learning_rate_at(step, 2.0, warmup_steps=4, max_steps=12, min_ratio=0.1) for step in (0, 1, 3, 4, 6, 8)]
    # After the warm-up 0.1 + 0.9 (1 + cos(pi t / 8)) / 2 of the peak, t = 0, 2, 4; cos(pi / 4) = 0.70710678.
    assert rates == pytest.approx([0.5, 1.0, 2.0, 2.0, 1.73639610, 1.1], rel=1e-8)
    assert learning_rate_at(11, 2.0, 4, 12, 0.1) == pytest.approx(0.2 + 0.9 * (1 - 0.92387953), rel=1e-7)
    assert [learning_rate_at(step, 2.0, 4, 12, 0.1) for step in (12, 20)] == pytest.approx([0.2, 0.2])
    assert learning_rate_at(0, 2.0, 0, 12, 0.1) == 2.0
    assert learning_rate_at(5, 2.0, 5, 5, 0.1) == 2.0  # a run that is all warm-up


def test_decay_leaves_vectors_alone() -> None:
    """Decay pulls norms and gates to zero. Where the gradients are zero it is all that moves a weight."""
    shapes = {"weight": (2, 3), "kernel": (2, 2, 2), "norm": (3,), "gate": ()}
    parameters = {name: nn.Parameter(torch.ones(shape)) for name, shape in shapes.items()}
    optimizer = build_optimizer(parameters, 0.1, weight_decay=0.5, betas=(0.8, 0.97))
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {name: parameter.unique().tolist() for name, parameter in parameters.items()}
    decayed = pytest.approx([0.95])
    assert moved == {"weight": decayed, "kernel": decayed, "norm": [1.0], "gate": [1.0]}
    assert [group["betas"] for group in optimizer.param_groups] == [(0.8, 0.97)] * 2


def test_moments_of_other_parameters_are_refused() -> None:
    """Moments under the wrong names, or of half of the parameters, would go on as if nothing were wrong."""
    parameters = {"a.weight": nn.Parameter(torch.ones(2, 2)), "b": nn.Parameter(torch.ones(2))}
    optimizer = build_optimizer(parameters, 0.1, weight_decay=0.0, betas=(0.9, 0.99))
    steps(parameters, optimizer, range(1))
    saved = optimizer_tensors(optimizer, parameters)
    assert set(saved) == {f"{name}.{key}" for name in parameters for key in ("step", "exp_avg", "exp_avg_sq")}
    other = {"a.weight": parameters["a.weight"], "c": parameters["b"]}
    with pytest.raises(ValueError, match=r"missing \['c'\]; unexpected \['b'\]"):
        restore_optimizer(optimizer, other, saved)
    with pytest.raises(ValueError, match=r"missing \['c'\]$"):
        restore_optimizer(optimizer, parameters | other, saved)
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer({}, 0.1, weight_decay=0.0, betas=(0.9, 0.99))


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

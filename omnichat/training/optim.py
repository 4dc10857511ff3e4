"""Parameter groups and the learning rate as a pure function of the step."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer


def build_optimizer(
    parameters: dict[str, nn.Parameter], learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> AdamW:
    """AdamW whose decay leaves out vectors: biases, norms and gates (as SALMONN's optims.py does by `ndim < 2`).

    Raises:
        ValueError: nothing is trainable.
    """
    if not parameters:
        raise ValueError(
            "nothing to train: every parameter is frozen; set model.lora.enabled=true or keep the Mix-Former trainable"
        )
    groups = [
        {"params": [p for p in parameters.values() if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    # An update that works on each number alone is identical whatever the grouping of tensors: resume is bit-exact. On a
    # GPU the fused one does so in a kernel for all tensors; a kernel for each would take longer to launch than to run.
    fused = all(parameter.is_cuda for parameter in parameters.values())
    kind: dict[str, bool] = {"fused": True} if fused else {"foreach": False}
    return AdamW([group for group in groups if group["params"]], lr=learning_rate, betas=betas, **kind)


class Verdict:
    """Whether all was finite, on its way from the device: asked for now, to be read once the device has said it."""

    def __init__(self, finite: Tensor) -> None:
        self._finite = finite.to("cpu", non_blocking=True)
        self._said = torch.cuda.Event() if finite.is_cuda else None
        if self._said is not None:
            self._said.record()

    def sound(self) -> bool:
        """The answer, waited for if need be."""
        if self._said is not None:
            self._said.synchronize()
        return bool(self._finite)


def leaves_out_by_itself(optimizer: Optimizer) -> bool:
    """Whether `leave_out_unless` can do its work: for the fused update of whole tensors."""
    whole = not any(isinstance(parameter, DTensor) for group in optimizer.param_groups for parameter in group["params"])
    return whole and bool(optimizer.defaults.get("fused"))


def leave_out_unless(finite: Tensor, optimizer: Optimizer) -> None:
    """Have the next step leave weights, moments and their count of steps as they are if it is false on the device.

    So the host need not wait for it. The way of `torch.amp.GradScaler` (torch/optim/adam.py, `found_inf`).
    """
    optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]


def learning_rate_at(step: int, peak: float, warmup_steps: int, max_steps: int, min_ratio: float) -> float:
    """Linear warm-up to `peak`, then a cosine down to `min_ratio * peak` at `max_steps`."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)
    return peak * (min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def optimizer_tensors(optimizer: Optimizer, parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """AdamW's moments under `<parameter name>.<moment>`, independent of group order."""
    return {
        f"{name}.{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(optimizer: Optimizer, parameters: dict[str, nn.Parameter], tensors: dict[str, Tensor]) -> None:
    """Put the moments of `optimizer_tensors` back.

    Raises:
        ValueError: the moments belong to other parameters; lists what does not fit.
    """
    owners = {name.rpartition(".")[0] for name in tensors}
    faults = _difference(owners, parameters)
    if owners and faults:
        raise ValueError(f"optimizer state does not fit this model: {faults}")
    for name, parameter in parameters.items():
        state = {key.rpartition(".")[2]: value for key, value in tensors.items() if key.rpartition(".")[0] == name}
        # The plain update counts steps on the CPU, the fused one on the device.
        optimizer.state[parameter] = {
            key: value if key == "step" and not optimizer.defaults.get("fused") else value.to(parameter.device)
            for key, value in state.items()
        }


def _difference(have: Iterable[str], want: Iterable[str]) -> str:
    have, want = set(have), set(want)
    parts = [f"missing {sorted(want - have)}"] if want - have else []
    parts += [f"unexpected {sorted(have - want)}"] if have - want else []
    return "; ".join(parts)

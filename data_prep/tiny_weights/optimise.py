"""The training loop of every tiny net."""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

Report = Callable[[str], None]
REPORT_EVERY = 100


def optimise(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    steps: int,
    peak: float,
    report: Report,
    title: str,
    weight_decay: float = 0.01,
) -> None:
    """Minimise `loss(step)` over `steps` steps of AdamW, warm-up to the rate `peak` and cosine down; in place.

    `report` gets a line now and then: the mean loss since the last, and the CPU seconds spent.
    """
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), peak, betas=(0.9, 0.98), weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps + 1, pct_start=0.1)
    started, total, counted = time.process_time(), 0.0, 0
    for step in range(steps):
        value = loss(step)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total, counted = total + value.item(), counted + 1
        if counted == REPORT_EVERY or step + 1 == steps:
            seconds = time.process_time() - started
            report(f"{title}: step {step + 1} of {steps}, loss {total / counted:.3f}, {seconds:.0f} s of CPU")
            total, counted = 0.0, 0
    model.eval()

"""Cross entropy at the targets only, behind a frozen output layer, without ever holding all logits.

Shapes: n targets, D width, V vocabulary.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaForCausalLM

LOSS_ROWS = 1024  # logits held at a time: 1024 x 128,256 x (2 + 4) bytes = 0.8 GB for Llama-3


class _FrozenHeadCrossEntropy(torch.autograd.Function):
    """Cross entropy behind a frozen output layer, a few rows of logits at a time.

    Each row's gradient is a scalar times softmax(logits) - onehot, taken back through the layer, so it is computed
    while the logits are at hand; what is kept for the backward is (n, D) instead of (n, V).
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, compiled: bool) -> Tensor:
        losses, gradients = [], []
        for rows, wanted in zip(hidden.split(LOSS_ROWS), targets.split(LOSS_ROWS), strict=True):
            logits = F.linear(rows, weight)
            if compiled and ctx.needs_input_grad[0]:
                loss, gradient = _compiled_softmax_error()(logits, wanted)
                losses.append(loss)
                gradients.append((gradient.to(weight.dtype) @ weight).to(hidden.dtype))
                continue
            logits = logits.float()
            normaliser = logits.logsumexp(-1, keepdim=True)
            losses.append((normaliser - logits.gather(1, wanted[:, None]))[:, 0])
            if ctx.needs_input_grad[0]:
                gradient = logits.sub_(normaliser).exp_()
                gradient.scatter_add_(1, wanted[:, None], gradient.new_full((len(wanted), 1), -1.0))
                gradients.append((gradient.to(weight.dtype) @ weight).to(hidden.dtype))
        ctx.save_for_backward(*gradients)
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        gradient = torch.cat(ctx.saved_tensors)
        return gradient * upstream[0][:, None].to(gradient.dtype), None, None, None


def _softmax_error(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (n, V), targets (n,) -> losses (n,) in float32, softmax - onehot (n, V) in the logits' dtype.

    Written to be compiled into a pass or two over the logits.
    """
    values = logits.float()
    normaliser = values.logsumexp(-1, keepdim=True)
    hit = torch.arange(logits.shape[1], device=logits.device) == wanted[:, None]
    losses = normaliser[:, 0] - values.masked_fill(~hit, 0.0).sum(-1)
    return losses, ((values - normaliser).exp() - hit.float()).to(logits.dtype)


@lru_cache(maxsize=1)
def _compiled_softmax_error() -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return torch.compile(_softmax_error, dynamic=True)


def target_losses(llm: LlamaForCausalLM, hidden: Tensor, targets: Tensor, compiled: bool = False) -> Tensor:
    """Cross entropy (n,) in float32 of targets (n,), each predicted from its hidden state (n, D)."""
    weight = llm.lm_head.weight
    assert not weight.requires_grad, "the output layer is frozen; its own gradient is not computed here"
    losses: Tensor = _FrozenHeadCrossEntropy.apply(hidden, weight, targets, compiled)  # type: ignore[no-untyped-call]
    return losses

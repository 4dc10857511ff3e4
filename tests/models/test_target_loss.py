"""Losses at target positions, in chunks and with a gradient written by hand."""

import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from omnichat.models import target_loss
from omnichat.models.target_loss import target_losses


def test_target_losses_equal_full_cross_entropy(llm: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when chunking, the hand-written gradient or its scale per target is wrong."""
    monkeypatch.setattr(target_loss, "LOSS_ROWS", 4)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 32, generator=generator).requires_grad_()
    targets = torch.randint(llm.config.vocab_size, (11,), generator=generator)
    weights = torch.rand(11, generator=generator)
    losses = target_losses(llm, hidden, targets)
    expected = F.cross_entropy(llm.lm_head(hidden), targets, reduction="none")
    torch.testing.assert_close(losses, expected)
    (gradient,) = torch.autograd.grad((losses * weights).sum(), hidden)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), hidden)
    torch.testing.assert_close(gradient, wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_compiled_is_used_where_there_is_a_gradient(
    dtype: torch.dtype, llm: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when the compiled pass gives another loss or gradient than the plain one, or runs unasked."""
    monkeypatch.setattr(target_loss, "LOSS_ROWS", 4)
    rows = []

    def counted(logits: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows.append(len(logits))
        return target_loss._softmax_error(logits, wanted)

    monkeypatch.setattr(target_loss, "_compiled_softmax_error", lambda: counted)
    llm = llm.to(dtype)
    hidden = torch.randn(11, 32, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    targets = torch.randint(llm.config.vocab_size, (11,), generator=torch.Generator().manual_seed(1))
    plain = target_losses(llm, hidden, targets)
    without = target_losses(llm, hidden.detach(), targets, compiled=True)
    assert rows == []
    compiled = target_losses(llm, hidden, targets, compiled=True)
    assert rows == [4, 4, 3]
    logits = llm.lm_head(hidden.detach()).float()
    expected = F.cross_entropy(logits, targets, reduction="none")
    gradients = []
    for losses in (plain, compiled):
        assert losses.dtype == torch.float32
        torch.testing.assert_close(losses.detach(), expected)
        (gradient,) = torch.autograd.grad(losses.sum(), hidden)
        assert gradient.dtype == dtype
        gradients.append(gradient)
    torch.testing.assert_close(without, expected)
    torch.testing.assert_close(*gradients)


def test_no_targets_give_zero_with_a_gradient(llm: LlamaForCausalLM) -> None:
    """Fails when a micro-batch without targets cannot be differentiated: its rank would hang the others."""
    hidden = torch.randn(4, 32, requires_grad=True)
    loss = target_losses(llm, hidden[:0], torch.zeros(0, dtype=torch.int64)).sum()
    assert loss == 0
    loss.backward()
    assert hidden.grad is not None
    assert not hidden.grad.any()


def test_softmax_error() -> None:
    """Fails when what is compiled for a GPU is another loss, or another gradient, than cross entropy's."""
    logits, wanted = torch.randn(5, 11, requires_grad=True), torch.tensor([0, 10, 3, 3, 7])
    expected = F.cross_entropy(logits, wanted, reduction="none")
    (gradient,) = torch.autograd.grad(expected.sum(), logits)
    losses, error = target_loss._softmax_error(logits.detach(), wanted)
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(error, gradient)

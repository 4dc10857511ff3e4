"""Packed attention: dialogues end to end in one row are as if each were alone."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaForCausalLM

from omnichat.batch import Example, SharedPrefix, pack
from omnichat.models import packed as packed_module
from omnichat.models.llm import add_lora, load_llm
from omnichat.models.packed import packed_hidden, with_last_layer
from omnichat.models.tiny import default_texts, llama_config, write_llama, write_tokenizer
from omnichat.prompt import Tokens
from tests.models.conftest import LENGTHS, embeddings, packed


def shared_prefix(lengths: Sequence[int], length: int) -> SharedPrefix:
    """Of dialogues whose first `length` tokens are the same."""
    number = itertools.count(1)
    rows = [[0] * length + [next(number) for _ in range(total - length)] for total in lengths]
    examples = [
        Example(Tokens(np.array(row), np.full(len(row), -100), np.zeros(len(row), np.uint8), ()), (), None, "x")
        for row in rows
    ]
    shared = pack(examples, share_prefix=True).shared
    assert shared is not None
    assert shared.length == length
    return shared


def test_packed_dialogues_do_not_see_each_other(llm: LlamaForCausalLM) -> None:
    """Fails when attention leaks: transformers takes a packed row for one dialogue once a cache or mask is passed."""
    rows = [row.requires_grad_() for row in embeddings()]
    packed(llm, rows)[2].square().sum().backward()
    assert rows[2].grad is not None
    assert rows[2].grad.abs().sum() > 0
    for other in (0, 1, 3):
        assert rows[other].grad is not None
        assert not rows[other].grad.any(), f"dialogue {other} reaches dialogue 2"
    with torch.no_grad():
        before = packed(llm, rows)
        changed = packed(llm, [rows[0] + 1, *rows[1:]])
    assert not torch.equal(before[0], changed[0])
    for one, other in zip(before[1:], changed[1:], strict=True):
        assert torch.equal(one, other)


def test_packed_equals_transformers_one_by_one(llm: LlamaForCausalLM) -> None:
    """Fails when causality, positions, scaling or grouped heads are wrong inside a dialogue."""
    assert_as_transformers(llm)


def test_all_layers_of_a_deeper_model_are_run(tmp_path: Path) -> None:
    """Fails when one between the first and the last is left out, which a model of two layers does not have."""
    torch.manual_seed(0)
    config = llama_config(write_tokenizer(tmp_path, default_texts(), 300), width=32, heads=4, layers=4)
    config.initializer_range = 0.3
    write_llama(tmp_path, LlamaForCausalLM(config))
    assert_as_transformers(with_last_layer(load_llm(tmp_path)))


def assert_as_transformers(llm: LlamaForCausalLM) -> None:
    """Dialogues end to end give the hidden states that transformers' own forward gives each of them alone."""
    rows = embeddings()
    with torch.no_grad():
        ours = packed(llm, rows)
        llm.set_attn_implementation("sdpa")
        for row, hidden in zip(rows, ours, strict=True):
            expected = llm.model(inputs_embeds=row[None], use_cache=False).last_hidden_state[0]
            torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)


def test_packed_with_activation_checkpointing(llm: LlamaForCausalLM) -> None:
    """Fails when recomputing a layer in the backward loses where dialogues begin: gradients must stay the same."""
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            llm.gradient_checkpointing_enable()
            llm.train()
        llm.zero_grad()
        torch.cat(packed(llm, [row.requires_grad_() for row in embeddings()])).square().sum().backward()
        gradients.append([p.grad for p in llm.parameters() if p.requires_grad])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_padding_masks_are_obeyed(llm: LlamaForCausalLM) -> None:
    """Fails when a caller's padding mask is dropped in silence, as transformers does for an unknown attention."""
    rows = embeddings()
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    left = {"batch_first": True, "padding_side": "left"}
    with torch.no_grad():
        output = llm.model(
            inputs_embeds=pad_sequence(rows, **left),
            attention_mask=mask.flip(1).long(),
            position_ids=(mask.flip(1).cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        )
        torch.testing.assert_close(output.last_hidden_state[mask.flip(1)], torch.cat(packed(llm, rows)))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("length", [0, 2])
def test_picked_positions_are_those_of_the_whole(length: int, checkpointing: bool, folder: Path) -> None:
    """Fails when the last layer, computed for some positions or none, gives other states or gradients."""
    llm = with_last_layer(load_llm(folder))
    add_lora(llm, 2, 4, targets=("q_proj", "v_proj", "up_proj", "down_proj"))
    trained = [parameter for parameter in llm.parameters() if parameter.requires_grad]
    for parameter in trained:
        nn.init.normal_(parameter, std=0.1)
    if checkpointing:
        llm.activation_checkpointing_enable()
        llm.train()
    rows = embeddings()
    embeds = torch.cat([part for row in rows for part in (rows[0][:length], row[length:])]).requires_grad_()
    starts = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
    lengths = (torch.cat([torch.arange(length) for length in LENGTHS]), starts, max(LENGTHS))
    shared = shared_prefix(LENGTHS, length) if length else None
    for picked in (torch.tensor([6, 1, 2, int(starts[-1]) - 1]), torch.tensor([], dtype=torch.int64)):
        every = packed_hidden(llm, embeds, *lengths, shared=shared).index_select(0, picked)
        some = packed_hidden(llm, embeds, *lengths, shared=shared, picked=picked)
        torch.testing.assert_close(some, every)
        weights = torch.randn_like(some)
        of_some, of_every = (torch.autograd.grad((x * weights).sum(), [embeds, *trained]) for x in (some, every))
        torch.testing.assert_close(of_some, of_every)


@pytest.mark.parametrize("picks", [False, True])
@pytest.mark.parametrize("share", [False, True])
def test_compiled_layers(share: bool, picks: bool, llm: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when compiling changes what is computed, or is done anew for another layer or other lengths."""
    torch.compiler.reset()  # what other tests had compiled counts towards the few kinds of input one function may have
    llm, counter = with_last_layer(llm), CompileCounterWithBackend("aot_eager")
    for name in ("layer", "last_layer"):
        compiled = torch.compile(getattr(packed_module, f"_{name}"), dynamic=True, backend=counter)
        monkeypatch.setattr(packed_module, f"_compiled_{name}", lambda compiled=compiled: compiled)
    frames = []
    for lengths in ((5, 9, 3), (2, 12), (4, 4, 4, 7)):
        rows = [torch.randn(length, llm.config.hidden_size) for length in lengths]
        embeds = torch.cat(rows).requires_grad_()
        starts = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
        positions = torch.cat([torch.arange(length) for length in lengths])
        shared = shared_prefix(lengths, 1) if share else None
        picked = torch.arange(1, len(embeds), 2) if picks else None
        weights = torch.randn(len(embeds) if picked is None else len(picked), llm.config.hidden_size)
        outcomes = []
        for choice in (False, True):
            hidden = packed_hidden(llm, embeds, positions, starts, max(lengths), choice, shared, picked)
            outcomes.append((hidden, *torch.autograd.grad((hidden * weights).sum(), embeds)))
        for one, other in zip(*outcomes, strict=True):
            torch.testing.assert_close(one, other)
        frames.append(counter.frame_count)
    assert frames[0] > 0
    assert frames[1] == frames[2], "compiled anew for each batch"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("length", [0, 2])
def test_packed_on_cuda_equals_cpu(length: int, folder: Path) -> None:
    """Fails when the flash call for all dialogues, eager or compiled, differs from attention inside each."""
    lengths = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32).cuda()
    positions = torch.cat([torch.arange(length) for length in LENGTHS]).cuda()
    rows = embeddings()
    embeds = torch.cat([part for row in rows for part in (rows[0][:length], row[length:])]).requires_grad_()
    weights = torch.randn(len(embeds), embeds.shape[1], generator=torch.Generator().manual_seed(0))
    expected = torch.cat(packed(load_llm(folder), list(embeds.split(LENGTHS))))
    (wanted,) = torch.autograd.grad((expected * weights).sum(), embeds)
    own = positions.cpu() >= length  # the gradients of what is shared all arrive at the first dialogue
    shared = None
    if length:
        shared = SharedPrefix(*(x.cuda() if isinstance(x, Tensor) else x for x in shared_prefix(LENGTHS, length)))
    for dtype, compiled, tolerance in (
        (torch.float32, False, 1e-4),
        (torch.bfloat16, False, 5e-2),
        (torch.bfloat16, True, 5e-2),
    ):
        model = load_llm(folder, dtype).cuda()
        inputs = embeds.detach().cuda().to(dtype).requires_grad_()
        hidden = packed_hidden(model, inputs, positions, lengths, max(LENGTHS), compiled, shared)
        (gradient,) = torch.autograd.grad((hidden.float() * weights.cuda()).sum(), inputs)
        assert (hidden.float().cpu() - expected).norm() / expected.norm() < tolerance
        assert (gradient.float().cpu() - wanted)[own].norm() / wanted[own].norm() < tolerance

"""The language model: packed attention, losses at target positions, cached decoding, loading."""

import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaForCausalLM

from omnichat.batch import Example, SharedPrefix, pack
from omnichat.models import packed as packed_module
from omnichat.models import target_loss
from omnichat.models.llm import add_lora, load_llm
from omnichat.models.packed import packed_hidden
from omnichat.models.session import Decoded, Session
from omnichat.models.target_loss import target_losses
from omnichat.models.tiny import default_texts, llama_config, write_llama, write_tokenizer
from omnichat.prompt import Allowed, Tokens

LENGTHS = [5, 9, 3, 9]
STOP = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers with grouped heads, in a Hugging Face folder."""
    path = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    tokenizer = write_tokenizer(path, default_texts(), 300)
    write_llama(path, LlamaForCausalLM(llama_config(tokenizer, width=32, heads=4, layers=2, initializer_range=0.3)))
    return path


@pytest.fixture
def llm(folder: Path) -> LlamaForCausalLM:
    """The model with LoRA that does something: upstream starts its second half at zero."""
    model = load_llm(folder)
    torch.manual_seed(1)
    add_lora(model, rank=2, alpha=4)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def embeddings(lengths: list[int] = LENGTHS) -> list[Tensor]:
    """Random token embeddings, one tensor a dialogue."""
    return list(torch.randn(sum(lengths), 32, generator=torch.Generator().manual_seed(2)).split(lengths))


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


def packed(model: LlamaForCausalLM, rows: list[Tensor]) -> list[Tensor]:
    """Hidden states of dialogues put end to end, cut apart again."""
    lengths = [len(row) for row in rows]
    starts = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    positions = torch.cat([torch.arange(length) for length in lengths])
    return list(packed_hidden(model, torch.cat(rows), positions, starts, max(lengths)).split(lengths))


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


def test_no_targets_give_zero_with_a_gradient(llm: LlamaForCausalLM) -> None:
    """Fails when a micro-batch without targets cannot be differentiated: its rank would hang the others."""
    hidden = torch.randn(4, 32, requires_grad=True)
    loss = target_losses(llm, hidden[:0], torch.zeros(0, dtype=torch.int64)).sum()
    assert loss == 0
    loss.backward()
    assert hidden.grad is not None
    assert not hidden.grad.any()


def test_session_equals_full_recompute(llm: LlamaForCausalLM) -> None:
    """Fails when the cache, the positions or the mask after it are off: reading in parts must equal reading at once."""
    (row,) = embeddings([12])
    session = Session(llm)
    for start, stop in ((0, 4), (4, 5), (5, 12)):
        logits = session.extend([row[start:stop]])
        assert session.length == stop
        with torch.no_grad():
            expected = llm.lm_head(packed(llm, [row[:stop]])[0][-1])
        torch.testing.assert_close(logits[0], expected, atol=1e-4, rtol=0)


def test_session_of_unequal_rows_equals_each_alone(llm: LlamaForCausalLM) -> None:
    """Fails when left padding is attended to or shifts positions, also in a second turn."""
    rows, turns = embeddings(), [row[:2] for row in reversed(embeddings())]
    session = Session(llm)
    session.extend(rows)
    together = session.extend([turns[0][:1], *turns[1:]])
    turns[0] = turns[0][:1]
    for number, (row, turn) in enumerate(zip(rows, turns, strict=True)):
        alone = Session(llm)
        alone.extend([row])
        torch.testing.assert_close(together[number], alone.extend([turn])[0], atol=1e-4, rtol=0)


def ids_of(replies: Sequence[Decoded]) -> list[list[int]]:
    return [reply.ids for reply in replies]


def test_of_the_allowed_tokens_the_likeliest_is_written(llm: LlamaForCausalLM) -> None:
    """Any other would not be the model's choice; and who reads scores has to know where it was kept from its own."""
    rows = embeddings([5, 9, 3])
    own = ids_of(Session(llm).reply(rows, 3, stop_id=-1))
    second = [int(Session(llm).extend([row])[0].topk(2).indices[1]) for row in rows]
    pair = frozenset({*second, *(ids[0] for ids in own)} - {own[0][0]})

    def form(written: Sequence[int]) -> Allowed | None:
        return Allowed(pair, taught=True) if not written else None

    led = Session(llm).reply(rows, 3, -1, form)
    for row, ids, reply in zip(rows, own, led, strict=True):
        allowed = torch.tensor(sorted(pair))
        assert reply.ids[0] == int(allowed[Session(llm).extend([row])[0][allowed].argmax()])
        assert reply.guided == (ids[0] not in pair)
        assert reply.ids == ids or reply.guided
        assert reply == Session(llm).reply([row], 3, -1, form)[0]
    assert led[0].guided

    def untaught(written: Sequence[int]) -> Allowed | None:
        return Allowed(pair, taught=False) if not written else None

    unlearnt = Session(llm).reply(rows, 3, -1, untaught)
    assert ids_of(unlearnt) == ids_of(led)
    assert not any(reply.guided for reply in unlearnt)


def test_replies_do_not_depend_on_the_batch(llm: LlamaForCausalLM) -> None:
    """Fails when batched greedy decoding differs from decoding alone, runs past the stop token, or never stops."""
    rows = embeddings([5, 9, 3, 9, 1, 2, 14, 6])
    free = ids_of(Session(llm).reply(rows, 12, stop_id=-1))
    assert all(len(ids) == 12 for ids in free)
    assert len({tuple(ids) for ids in free}) > 4, "the rows all say the same: the test shows nothing"
    stop = free[0][5]
    together = ids_of(Session(llm).reply(rows, 12, stop))
    for row, ids, unstopped in zip(rows, together, free, strict=True):
        assert ids == Session(llm).reply([row], 12, stop)[0].ids
        assert ids == (unstopped[: unstopped.index(stop) + 1] if stop in unstopped else unstopped)


def test_reply_equals_recompute_token_by_token(llm: LlamaForCausalLM) -> None:
    """Fails when a decoding step sees another prefix than the tokens written so far."""
    (row,) = embeddings([6])
    written = Session(llm).reply([row], 8, stop_id=-1)[0].ids
    with torch.no_grad():
        for number, token in enumerate(written):
            before = llm.model.embed_tokens(torch.tensor(written[:number], dtype=torch.int64))
            assert llm.lm_head(packed(llm, [torch.cat([row, before])])[0][-1]).argmax() == token


def test_lora_is_all_that_trains(folder: Path) -> None:
    """Fails when a frozen weight trains, or adapters inherit bfloat16, in which AdamW's steps are lost."""
    model = load_llm(folder, torch.bfloat16)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    add_lora(model, rank=2, alpha=4)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * 2  # layers x (q, v) x (A, B)
    assert all("lora_" in name and ("q_proj" in name or "v_proj" in name) for name in trained)
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    rows = [row.bfloat16() for row in embeddings()]
    loss = target_losses(model, torch.cat(packed(model, rows)), torch.arange(sum(LENGTHS))).sum()
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.values())


@pytest.mark.parametrize("targets", [("q_proj", "key"), ("lm_head",), ()])
def test_wrong_lora_targets_are_refused(folder: Path, targets: tuple[str, ...]) -> None:
    """Fails when a misspelt target trains less than was asked for, without a word."""
    with pytest.raises(ValueError, match=r"LoRA targets .*: the model's linear layers are down_proj, gate_proj"):
        add_lora(load_llm(folder), 2, 4, targets=targets)


def edit_weights(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    """A fault: the weights file after `change`."""

    def fault(path: Path) -> None:
        state = load_file(path / "model.safetensors")
        change(state)
        save_file(state, path / "model.safetensors", metadata={"format": "pt"})

    return fault


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "no such folder"),
    "no config": (lambda p: (p / "config.json").unlink(), r"lacks config\.json"),
    "no tokenizer": (lambda p: (p / "tokenizer.json").unlink(), r"lacks tokenizer\.json"),
    "no weights": (
        lambda p: (p / "model.safetensors").unlink(),
        r"lacks model\.safetensors or model\.safetensors\.index\.json",
    ),
    "cut config": (lambda p: (p / "config.json").write_text("{"), "not a JSON object"),
    "other model": (lambda p: (p / "config.json").write_text('{"model_type": "bert"}'), "model_type is 'bert'"),
    "cut weights": (lambda p: (p / "model.safetensors").write_bytes(b"\x99" * 99), "cannot be loaded"),
    "cut tokenizer": (lambda p: (p / "tokenizer.json").write_text("{"), "cannot be loaded"),
    "missing": (edit_weights(lambda s: s.pop("model.norm.weight")), r"missing keys: model\.norm\.weight"),
    "extra": (edit_weights(lambda s: s.update(extra=torch.zeros(1))), "unexpected keys: extra"),
    "shape": (
        edit_weights(lambda s: s.update({"model.norm.weight": torch.ones(3)})),
        r"mismatched keys: .*model\.norm\.weight",
    ),
    "vocabulary": (lambda p: write_tokenizer(p, [f"{n:05d} some word" for n in range(99)], 400), "the tokenizer that"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_damaged_folder_is_one_clear_error(folder: Path, tmp_path: Path, name: str) -> None:
    """Fails when a broken folder loads as a half-random model, or ends in another library's error."""
    damage, message = FAULTS[name]
    copy = tmp_path / "llama"
    shutil.copytree(folder, copy)
    load_llm(copy)
    damage(copy)
    with pytest.raises(ValueError, match=message) as caught:
        load_llm(copy)
    assert str(copy) in str(caught.value)


@pytest.mark.parametrize("share", [False, True])
def test_compiled_layers(share: bool, llm: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when compiling changes what is computed, or is done anew for another layer or other lengths."""
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(packed_module._layer, dynamic=True, backend=counter)
    monkeypatch.setattr(packed_module, "_compiled_layer", lambda: compiled)
    frames = []
    for lengths in ((5, 9, 3), (2, 12), (4, 4, 4, 7)):
        rows = [torch.randn(length, llm.config.hidden_size) for length in lengths]
        embeds = torch.cat(rows).requires_grad_()
        starts = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
        positions = torch.cat([torch.arange(length) for length in lengths])
        weights = torch.randn(len(embeds), llm.config.hidden_size)
        shared = shared_prefix(lengths, 1) if share else None
        outcomes = []
        for choice in (False, True):
            hidden = packed_hidden(llm, embeds, positions, starts, max(lengths), choice, shared)
            outcomes.append((hidden, *torch.autograd.grad((hidden * weights).sum(), embeds)))
        for one, other in zip(*outcomes, strict=True):
            torch.testing.assert_close(one, other)
        frames.append(counter.frame_count)
    assert frames[0] > 0
    assert frames[1] == frames[2], "compiled anew for each batch"


def test_softmax_error() -> None:
    """Fails when what is compiled for a GPU is another loss, or another gradient, than cross entropy's."""
    logits, wanted = torch.randn(5, 11, requires_grad=True), torch.tensor([0, 10, 3, 3, 7])
    expected = F.cross_entropy(logits, wanted, reduction="none")
    (gradient,) = torch.autograd.grad(expected.sum(), logits)
    losses, error = target_loss._softmax_error(logits.detach(), wanted)
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(error, gradient)


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

"""The whole model: from waves or cached features to losses, embeddings in their slots, replies."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from omnichat.batch import Example, PackedBatch, pack, to_device
from omnichat.models.omnichat import OmniChat, pad_frames
from omnichat.models.packed import packed_hidden
from omnichat.prompt import CONTENT_TARGET, STYLE_TARGET, Prompt
from omnichat.training.optim import Verdict, build_optimizer, leave_out_unless
from tests.spoken import DIALOGUES, cached, make_examples, make_model, make_prompt


@pytest.fixture(scope="module")
def model() -> OmniChat:
    """The tiny model with all three experts; tests must leave it as it is."""
    return make_model()


@pytest.fixture(scope="module")
def prompt() -> Prompt:
    """The tiny model's prompt."""
    return make_prompt()


@pytest.fixture(scope="module")
def examples(prompt: Prompt) -> list[Example]:
    """Four dialogues to learn from."""
    return make_examples(prompt)


def test_frames_end_to_end_become_rows() -> None:
    """By hand: a row moved by one frame would be heard as the next turn's beginning."""
    rows, counts = pad_frames(torch.tensor([[1.0], [2], [3], [4]]), (1, 0, 3))
    assert rows[..., 0].tolist() == [[1, 0, 0], [0, 0, 0], [2, 3, 4]]
    assert counts.tolist() == [1, 0, 3]


def test_losses_are_sums_over_targets(model: OmniChat, examples: list[Example]) -> None:
    """Fails when a target is counted twice or not at all, in the wrong part, or predicted from the wrong position."""
    batch = pack(examples)
    losses = model(batch)
    heard = model.embed(batch)
    hidden = packed_hidden(model.llm, heard.embeds, batch.positions, batch.starts, batch.max_length)
    logits = model.llm.lm_head(hidden).log_softmax(-1)
    sums = {STYLE_TARGET: 0.0, CONTENT_TARGET: 0.0}
    each = []
    for position, label in enumerate(batch.labels.tolist()):
        if label != -100:
            each.append(-float(logits[position - 1, label].detach()))
            sums[int(batch.kinds[position])] += each[-1]
    assert losses.style.item() == pytest.approx(sums[STYLE_TARGET], rel=1e-5)
    assert losses.content.item() == pytest.approx(sums[CONTENT_TARGET], rel=1e-5)
    assert losses.total.item() == pytest.approx(sum(sums.values()), rel=1e-5)
    assert losses.per_target.tolist() == pytest.approx(each, rel=1e-4)
    assert {part.dtype for part in (*losses[:3], losses.per_target)} == {torch.float32}
    assert [name for name, part in losses._asdict().items() if part.requires_grad] == ["total"]
    assert (losses.style_targets + losses.content_targets).item() == batch.num_targets
    assert losses.style_targets.item() == (batch.kinds == STYLE_TARGET).sum()
    assert losses.gates.shape == (len(batch.wave_lengths), 89, 3)  # 1500 frames are the longest piece
    assert losses.window_counts.sum() == len(batch.slots)


def test_what_is_heard_lands_in_its_slots(model: OmniChat, examples: list[Example]) -> None:
    """Fails when windows are put into another turn's slots, or words are overwritten."""
    batch = pack(examples)
    before = model.embed(batch).embeds
    words = torch.ones(len(batch.ids), dtype=torch.bool)
    words[batch.slots] = False
    torch.testing.assert_close(before[words], model.llm.model.embed_tokens(batch.ids[words]), atol=0, rtol=0)
    # Another sound in the last turn of dialogue 1 changes that turn's slots and no others.
    waves = [*examples[1].waves[:-1], examples[1].waves[-1][::-1].copy()]
    after = model.embed(pack([examples[0], replace(examples[1], waves=tuple(waves)), *examples[2:]])).embeds
    changed = (before - after).abs().sum(-1) > 1e-6
    slot = examples[1].tokens.slots[-1]
    start = int(batch.starts[1]) + slot.start
    assert changed[start : start + slot.length].all()
    changed[start : start + slot.length] = False
    assert not changed.any()


def test_slots_that_do_not_match_are_refused_with_both_counts(model: OmniChat) -> None:
    """Fails when a prompt made with another window or number of queries is trained on, its turns shifted."""
    for window, queries, slots in ((5, 1, 9), (17, 2, 6)):
        wrong = make_examples(make_prompt(window, queries), dialogues=DIALOGUES[:1])
        with pytest.raises(ValueError, match=f"{slots} audio slots for 3 window embeddings"):
            model(pack(wrong))


def test_cached_features_give_the_same_losses(model: OmniChat, examples: list[Example]) -> None:
    """Fails when frames read from a store are placed or masked otherwise than live ones."""
    live, stored = model(pack(examples)), model(pack([cached(model, example) for example in examples]))
    torch.testing.assert_close(stored.total, live.total)
    assert torch.equal(stored.window_counts, live.window_counts)
    without = OmniChat({}, model.mixformer, model.llm, 17, 1)
    torch.testing.assert_close(without(pack([cached(model, example) for example in examples])).total, live.total)
    with pytest.raises(ValueError, match="no encoders and the batch no cached features"):
        without(pack(examples))


def test_text_only_still_gives_every_parameter_a_gradient(model: OmniChat) -> None:
    """Fails when a micro-batch in which nothing is heard leaves parameters out: DDP would wait for them for ever."""
    prompt = make_prompt(input="text")
    told = [replace(d, turns=tuple(replace(turn, text=turn.text or "Hello?") for turn in d.turns)) for d in DIALOGUES]
    model.zero_grad()
    losses = model(pack(make_examples(prompt, dialogues=told)))
    losses.total.backward()
    assert losses.total > 0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    model.zero_grad()


def test_replies_do_not_depend_on_the_batch(model: OmniChat, prompt: Prompt) -> None:
    """Fails when batched generation differs from one dialogue at a time, or mixes up the order, or turns' gates."""
    examples = make_examples(prompt, generation=True)
    together = model.generate(examples, 8, prompt.stop_id, batch_size=3)
    for example, reply in zip(examples, together, strict=True):
        (alone,) = model.generate([example], 8, prompt.stop_id)
        assert reply.ids == alone.ids
        assert 1 <= len(reply.ids) <= 8
        assert reply.gates.shape == (example.tokens.slots[-1].length, 3)
        np.testing.assert_allclose(reply.gates, alone.gates, atol=1e-5)
    (last_turn,) = model.generate([examples[1]], 1, prompt.stop_id)
    batch = pack([examples[1]])
    heard = model.embed(batch)
    expected = heard.gates[-1, : int(heard.window_counts[-1])].detach().numpy()
    np.testing.assert_allclose(last_turn.gates, expected, atol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16(examples: list[Example], autocast: bool) -> None:
    """Fails when a bfloat16 language model, or autocast, meets the float32 Mix-Former with mixed types or overflows."""
    model = make_model()
    reference = model(pack(examples[:3])).total.item()
    if not autocast:
        model.llm.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = model(pack(examples[:3]))
    losses.total.backward()
    assert losses.total.dtype == torch.float32
    assert losses.total.item() == pytest.approx(reference, rel=0.02)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert {parameter.dtype for parameter in model.mixformer.parameters()} == {torch.float32}


def test_parts_that_do_not_fit_are_refused(model: OmniChat) -> None:
    """Fails when experts, window or queries are changed in one place only."""
    with pytest.raises(ValueError, match="encoders whisper do not match"):
        OmniChat({"whisper": model.encoders["whisper"]}, model.mixformer, model.llm, 17, 1)
    with pytest.raises(ValueError, match=r"\(17, 17, 1\), the prompt counts slots by \(5, 5, 1\)"):
        OmniChat({}, model.mixformer, model.llm, 5, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("live", [True, False])
def test_a_step_on_cuda_waits_for_nothing(live: bool) -> None:
    """Fails when something in the step asks the device for a number: the CPU would then fall behind it."""
    model, examples = make_model(), make_examples(make_prompt())
    if not live:
        examples = [cached(model, example) for example in examples]
    expected = model(pack(examples)).total.detach()
    model.cuda()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = build_optimizer(trained, 1e-4, 0.05, (0.9, 0.999))
    batch, losses = pack(examples), []
    batch = PackedBatch(*(value.pin_memory() if isinstance(value, torch.Tensor) else value for value in batch))
    model.llm.to(torch.bfloat16)  # in float32 attention has no kernel that takes all dialogues at once
    for mode in ("default", "error"):  # spectra's filters and kernels are made once
        torch.cuda.set_sync_debug_mode(mode)
        try:
            with torch.autocast("cuda", torch.bfloat16):
                loss = model(to_device(batch, torch.device("cuda"))).total
            loss.backward()
            finite = torch.nn.utils.clip_grad_norm_(trained.values(), 1.0).isfinite()
            verdict = Verdict(finite)
            leave_out_unless(finite, optimizer)
            optimizer.step()
            optimizer.zero_grad()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        losses.append(loss.detach())
        assert verdict.sound()
    assert float(losses[0]) == pytest.approx(float(expected), rel=0.02)

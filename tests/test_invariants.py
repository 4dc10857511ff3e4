"""What must hold whatever changes (design, section 4), as far as the model alone can show it."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from omnichat.audio import num_frames, num_windows
from omnichat.batch import Example, pack
from omnichat.dialogue import AudioRef, Style, Turn
from omnichat.models.omnichat import OmniChat
from omnichat.models.qformer import WindowedQFormer
from omnichat.prompt import IGNORE
from tests.spoken import DIALOGUES, cached, make_dialogue, make_example, make_examples, make_model, make_prompt

WINDOWS = ((17, 1), (6, 2))  # window, queries
ANSWER = (Style("female", "happy", "normal", "normal"), "Yes.")


def gradients(model: OmniChat, loss: Tensor) -> dict[str, Tensor]:
    """The gradient of every trainable tensor by name."""
    model.zero_grad()
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    model.zero_grad()
    return found


def assert_same_gradients(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """||a - b|| / ||b|| <= 1e-5 for each tensor, but for 1e-9 of the largest tensor.

    Some gradients are zero but for rounding (the self-attention of a single query), which differs between processors;
    1e-9 is a hundredth of float32's own step.
    """
    assert one.keys() == other.keys()
    rounding = 1e-9 * max(tensor.norm() for tensor in other.values())
    for name, tensor in other.items():
        assert (one[name] - tensor).norm() <= 1e-5 * tensor.norm() + rounding, name


def padded_loss(model: OmniChat, examples: list[Example]) -> Tensor:
    """The same loss by transformers' own path: padding, an attention mask, all logits, its loss function."""
    heard = [model.embed(pack([example])).embeds for example in examples]
    batches = [pack([example]) for example in examples]
    labels = pad_sequence([batch.labels for batch in batches], batch_first=True, padding_value=IGNORE)
    mask = torch.arange(labels.shape[1]) < torch.tensor([[len(batch.ids)] for batch in batches])
    model.llm.set_attn_implementation("sdpa")
    padded = pad_sequence(heard, batch_first=True)
    output = model.llm(inputs_embeds=padded, attention_mask=mask.long(), labels=labels, use_cache=False)
    model.llm.set_attn_implementation("omnichat_packed")
    assert output.loss is not None
    return output.loss * sum(batch.num_targets for batch in batches)


@pytest.mark.parametrize(("window", "queries"), WINDOWS)
def test_packed_padded_one_by_one(window: int, queries: int) -> None:
    """Invariant 1. Fails when packing changes what is learnt: leaking attention, positions, shifted labels, padding."""
    model = make_model(window=window, queries=queries)
    examples = [cached(model, example) for example in make_examples(make_prompt(window, queries))]
    losses = {
        "packed": model(pack(examples)).total,
        "reordered": model(pack(examples[::-1])).total,
        "padded": padded_loss(model, examples),
        "one by one": torch.stack([model(pack([example])).total for example in examples]).sum(),
    }
    expected = losses["one by one"]
    reference = gradients(model, expected)
    assert len(reference) == sum(parameter.requires_grad for parameter in model.parameters())
    for name in ("packed", "reordered", "padded"):
        assert losses[name].item() == pytest.approx(expected.item(), rel=1e-6), name
        assert_same_gradients(gradients(model, losses[name]), reference)


@pytest.mark.parametrize(("window", "queries"), WINDOWS)
def test_a_shared_prefix_changes_nothing(window: int, queries: int) -> None:
    """Invariant 1. Fails when the system message computed once is not what each dialogue would have computed.

    That is: other positions, a dialogue that sees another or not all of the message, gradients of one dialogue only.
    """
    model = make_model(window=window, queries=queries)
    prompt = make_prompt(window, queries, system="Listen, and answer kindly.")
    examples = [cached(model, example) for example in make_examples(prompt)]
    shared = pack(examples, share_prefix=True)
    assert shared.shared is not None
    assert shared.shared.length > 20
    losses = {
        "shared": model(shared).total,
        "reordered": model(pack(examples[::-1], share_prefix=True)).total,
        "packed": model(pack(examples)).total,
    }
    expected = torch.stack([model(pack([example])).total for example in examples]).sum()
    reference = gradients(model, expected)
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6), name
        assert_same_gradients(gradients(model, loss), reference)


def test_micro_batches_give_the_global_mean() -> None:
    """Invariant 2, the model's part. Fails when a micro-batch divides by its own number of targets."""
    model = make_model()
    examples = [cached(model, example) for example in make_examples(make_prompt())]
    whole = pack(examples)
    reference = gradients(model, model(whole).total / whole.global_targets)
    for cut in (1, 2, 3):
        parts = [pack(part, whole.num_targets) for part in (examples[:cut], examples[cut:])]
        shares = [model(part).total / part.global_targets for part in parts]
        assert_same_gradients(gradients(model, torch.stack(shares).sum()), reference)


def test_frozen_weights_stay_and_trainable_ones_move() -> None:
    """Invariant 7. Fails when an encoder's or the LLM's own weights train, or something that should train does not."""

    def hashes(model: OmniChat) -> dict[str, str]:
        return {
            name: hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()
            for name, tensor in model.state_dict().items()
        }

    model, batch = make_model(queries=2), pack(make_examples(make_prompt(queries=2)))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(name.startswith("mixformer.") or ".lora_" in name for name in trained)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    before = hashes(model)
    model.train()
    (model(batch).total / batch.global_targets).backward()
    optimizer.step()
    after = hashes(model)
    assert {name for name in before if before[name] != after[name]} == trained


def test_labels_cover_style_words_and_end_only() -> None:
    """Invariant 9. Fails when an unknown style field, a header or a user's words are targets, or words are left out."""
    prompt = make_prompt()
    expected = {
        "a": "(female, sad, slow, low): I am sorry to hear that.<|eot_id|>",
        "b": "(male, happy, fast, high): Great!<|eot_id|>, neutral, normal): Go on.<|eot_id|>"
        "(male, surprised, normal, high): Is that so? Tell me more.<|eot_id|>",
        "c": "): Yes?<|eot_id|>(female, normal, normal): Ok.<|eot_id|>",
    }
    for dialogue in DIALOGUES[:3]:
        tokens = prompt.render(dialogue)
        targets = tokens.labels[tokens.labels != IGNORE]
        assert prompt.tokenizer.decode(targets.tolist(), skip_special_tokens=False) == expected[dialogue.id]
        assert np.array_equal(tokens.ids[tokens.labels != IGNORE], targets)


def test_labels_do_not_depend_on_other_tokens() -> None:
    """Invariant 9. Fails when another user turn, system message or transcript changes what is learnt."""
    for dialogue in DIALOGUES:
        labels = make_prompt().render(dialogue).labels
        turns = tuple(
            Turn("user", f"Well, {number}", audio=AudioRef("x.wav", 40_000 + number)) if turn.role == "user" else turn
            for number, turn in enumerate(dialogue.turns)
        )
        for options in ({"system": "Be brief."}, {"input": "text"}, {"input": "speech+text"}):
            other = make_prompt(**options).render(replace(dialogue, turns=turns)).labels
            assert np.array_equal(other[other != IGNORE], labels[labels != IGNORE])


@pytest.mark.parametrize("window", [17, 5])
def test_slots_equal_windows_at_every_length(window: int) -> None:
    """Invariant 10. Fails when at any length from 160 samples to 60 s a slot has no window, or a frame no slot.

    Every length at the default window; every seventh, which meets every remainder of 160, at another.
    """
    qformer = WindowedQFormer(4, hidden=4, layers=1, heads=1, ffn=4, window=window)
    windows = [0] + [qformer.num_windows(frames) for frames in range(1, 1501)]
    for length in range(160, 60 * 16_000 + 1, 1 if window == 17 else 7):
        first, second = min(length, 480_000), max(0, length - 480_000)
        # Whisper's count: two mel frames of 160 samples make a frame.
        frames = (-(-(first // 160) // 2), -(-(second // 160) // 2))
        slots = num_windows(length, window)
        assert slots == windows[frames[0]] + windows[frames[1]], length
        assert slots * window >= sum(frames), length


@pytest.mark.parametrize(("window", "queries"), WINDOWS)
def test_every_window_of_a_clip_is_placed(window: int, queries: int) -> None:
    """Invariant 10 through the model. Fails when the Mix-Former gives other windows than the prompt has slots."""
    model, prompt = make_model(window=window, queries=queries), make_prompt(window, queries)
    edges = [round(seconds * 16_000) + extra for seconds in (0.34, 1.02) for extra in (-320, -160, -1, 0, 1, 160, 320)]
    for length in (160, 161, 319, 480, 2_799, 2_800, *edges, 480_159, 480_160, 60 * 16_000):
        dialogue = make_dialogue("x", [length / 16_000], [ANSWER])
        batch = pack([make_example(prompt, dialogue, 0)])
        before = model.llm.model.embed_tokens(batch.ids)
        heard = model.embed(batch)
        changed = (heard.embeds - before).abs().sum(-1) > 0
        assert changed[batch.slots].all()
        assert int(changed.sum()) == len(batch.slots) == int(heard.window_counts.sum()) * queries


def test_gradients_are_finite_where_an_expert_hears_nothing() -> None:
    """Fails when BEATs' empty last window (28 % of lengths), or a clip too short for it, gives NaN gradients."""
    model, prompt = make_model(), make_prompt()
    lengths = [seconds for seconds in np.arange(0.35, 1.5, 0.02).round(2).tolist() if beats_ends_early(model, seconds)]
    assert len(lengths) > 5
    for seconds in (0.01, lengths[0], lengths[-1]):
        batch = pack([make_example(prompt, make_dialogue("x", [seconds], [ANSWER]), 0)])
        found = gradients(model, model(batch).total)
        assert all(tensor.isfinite().all() for tensor in found.values())


def beats_ends_early(model: OmniChat, seconds: float) -> bool:
    """Whether BEATs has no frame in the last window of a clip."""
    samples = round(seconds * 16_000)
    return model.encoders["beats"].num_frames(samples) <= (num_frames(samples) - 1) // 17 * 17

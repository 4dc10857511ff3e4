"""What is logged of a step in parts: the right target in the right part, and parts that add up to the whole."""

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from omnichat.audio import num_frames
from omnichat.batch import PackedBatch, pack
from omnichat.dialogue import Dialogue
from omnichat.models.encoders import Encoder
from omnichat.models.omnichat import Losses
from omnichat.training.breakdown import (
    LATER,
    drawn_by_source,
    gates_by_scenario,
    loss_parts,
    part_metrics,
    qformer_norms,
    target_places,
)
from tests.spoken import DIALOGUES, make_example, make_examples, make_model, make_prompt

SOURCES = ("music", "real")


@pytest.fixture(scope="module")
def step() -> Iterator[tuple[list[Losses], list[PackedBatch]]]:
    """Two micro-batches of a step: dialogues a and b, c and d; sources and scenarios take turns."""
    model, examples = make_model().eval(), make_examples(make_prompt())
    examples = [
        replace(example, source=SOURCES[number % 2], scene={"scenario": "noise"} if number % 2 else {})
        for number, example in enumerate(examples)
    ]
    batches = [pack(examples[:2], 1), pack(examples[2:], 1)]
    with torch.no_grad():
        yield [model(batch) for batch in batches], batches


def lengths_by_turn(dialogue: Dialogue) -> list[int]:
    """Targets of each assistant turn: what the dialogue has more of when one more round of it is rendered."""
    prompt = make_prompt()
    rounds = [prompt.render(replace(dialogue, turns=dialogue.turns[:stop])).num_targets for stop in range(2, 20, 2)]
    rounds = rounds[: len(dialogue.turns) // 2]
    return np.diff([0, *rounds]).tolist()


def test_loss_by_turn_and_source(step: tuple[list[Losses], list[PackedBatch]]) -> None:
    """Fails when a target is counted to a neighbour's turn or dialogue; against one dialogue at a time, all logits."""
    found = part_metrics(loss_parts(*step, SOURCES))
    model, prompt = make_model().eval(), make_prompt()
    by_turn: dict[str, list[float]] = {}
    by_source: dict[str, list[float]] = {}
    for number, dialogue in enumerate(DIALOGUES):
        batch = pack([make_example(prompt, dialogue, number)])
        with torch.no_grad():
            logits = model.llm(inputs_embeds=model.embed(batch).embeds[None]).logits[0]
        losses = cross_entropy(logits[:-1], batch.labels[1:], reduction="none")[batch.labels[1:] != -100].tolist()
        by_source.setdefault(SOURCES[number % 2], []).extend(losses)
        for turn, length in enumerate(lengths_by_turn(dialogue), 1):
            by_turn.setdefault(str(turn), []).extend(losses[:length])
            losses = losses[length:]
        assert not losses
    expected = {f"loss/by_turn/{turn}": np.mean(values) for turn, values in by_turn.items()}
    expected |= {f"loss/by_source/{name}": np.mean(values) for name, values in by_source.items()}
    expected["data/dialogue_turns"] = np.mean([len(lengths_by_turn(dialogue)) for dialogue in DIALOGUES])
    assert found == {key: pytest.approx(value, rel=1e-4) for key, value in expected.items()}
    assert set(by_turn) == {"1", "2", "3"}


def test_turns_that_are_not_learnt_do_not_count() -> None:
    """The curve of the first turn that is learnt is the first, wherever it stands; what is left out is in none."""
    turns = DIALOGUES[0].turns * 3
    skipped = (*turns[:3], replace(turns[3], learn=False), *turns[4:])
    assert (turns[1].role, turns[3].role) == ("assistant", "assistant")
    batch = pack([make_example(make_prompt(), replace(DIALOGUES[0], turns=skipped), 0)])
    whole = pack([make_example(make_prompt(), replace(DIALOGUES[0], turns=turns), 0)])
    places, all_places = (target_places(one)[1] for one in (batch, whole))
    kept = all_places != 2
    assert batch.targets.tolist() == whole.targets[torch.from_numpy(kept)].tolist()
    assert places.tolist() == [turn - (turn > 2) for turn in all_places[kept].tolist()]


def test_turns_without_targets_between_are_apart() -> None:
    """A long dialogue has one curve for its late turns, and two that follow each other are never one."""
    turns = DIALOGUES[0].turns * 13
    batch = pack([make_example(make_prompt(), replace(DIALOGUES[0], turns=turns), 0)])
    dialogue, turn = target_places(batch)
    assert set(dialogue.tolist()) == {0}
    assert np.bincount(turn).tolist() == [0] + [batch.num_targets // 13] * 13
    losses = [Losses(*[torch.zeros(())] * 5, torch.ones(batch.num_targets), *[torch.zeros(())] * 3)]
    parts = loss_parts(losses, [batch], ("synthetic",))
    assert parts[f"count loss/by_turn/{LATER}"] == 3 * batch.num_targets // 13


def test_what_each_source_gave(step: tuple[list[Losses], list[PackedBatch]]) -> None:
    """By hand: a and c are music, b and d real; a share or a number of passes would be another source's."""
    drawn = drawn_by_source(step[1], (*SOURCES, "none"))
    prompt = make_prompt()
    targets = [prompt.render(dialogue).num_targets for dialogue in DIALOGUES]
    assert {name: (one.dialogues, one.targets) for name, one in drawn.items()} == {
        "music": (2, targets[0] + targets[2]),
        "real": (2, targets[1] + targets[3]),
        "none": (0, 0),
    }
    seconds = {"music": 0.9 + 0.01 + 0.7, "real": 1.3 + 0.4 + 2.1 + 31.0, "none": 0}
    assert {name: one.seconds for name, one in drawn.items()} == pytest.approx(seconds)


def test_norms_of_what_the_qformers_give(step: tuple[list[Losses], list[PackedBatch]]) -> None:
    """Fails when padding counts, experts are confused, or the gate is in it; against one clip at a time."""
    names = ("whisper", "emotion2vec", "beats")
    found = qformer_norms(names, step[0])
    model, prompt = make_model().eval(), make_prompt()
    norms: dict[str, list[float]] = {f"qformer/out_norm/{name}": [] for name in names}
    for dialogue in DIALOGUES:
        for wave in make_example(prompt, dialogue, 0).waves:
            frames = torch.tensor([num_frames(len(wave))])
            for name, expert in model.mixformer.experts.items():
                with torch.no_grad():
                    heard, lengths = cast(Encoder, model.encoders[name]).encode(
                        torch.from_numpy(wave)[None], [len(wave)]
                    )
                    given = expert(heard, torch.minimum(lengths, frames), frames)
                norms[f"qformer/out_norm/{name}"] += given.norm(dim=-1).mean(2).flatten().tolist()
    assert found == {key: pytest.approx(np.mean(values), rel=1e-4) for key, values in norms.items()}
    assert qformer_norms(names, []) == {}


def test_gates(step: tuple[list[Losses], list[PackedBatch]]) -> None:
    """Padding windows must not count, and a scenario's spread is over its own windows."""
    losses, batches = step
    names = ("whisper", "emotion2vec", "beats")
    found = gates_by_scenario(names, losses, batches)
    windows = [
        (batch.scenarios[int(dialogue)] or "all", gates[: -(-num_frames(int(length)) // 17)])
        for loss, batch in zip(losses, batches, strict=True)
        for gates, dialogue, length in zip(loss.gates, batch.clip_dialogues, batch.wave_lengths, strict=True)
    ]
    for scenario in ("all", "noise"):
        own = sorted(float(gate[1]) for name, gates in windows if name == scenario for gate in gates)
        assert found[f"gate/emotion2vec/{scenario}"] == pytest.approx(sum(own) / len(own))
        at = 0.9 * (len(own) - 1)
        between = own[int(at)] + (at - int(at)) * (own[min(int(at) + 1, len(own) - 1)] - own[int(at)])
        assert found[f"gate/emotion2vec/{scenario}/p90"] == pytest.approx(between, abs=1e-6)
        assert found[f"gate/emotion2vec/{scenario}/p10"] < found[f"gate/emotion2vec/{scenario}/p90"]
    assert len(found) == 18

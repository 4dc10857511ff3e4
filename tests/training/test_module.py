"""What the module does around a step: rate and seed, and what validation makes of held-out dialogues."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from omnichat.batch import Example, pack
from omnichat.config import load_config
from omnichat.dialogue import STYLE_FIELDS
from omnichat.models.omnichat import Generated, OmniChat
from omnichat.prompt import CONTENT_TARGET, STYLE_TARGET
from omnichat.training.module import Holdout, OmniChatModule
from tests.spoken import DIALOGUES, make_example, make_examples, make_model, make_prompt


@dataclass
class Kept:
    """A logger that keeps what it is given."""

    metrics: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    rows: list[tuple[int, Sequence[Mapping[str, Any]]]] = field(default_factory=list)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.metrics.append((step, metrics))

    def log_replies(self, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        self.rows.append((step, rows))


@dataclass
class Place:
    """What a module asks its trainer for."""

    global_step: int = 0
    global_rank: int = 0
    world_size: int = 1
    accumulate_grad_batches: int = 2
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)
    loggers: list[Kept] = field(default_factory=lambda: [Kept()])
    callback_metrics: dict[str, Tensor] = field(default_factory=dict)


def module_at(place: Place, model: nn.Module, *overrides: str, holdout: Holdout | None = None) -> OmniChatModule:
    """A module of that trainer."""
    config = load_config("recipe=smoke", *overrides)
    assert isinstance(model, OmniChat) or holdout is None
    module = OmniChatModule(model, config.trainer, config.seed, holdout)  # type: ignore[arg-type]
    module.trainer = place  # type: ignore[assignment]
    return module


def test_rate_and_seed_are_functions_of_the_place() -> None:
    """One seed for all steps, micro-batches or ranks would drop the same units everywhere; one that depends on more
    than the place would drop others after a resume.
    """
    weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = torch.optim.AdamW([{"params": [weight]} for weight in weights], lr=7.0)
    options = "trainer.learning_rate=2", "trainer.warmup_steps=4", "trainer.max_steps=12"
    seeds: dict[tuple[int, ...], int] = {}
    batch = pack(make_examples(make_prompt())[:1])
    for seed, step, rank in product((0, 1), (0, 3, 4), (0, 1)):
        place = Place(step, rank, optimizers=[optimizer])
        module = module_at(place, nn.Linear(1, 1), *options, f"seed={seed}")
        for micro_batch in (0, 1):
            begun_afresh, begun_before = micro_batch, 2 * step + micro_batch
            for batch_idx in (begun_afresh, begun_before):
                module.on_train_batch_start(batch, batch_idx)
                found = seeds.setdefault((seed, step, rank, micro_batch), torch.initial_seed())
                assert torch.initial_seed() == found
        expected = {0: 0.5, 3: 2.0, 4: 2.0}[step]
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([expected] * 2)
    assert len(set(seeds.values())) == len(seeds) == 24


@pytest.fixture(scope="module")
def model() -> OmniChat:
    """In evaluation mode, as Lightning validates."""
    return make_model().eval()


@torch.no_grad()
def held_out_loss(model: OmniChat) -> dict[str, float]:
    """Over all targets of the four dialogues, one at a time, from all logits."""
    prompt = make_prompt()
    by_kind: dict[int, list[float]] = {STYLE_TARGET: [], CONTENT_TARGET: []}
    for number, dialogue in enumerate(DIALOGUES):
        batch = pack([make_example(prompt, dialogue, number)])
        logits = model.llm(inputs_embeds=model.embed(batch).embeds[None]).logits[0]
        losses = cross_entropy(logits[:-1], batch.labels[1:], reduction="none")
        for kind, values in by_kind.items():
            values += losses[(batch.kinds[1:] == kind) & (batch.labels[1:] != -100)].tolist()
    style, content = by_kind[STYLE_TARGET], by_kind[CONTENT_TARGET]
    return {
        "validation/total": float(np.mean(style + content)),
        "validation/style": float(np.mean(style)),
        "validation/content": float(np.mean(content)),
    }


def test_the_held_out_loss_is_the_mean_over_all_targets(model: OmniChat) -> None:
    """The best checkpoint is chosen by it: a mean of means, a lost batch, or sums of the validation before, choose
    another one.
    """
    place = Place(global_step=6)
    module = module_at(place, model)
    examples, expected = make_examples(make_prompt()), held_out_loss(model)
    for parts in ((examples[3:],), (examples[:3], examples[3:])):
        with torch.no_grad():
            for number, part in enumerate(parts):
                module.validation_step(pack(part, 1), number)
        module.on_validation_epoch_end()
    (_, (step, metrics)) = place.loggers[0].metrics
    assert step == 6
    assert metrics == {name: pytest.approx(value, rel=1e-4) for name, value in expected.items()}
    assert {name: float(value) for name, value in place.callback_metrics.items()} == pytest.approx(metrics)


def test_how_held_out_dialogues_were_answered(model: OmniChat, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: one right, one with another emotion, one that no parser reads, one with other words."""
    prompt = make_prompt()
    replies = [
        ("(female, sad, slow, low): I am sorry to hear that.", False),
        ("(male, happy, fast, high): Is that so?", True),
        ("Ok", False),
        ("(female, fearful, fast, high): What?", False),
    ]
    asked: list[tuple[Any, ...]] = []

    def generate(
        examples: Sequence[Example], most: int, stop: int, batch_size: int, allowed: Callable[[Sequence[int]], Any]
    ) -> list[Generated]:
        asked.append((examples, most, stop, batch_size))
        assert allowed([]) == prompt.allowed([], ("emotion",)) != prompt.allowed([], STYLE_FIELDS)
        none = np.zeros((0, 3), np.float32)
        return [Generated([*prompt.encode(text), prompt.stop_id], guided, none) for text, guided in replies]

    monkeypatch.setattr(model, "generate", generate)
    examples = make_examples(prompt, generation=True)
    place = Place(global_step=6)
    module = module_at(place, model, holdout=Holdout(DIALOGUES, examples, prompt, 9, 2, ("emotion",)))
    module.validation_sums = {"style": torch.ones(()), "style_targets": torch.ones(())}
    module.on_validation_epoch_end()
    assert asked == [(examples, 9, prompt.stop_id, 2)]
    ((step, metrics),) = place.loggers[0].metrics
    assert metrics == {
        "validation/total": 1.0,
        "validation/style": 1.0,
        "validation/exact": 0.25,
        "validation/guided": 0.25,
        "validation/unparsable": 0.25,
        "validation/emotion_f1_weighted": pytest.approx(2 / 3),  # of three: c has no emotion
    }
    ((shown_at, rows),) = place.loggers[0].rows
    assert step == shown_at == 6
    assert [row["dialogue"] for row in rows] == ["a", "b", "c", "d"]
    assert [row["reply emotion"] for row in rows] == ["sad", "happy", "unreadable", "fearful"]

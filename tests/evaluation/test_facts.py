"""What a report says of the data: the shares that were asked for, and those that were drawn."""

from omnichat.config import load_config
from omnichat.evaluation.facts import realised, run_facts

SCORES = {
    "step": 2,
    "splits": {"test": {"bootstrap": {"seed": 0}, "seconds_per_reply": 0.1}},
    "decoding": {"method": "greedy"},
}
STEPS = [
    {"step": step, "data/passes/a": step / 4, "data/share/dialogues/a": share, "data/share/seconds/a": 0.5}
    for step, share in ((1, 0.9), (2, 0.75))
]


def trained_on(*overrides: str) -> str:
    """The report's line on the data."""
    return dict(run_facts(load_config(*overrides), {}, [*STEPS, {"step": 2, "validation/total": 1.0}], SCORES))[
        "Trained on"
    ]


def test_the_last_step_says_what_was_drawn() -> None:
    """Shares are cumulative: an earlier line would be another figure, and validation's line has none."""
    assert realised([*STEPS, {"step": 2, "validation/total": 1.0}]) == {
        "a": "75.00 % of the dialogues, 50.00 % of the seconds heard, walked through 0.5 times"
    }
    assert realised([]) == {}


def test_every_source_is_listed_with_its_share() -> None:
    """A share by weight, in the paper's form and in the general one; a source of weight 0 was not trained on."""
    sources = [
        f"++data.sources.{name}.{key}={value}"
        for name, weight in (("a", 3), ("b", 1), ("c", 0))
        for key, value in (("path", f"{name}.jsonl"), ("weight", weight))
    ]
    line = trained_on("data=base", "++data.val.v=v.jsonl", "data.alpha=null", *sources)
    assert line == (
        "a <code>a.jsonl</code>, share 0.75; drawn: 75.00 % of the dialogues, 50.00 % of the seconds heard, "
        "walked through 0.5 times<br>b <code>b.jsonl</code>, share 0.25"
    )
    line = trained_on("data=dailytalk", "data.alpha=0.2")
    assert "synthetic <code>corpora/sharechat_emotion/train</code>, share 0.2" in line
    assert "real <code>corpora/dailytalk/train</code>, share 0.8" in line


def test_steps_by_tokens_are_called_so() -> None:
    """`None dialogues` would be nonsense in a report."""
    facts = dict(
        run_facts(load_config("trainer.dialogues_per_step=null", "trainer.tokens_per_step=4096"), {}, STEPS, SCORES)
    )
    assert "steps of at most 4,096 tokens" in facts["Training"]

"""The estimate of memory and hours: against the one measurement on a GPU, and against its own documentation."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from omnichat.build import build_model, sized_model
from omnichat.config import ConfigError, RunConfig, load_config
from omnichat.models.omnichat import OmniChat
from omnichat.recipes import register_recipes
from omnichat.training.estimate.__main__ import main
from omnichat.training.estimate.counted import (
    GIB,
    GPUS,
    MEASURED,
    RECIPES,
    flops_of,
    markdown,
    micro_batch_of,
    seconds_of,
    step_of,
)
from omnichat.training.flops import PEAKS
from omnichat.training.memory import Memory, MicroBatch, estimate_memory

ROOT = Path(__file__).parents[2]
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
# The two steps that were measured: tokens, targets, clips and their seconds.
STEPS = ((11_876, 4_703, 176, 755), (11_765, 4_628, 176, 745))
ARMS = {
    "cached features, compiled": (*MEASURED,),
    "cached features, eager": (*MEASURED, "trainer.compile=false"),
    "online, trim, compiled": (*MEASURED, "data.features=live", "model.encoders.whisper.context=trim"),
    "online, pad30, compiled": (*MEASURED, "data.features=live"),
}


def measured(arm: str) -> tuple[float, float]:
    """Seconds a step and GiB, from the table of results."""
    found = re.search(rf"^\| {re.escape(arm)} \| ([\d.]+) \|[^|]*\|[^|]*\|[^|]*\| ([\d.]+) \|", RESULTS, re.MULTILINE)
    assert found is not None
    return float(found[1]), float(found[2])


def sized(arm: str) -> tuple[RunConfig, OmniChat]:
    """A measured arm as a config, and its model as sizes."""
    config = load_config(*ARMS[arm])
    return config, sized_model(config)


def measured_batch(number: int) -> MicroBatch:
    """A measured step as one micro-batch."""
    tokens, targets, clips, seconds = STEPS[number]
    return MicroBatch(tokens, targets, [seconds * 16_000 // clips] * clips)


@pytest.mark.parametrize("arm", ARMS)
def test_memory_is_that_of_the_measured_step(arm: str) -> None:
    """A term that is forgotten or counted twice would send people to buy, or to leave, the wrong GPU."""
    config, model = sized(arm)
    found = estimate_memory(model, config, measured_batch(0))
    if not model.encoders:  # the benchmark held its 1.53 GiB of experts in every arm
        found = replace(found, experts=1.53 * GIB)
    assert found.total / GIB == pytest.approx(measured(arm)[1], rel=0.15)
    if arm.startswith("cached"):
        assert found.total / GIB == pytest.approx(measured(arm)[1], rel=0.03), "docs/hardware.md says how close"


@pytest.mark.parametrize("arm", ARMS)
def test_seconds_are_those_of_the_measured_step(arm: str) -> None:
    """The assumed utilisations stand for a measurement only as long as they give it back."""
    config, model = sized(arm)
    found = [
        seconds_of(config, model, replace(step_of(config, model), usual=measured_batch(number)), PEAKS["H200"])
        for number in (0, 1)
    ]
    assert sum(found) / 2 == pytest.approx(measured(arm)[0], rel=0.03)


def test_flops_are_those_of_the_benchmark() -> None:
    """Sizes by name must be the nets that were measured: 344.0 and 340.7 TFLOP stand in the results.

    The step that was measured computed the last layer's feed-forward for all tokens.
    """
    _, model = sized("cached features, compiled")
    last = 4 * sum(parameter.numel() for parameter in model.llm.model.layers[-1].mlp.parameters())
    found = [
        (flops_of(model, batch) + last * (batch.tokens - batch.targets)) / 1e12 for batch in map(measured_batch, (0, 1))
    ]
    assert "344.0 and 340.7 TFLOP" in RESULTS
    assert found == pytest.approx([344.0, 340.7], rel=0.005)


def test_the_assumed_dialogue_is_the_mean_of_the_measured_ones() -> None:
    """48 of them are a measured step."""
    batch = micro_batch_of(48)
    mean = [sum(values) / 2 for values in zip(*STEPS, strict=True)]
    seconds = sum(batch.num_samples) / 16_000
    assert [batch.tokens, batch.targets, len(batch.num_samples), seconds] == pytest.approx(mean, rel=0.003)


def test_the_table_in_the_docs_is_what_the_command_prints() -> None:
    """A changed recipe, net or formula would leave old figures in the docs; every figure there is marked."""
    docs = (ROOT / "docs" / "hardware.md").read_text(encoding="utf-8")
    found = re.search(
        r"<!-- python -m omnichat\.training\.estimate --markdown -->\n(.*?)\n<!-- end -->", docs, re.DOTALL
    )
    assert found is not None
    table = markdown()
    assert found[1] == table, "run: python -m omnichat.training.estimate --markdown"
    heads = table.partition("\n")[0].split(" | ")[2:]
    assert all("estimated" in head for head in heads)
    assert table.count("**measured**") == 1
    seconds, gib = measured("cached features, compiled")
    assert f"**measured**: {seconds} s, {gib} GiB" in table


def test_every_recipe_at_full_size_has_its_row() -> None:
    """A recipe without a row would be run blind."""
    small = {"smoke", "quickstart", "interact_events", "sharechat_emotion_mini", "experiments_tiny"}
    assert set(register_recipes()) - small == set(RECIPES)


def test_sizes_are_those_of_the_model_that_is_built() -> None:
    """Sizes read from files give the parameters that training would have, trained and frozen."""
    config = load_config("recipe=quickstart", "data.features=live")
    sizes, real = (
        {name: p.shape for name, p in make(config).named_parameters()} for make in (sized_model, build_model)
    )
    assert sizes == real


def test_report_names_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    """What is asked for: parameters, parts of the memory, FLOPs, seconds, hours, and whether it fits, on each GPU."""
    assert main([*MEASURED[:-1], "trainer.micro_batch=1"]) == 0
    out = capsys.readouterr().out
    assert "71.1 M trained" in out
    assert "337." in out.partition("TFLOP")[0].rpartition(",")[2]
    for word in (*Memory.__dataclass_fields__, "peak", "estimated", "52.8%"):
        assert word in out
    lines = [line for line in out.splitlines() if line.startswith(tuple(GPUS))]
    fits = {line[:16].strip(): line[16:].split()[0] for line in lines}
    assert fits == {gpu: "mean" if "4090" in gpu else "yes" for gpu in GPUS}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--help"], 0, "python -m omnichat.training.estimate recipe=NAME"),
        (["recipe=smoke"], 2, "model.random: random nets have no sizes"),
        (["recipe=dailytalk", "trainer.micro_batch=5"], 2, "trainer.micro_batch: 48 dialogues a step"),
        (["recipe=dailytalk", "model.llm.checkpoint=checkpoints/Other"], 2, "download it, or name one of Llama-3.1-8B"),
        (["recipe=dailytlk"], 2, "recipe=dailytlk: no such recipe; did you mean 'dailytalk'?"),
        (["recipe=dailytalk", "trainer.nope=1"], 2, "nope"),
    ],
)
def test_wrong_usage(arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the cure, and no traceback."""
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert message in (err if code else out)


def test_longer_dialogues_cost_more_and_engines_cut_what_they_cut() -> None:
    """Each engine's share of weights, gradients and moments, by what docs/clusters.md says that a rank holds."""
    whole = load_config("recipe=dailytalk", "trainer.compile=false")
    model = sized_model(whole)

    def held(strategy: str, ranks: int = 8) -> Memory:
        config = whole.model_copy(update={"trainer": whole.trainer.model_copy(update={"strategy": strategy})})
        return estimate_memory(model, config, micro_batch_of(6), ranks)

    ddp, one, two, three, fsdp = (held(name) for name in ("ddp", *(f"deepspeed_stage_{n}" for n in (1, 2, 3)), "fsdp"))
    assert held("ddp", 1) == ddp
    assert one.optimizer == pytest.approx(held("deepspeed_stage_1", 1).optimizer / 8)
    assert one.gradients == two.gradients * 8
    assert (one.frozen, two.frozen) == (ddp.frozen, ddp.frozen)
    assert three.trained == pytest.approx(two.trained / 8)
    assert ddp.frozen / 8 < three.frozen < ddp.frozen / 2
    assert ddp.frozen / 8 < fsdp.frozen < ddp.frozen / 2
    assert fsdp.optimizer == pytest.approx(ddp.optimizer / 8)
    assert {part.experts for part in (ddp, one, two, three, fsdp)} == {ddp.experts}
    with pytest.raises(ConfigError):
        load_config("recipe=dailytalk", "model.llm.quantization=int3")

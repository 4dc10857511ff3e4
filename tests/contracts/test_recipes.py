"""Every recipe composes and is valid today, wherever its weights and data may be."""

import pytest
from hydra.types import RunMode

from omnichat.config import load_config
from omnichat.recipes import RECIPES_DIR, compose, register_recipes
from omnichat.requirements import missing

TITLES = register_recipes()
PAPER = ["dailytalk", "dailytalk_alpha_sweep", "sharechat_audio", "sharechat_emotion", "sharechat_music"]


def test_every_file_is_a_recipe() -> None:
    """A recipe that is not registered could not be selected."""
    assert len(TITLES) == len(list(RECIPES_DIR.rglob("*.yaml"))) > 0


@pytest.mark.parametrize("name", TITLES)
def test_recipe_is_valid_and_has_a_title(name: str) -> None:
    """A wrong key in a recipe is merged by Hydra without a word; only the schema sees it."""
    assert load_config(f"recipe={name}").run_name
    assert TITLES[name].endswith((".", ")"))
    assert len(TITLES[name]) > 20


@pytest.mark.parametrize("name", PAPER)
def test_recipes_of_the_paper_are_full_size(name: str) -> None:
    """What the paper gives must not drift: L=17, K=1, 30,000 steps, 48 dialogues, bf16, LoRA on q and v, 8 GPUs."""
    config = load_config(f"recipe={name}")
    model, trainer = config.model, config.trainer
    assert (model.window, model.queries) == (17, 1)
    assert model.experts == ("whisper", "emotion2vec", "beats")
    assert model.lora.enabled
    assert model.lora.targets == ("q_proj", "v_proj")
    assert (trainer.max_steps, trainer.dialogues_per_step) == (30_000, 48)
    assert trainer.precision.startswith("bf16")
    assert (trainer.accelerator, trainer.devices, trainer.num_nodes) == ("gpu", 8, 1)
    assert config.data.input == "speech"


@pytest.mark.parametrize("trainer", ["ddp", "deepspeed"])
def test_recipes_run_under_either_strategy(trainer: str) -> None:
    """The micro-batches must still cut the step evenly."""
    assert load_config("recipe=sharechat_emotion", f"trainer={trainer}").trainer.devices == 8


def test_alpha_sweep_visits_the_ratios_of_the_paper() -> None:
    """Table 4 has seven rows; every point must be valid by itself."""
    hydra = compose("recipe=dailytalk_alpha_sweep", with_hydra=True).hydra
    ratios = [float(value) for value in str(hydra.sweeper.params["data.alpha"]).split(",")]
    assert hydra.mode == RunMode.MULTIRUN
    assert ratios == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0]
    for ratio in ratios:
        assert load_config("recipe=dailytalk_alpha_sweep", f"data.alpha={ratio}").data.alpha == ratio


def test_smoke_needs_nothing() -> None:
    """`python train.py` alone must run on a bare checkout."""
    config = load_config("recipe=smoke")
    assert missing(config) == []
    assert config.trainer.accelerator == "cpu"


def test_quickstart_needs_only_what_this_repository_makes_or_ships() -> None:
    """Whatever is missing for it can be had without a download."""
    assert all("make quickstart" in line or "ships with" in line for line in missing(load_config("recipe=quickstart")))


@pytest.mark.parametrize("data", ["sharechat_emotion_mini", "sharechat_mini"])
def test_the_small_sharechat_needs_only_what_this_repository_makes(data: str) -> None:
    """The same for what the synthesis pipeline makes."""
    lines = missing(load_config("recipe=sharechat_emotion_mini", f"data={data}"))
    assert all("make sharechat-mini makes it" in line for line in lines)

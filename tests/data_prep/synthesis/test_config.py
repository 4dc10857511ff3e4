"""Recipes, overrides, and the folder that keeps them."""

from pathlib import Path

import pytest

from data_prep.synthesis.config import ConfigError, check, compose, differing, known_keys, recipe_files, recipes
from data_prep.synthesis.folder import FolderError, RunFolder, enter

MINI = "recipe=sharechat_emotion_mini"


@pytest.mark.parametrize("name", [path.stem for path in recipe_files()])
def test_every_recipe_is_valid_and_has_a_title(name: str) -> None:
    """A shipped recipe that does not load is found by the first user."""
    assert check(compose([f"recipe={name}"]).dump()) == compose([f"recipe={name}"])
    assert len(recipes()[name]) > 20


def test_overrides_reach_any_depth() -> None:
    """What cannot be set from the command line is edited in the package."""
    config = compose(
        [MINI, "seed=5", "splits={train: 0.5, test: 0.5}", "execution.workers=3", "conversation.max_wer=0.1"]
    )
    assert (config.seed, config.splits, config.execution.workers) == (5, {"train": 0.5, "test": 0.5}, 3)
    assert config.conversation.max_wer == 0.1
    assert compose(["scripts=9"], config).seed == 5


def test_every_fault_is_named_at_once() -> None:
    """One fault a run is a long afternoon."""
    with pytest.raises(ConfigError) as caught:
        compose([MINI, "scrpts=3", "seed=many", "execution.executor=raay", "splits={train: 2}", "shard=4/4"])
    text = str(caught.value)
    assert "5 faults" in text
    assert "scrpts: unknown key; did you mean 'scripts'?" in text
    assert "execution.executor" in text
    assert "did you mean 'ray'?" in text
    assert "splits: are shares above 0 that sum to 1" in text
    assert "shard: is i/n with i from 0 to n-1" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "recipe: is missing"),
        (["recipe=sharechat_emotion_mni"], "did you mean 'sharechat_emotion_mini'"),
        ([MINI, "seed"], "seed: is not of the form key=value"),
        ([MINI, "seed={"], "is no value"),
        (["recipe=nowhere.yaml"], "neither a file"),
    ],
)
def test_what_is_no_config_is_explained(arguments: list[str], message: str) -> None:
    """None of it may end in a traceback."""
    with pytest.raises(ConfigError, match=message):
        compose(arguments)


def test_own_recipe_files(tmp_path: Path) -> None:
    """Users keep recipes beside their data."""
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nscripts: 3\n")
    assert compose([f"recipe={path}"]).name == "mine"
    path.write_text("- a list\n")
    with pytest.raises(ConfigError, match="holds no keys and values"):
        compose([f"recipe={path}"])


def test_known_keys_include_sections() -> None:
    """They are what a mistyped key is compared with."""
    assert {"scripts", "execution.workers", "writing.recipe", "mix.levels.speech"} <= set(known_keys())


def test_a_folder_keeps_to_its_config(tmp_path: Path) -> None:
    """Half a run in one config and half in another would be no run at all."""
    root = tmp_path / "run"
    enter(root, compose([MINI]))
    enter(root, compose([MINI, "execution.workers=1"]))
    assert RunFolder(root).config().execution.workers == 1
    with pytest.raises(FolderError, match="seed: 0 -> 1"):
        enter(root, compose([MINI, "seed=1"]))
    enter(root, compose([MINI, "seed=1"]), change=True)
    assert RunFolder(root).config().seed == 1
    more, fewer = compose([MINI, "seed=1", "scripts=1000"]), compose([MINI, "seed=1", "scripts=2"])
    enter(root, more)
    with pytest.raises(FolderError, match="scripts: 1000 -> 2"):
        enter(root, fewer)
    assert differing(more, fewer) == ["scripts: 1000 -> 2"]


def test_a_server_may_move_while_a_run_goes_on() -> None:
    """Addresses and patience change no result; a model and a limit do."""
    asr = '{{kind: http, server: {{endpoints: ["http://{}/v1"], timeout: {}}}}}'
    base = ["recipe=deepdialogue", "writing.models=[one, two]", "chat.model=one"]
    old = compose([*base, 'chat.endpoints_of={two: ["http://a/v1"]}', f"gates.recogniser={asr.format('a', 1)}"])
    new = compose([*base, 'chat.endpoints_of={two: ["http://b/v1"]}', f"gates.recogniser={asr.format('b', 2)}"])
    assert old != new
    assert differing(old, new) == []
    assert differing(old, compose(["gates.recogniser.model=large"], old)) == ["gates.recogniser.model: '' -> 'large'"]
    with pytest.raises(ConfigError, match="is not an address like"):
        compose([*base, "chat.endpoints_of={two: [nowhere]}"])


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    """A typing error in OUT must not fill a folder of photographs."""
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(FolderError, match="is not empty and holds no run"):
        enter(tmp_path, compose([MINI]))
    with pytest.raises(FolderError, match="holds no run; start one"):
        RunFolder(tmp_path).config()
    (tmp_path / "config.yaml").write_text("name: x\n")
    with pytest.raises(FolderError, match="scripts: is missing"):
        RunFolder(tmp_path).config()


def test_shards_part_the_scripts() -> None:
    """A script in two shards is paid twice, one in none is lost."""
    configs = [compose([MINI, f"shard={number}/3"]) for number in range(3)]
    assert all(sum(config.has(number) for config in configs) == 1 for number in range(20))

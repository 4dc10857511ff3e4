"""From a config to the stream: the sources that were asked for, in their shares."""

from pathlib import Path

import numpy as np
import pytest

from omnichat.build import build_data, build_prompt, materialise, source_weights, training_stores
from omnichat.config import ConfigError, RunConfig, load_config
from omnichat.data.made_up import made_up_dialogues
from omnichat.data.module import DialogueModule
from omnichat.dialogue import DataError
from omnichat.prompt import Prompt

BASE = ("recipe=smoke", "model=tiny", "data=base", "data.system=", "trainer.validate_every=0")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stores of 9, 5 and 4 dialogues."""
    folder = tmp_path_factory.mktemp("stores")
    for name, count in (("synthetic", 9), ("real", 5), ("music", 4)):
        made_up_dialogues(folder, count, split=name)
    return folder


@pytest.fixture(scope="module")
def prompt() -> Prompt:
    """Of the tiny model."""
    return build_prompt(load_config(*BASE, "data.synthetic=x"))


def sources(stores: Path, **weights: float) -> RunConfig:
    """A config that draws from these stores."""
    words = [
        word
        for name, weight in weights.items()
        for word in (f"++data.sources.{name}.path={stores / name}.jsonl", f"++data.sources.{name}.weight={weight}")
    ]
    return load_config(*BASE, "data.alpha=null", *words)


def drawn(data: DialogueModule, count: int) -> list[tuple[str, int]]:
    """Source and row of the first dialogues of a stream."""
    source, rows = data.dataset.mixture.draw(0, count)
    return [(data.dataset.names[one], row) for one, row in zip(source.tolist(), rows.tolist(), strict=True)]


def test_two_sources_are_alpha(stores: Path, prompt: Prompt) -> None:
    """The paper's mixture is a case of the general one: the same draws, in whatever unit the weights are given."""
    paths = (f"data.synthetic={stores}/synthetic.jsonl", f"data.real={stores}/real.jsonl")
    paper = drawn(build_data(load_config(*BASE, *paths, "data.alpha=0.25"), prompt, None), 2_000)
    for weights in ({"synthetic": 0.25, "real": 0.75}, {"synthetic": 1, "real": 3}):
        assert drawn(build_data(sources(stores, **weights), prompt, None), 2_000) == paper


def test_three_sources_are_drawn_in_their_shares(stores: Path, prompt: Prompt) -> None:
    """Weights are shares of the dialogues, and every dialogue of each source comes up."""
    data = build_data(sources(stores, music=2, synthetic=5, real=3), prompt, None)
    found = drawn(data, 20_000)
    for name, share, size in (("music", 0.2, 4), ("synthetic", 0.5, 9), ("real", 0.3, 5)):
        own = [row for source, row in found if source == name]
        assert abs(len(own) / 20_000 - share) < 4 * (share * (1 - share) / 20_000) ** 0.5
        assert set(own) == set(range(size))
    assert data.passes(100) == pytest.approx(
        dict(zip(("music", "synthetic", "real"), np.array(data.dataset.mixture.counts(800)) / (4, 9, 5), strict=True))
    )


def test_a_source_of_weight_0_keeps_its_place_and_need_not_be_there(stores: Path, prompt: Prompt) -> None:
    """As the synthetic source at alpha 0: the others are drawn as they are beside it."""
    config = sources(stores, absent=0, real=1, music=1)
    assert list(training_stores(config)) == ["real", "music"]
    assert source_weights(config) == {"absent": 0.0, "real": 0.5, "music": 0.5}
    data = build_data(config, prompt, None)
    assert {name for name, _ in drawn(data, 500)} == {"real", "music"}
    assert data.passes(100).keys() == {"real", "music"}  # "absent 0.0 times" would be said of what is not there


def test_the_order_of_sources_is_part_of_the_stream(stores: Path, prompt: Prompt) -> None:
    """Sources of one size and weight, the other way round, are another stream, and a resume must notice."""
    made_up_dialogues(stores, 4, split="other")
    one, other = (
        build_data(sources(stores, **dict.fromkeys(names, 1)), prompt, None).dataset.fingerprint()
        for names in (("music", "other"), ("other", "music"))
    )
    assert one != other


def test_faults_of_every_source_are_named(stores: Path, prompt: Prompt) -> None:
    """A mixture of many corpora must not be mended one corpus a start."""
    for name in ("broken", "worse"):
        (stores / f"{name}.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(DataError, match="2 faults in the data") as caught:
        build_data(sources(stores, broken=1, real=1, worse=1), prompt, None)
    assert f"{stores}/broken.jsonl:1" in str(caught.value)
    assert f"{stores}/worse.jsonl:1" in str(caught.value)


def test_a_budget_too_small_for_a_dialogue_is_named(stores: Path, prompt: Prompt) -> None:
    """Before the first step, with file and line."""
    config = load_config(
        *BASE, f"data.synthetic={stores}/music.jsonl", "trainer.dialogues_per_step=null", "trainer.tokens_per_step=20"
    )
    with pytest.raises(DataError, match=r"music.jsonl:\d: has \d+ tokens, a step may hold 20; .*\[over_budget\]"):
        build_data(config, prompt, None)


def test_the_first_dialogues_of_a_source_are_nested_subsets(stores: Path, prompt: Prompt) -> None:
    """A learning curve whose larger sets do not hold the smaller ones would compare different dialogues."""
    path = f"data.synthetic={stores}/synthetic.jsonl"
    found = {}
    for count in (3, 6, 9):
        data = build_data(load_config(*BASE, path, f"++data.first.synthetic={count}"), prompt, None)
        found[count] = {row for _, row in drawn(data, 500)}
        assert len(found[count]) == count
    assert found[3] < found[6] < found[9]
    with pytest.raises(DataError, match="too_few_dialogues"):
        build_data(load_config(*BASE, path, "++data.first.synthetic=10"), prompt, None)


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    """The library raises plain `Exception`, which no program takes for a fault of the user's files."""
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer\.json: cannot be read as a tokenizer \(EOF.*\[bad_tokenizer\]"):
        build_prompt(load_config(*BASE, "data.synthetic=x", f"model.llm.checkpoint={tmp_path}"))


def test_what_a_run_was_trained_with_is_not_made_anew(tmp_path: Path) -> None:
    """Refused for its other seed, a command had by then replaced the frozen weights and dialogues of a trained run."""
    config = load_config("recipe=smoke", "data.made_up=2", "data.val.mine=my.jsonl")
    made = materialise(config, tmp_path)
    assert made.data.val == {"val": f"{tmp_path}/made_up/val.jsonl", "mine": "my.jsonl"}, "one's own sets stay"
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for other, fault in (("seed=1", "seed: 0 there, 1 here"), ("data.made_up=3", "data.made_up: 2 there, 3 here")):
        with pytest.raises(ConfigError) as caught:
            materialise(load_config("recipe=smoke", "data.made_up=2", other), tmp_path)
        assert caught.value.faults[0] == fault
        assert "run_name=NAME" in caught.value.faults[1]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert materialise(config, tmp_path) == made
    (tmp_path.parent / "link").symlink_to(tmp_path)
    assert materialise(config, tmp_path.parent / "link") == made, "the run could not go on through a link to its folder"

"""Recipes as a config group, near matches, paths, and the command line as overrides."""

from pathlib import Path

import pytest

from omnichat.recipes import ROOT, compose, force, locate, nearest, read_overrides, register_recipes


def test_a_recipe_gets_its_title_and_its_run_name(tmp_path: Path) -> None:
    """Runs of different recipes must not share a folder by default."""
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "no_beats.yaml").write_text("# Without BEATs.\nmodel:\n  experts: [whisper]\n")
    (tmp_path / "named.yaml").write_text("# Named.\nrun_name: other\n")
    assert register_recipes(tmp_path) == {"ablation/no_beats": "Without BEATs.", "named": "Named."}
    assert compose("recipe=ablation/no_beats").run_name == "ablation_no_beats"
    assert compose("recipe=ablation/no_beats").model.experts == ["whisper"]
    assert compose("recipe=named").run_name == "other"


def test_the_command_line_has_the_last_word() -> None:
    """A recipe that beats an override would ignore what was typed."""
    config = compose("recipe=sharechat_emotion", "trainer=deepspeed", "trainer.max_steps=7", "run_name=mine")
    assert (config.trainer.strategy, config.trainer.max_steps, config.run_name) == ("deepspeed_stage_2", 7, "mine")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("data.alhpa", "data.alpha"),
        ("alpha", "data.alpha"),
        ("modle", "model"),
        ("model.lora.alhpa", "model.lora.alpha"),
        ("zzz", None),
    ],
)
def test_nearest_prefers_the_key_over_its_place(typed: str, meant: str | None) -> None:
    """`data.alpha` and `model.lora.alpha` end alike: the section must decide between them."""
    assert nearest(typed, ["model", "data", "data.alpha", "model.lora.alpha", "logger.wandb.mode"]) == meant


def test_locate_takes_the_current_folder_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that was completed by the shell must be found; one of the repository from anywhere."""
    monkeypatch.chdir(tmp_path)
    assert locate("conf/train.yaml") == ROOT / "conf" / "train.yaml"
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "train.yaml").touch()
    assert locate("conf/train.yaml").resolve() == tmp_path / "conf" / "train.yaml"
    assert locate(str(tmp_path / "absent")) == tmp_path / "absent"


def test_read_overrides_splits_sweeps_and_names_what_it_cannot_read() -> None:
    """A mistyped value in the middle of a sweep must not show after hours of its first runs."""
    alternatives, faults = read_overrides(
        [
            "-m",
            "recipe=smoke",
            "data.alpha=0,0.5",
            "model.experts=[whisper,beats]",
            "trainer=cpu,dpp",
            "nonsense",
            "~seed",
        ]
    )
    assert alternatives == [
        ["recipe=smoke"],
        ["data.alpha=0", "data.alpha=0.5"],
        ["model.experts=[whisper,beats]"],
        ["~seed"],
    ]
    assert [fault.partition(";")[0] for fault in faults] == [
        "trainer=dpp: no such trainer",
        "nonsense: is not of the form key=value",
    ]
    assert "did you mean 'ddp'?" in faults[0]


def test_globs_select_recipes() -> None:
    """`-m 'recipe=glob(sharechat_*,exclude=*_mini)'` runs the three of them."""
    alternatives, faults = read_overrides(["recipe=glob(sharechat_*,exclude=*_mini)"])
    assert alternatives == [["recipe=sharechat_audio", "recipe=sharechat_emotion", "recipe=sharechat_music"]]
    assert faults == []


def test_force_leaves_groups_and_prefixed_keys_alone() -> None:
    """Hydra refuses a forced group."""
    assert force("data.alhpa=1") == "++data.alhpa=1"
    for override in ("recipe=smoke", "model=tiny", "hydra/launcher=basic", "+data.val.a=b", "~seed"):
        assert force(override) == override

"""`init_from`: a run that begins with another run's weights, and is otherwise new."""

from pathlib import Path

import pytest
import torch

from omnichat.checkpoint import CheckpointError, load_checkpoint
from omnichat.config import ConfigError, load_config
from omnichat.training.fit import fit

BASE = ("recipe=smoke", "trainer.max_steps=2", "trainer.save_every=0", "trainer.validate_every=0")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("pretrained")
    assert fit(load_config(*BASE), folder) == 0
    return folder


def test_begins_with_the_weights_and_nothing_else(pretrained: Path, tmp_path: Path) -> None:
    """With a learning rate of zero the weights stay those it began with; steps and moments are its own."""
    still = ("trainer.learning_rate=1e-30", "trainer.weight_decay=0.0", "preflight=off")
    assert fit(load_config(*BASE, *still, f"init_from={pretrained}"), tmp_path / "a") == 0
    before, after = (load_checkpoint(folder / "checkpoints" / "2") for folder in (pretrained, tmp_path / "a"))
    for group in ("mixformer", "adapter"):
        for name, tensor in before.tensors[group].items():
            torch.testing.assert_close(after.tensors[group][name], tensor, rtol=0, atol=1e-12)
    moments = before.tensors["optimizer"]
    assert any(not torch.equal(after.tensors["optimizer"][name], tensor) for name, tensor in moments.items())


def test_goes_on_from_its_own_checkpoint(pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Started again it would otherwise lose what it had learnt itself."""
    config = load_config(*BASE, f"init_from={pretrained / 'checkpoints' / '2'}")
    assert fit(config, tmp_path) == 0
    assert "beginning with the weights of" in capsys.readouterr().out
    assert fit(config, tmp_path) == 0
    assert "going on from" in capsys.readouterr().out


def test_another_beginning_is_another_run(pretrained: Path, tmp_path: Path) -> None:
    """Two experiments in one folder would pass for one."""
    assert fit(load_config(*BASE), tmp_path) == 0
    with pytest.raises(ConfigError, match="init_from: null there"):
        fit(load_config(*BASE, f"init_from={pretrained}"), tmp_path)


@pytest.mark.parametrize("where", ["nowhere", "pretrained"])
def test_weights_that_do_not_fit_are_refused(where: str, pretrained: Path, tmp_path: Path) -> None:
    """The message names what differs, before anything is trained."""
    path = tmp_path / "nowhere" if where == "nowhere" else pretrained
    overrides = () if where == "nowhere" else ("model.window=5",)
    with pytest.raises(CheckpointError, match="nowhere" if where == "nowhere" else r"model\.window: 17 there, 5 here"):
        fit(load_config(*BASE, *overrides, f"init_from={path}"), tmp_path / "run")

"""What preflight finds, and that it leaves no trace."""

from pathlib import Path
from typing import Any

import pytest
import torch

from omnichat.batch import pack
from omnichat.checkpoint import load_checkpoint, tensors_sha256
from omnichat.config import load_config
from omnichat.models.omnichat import OmniChat
from omnichat.training.fit import fit
from omnichat.training.guard import TrainingError

QUICK = ("recipe=smoke", "data.made_up=16", "trainer.validate_every=0", "trainer.max_steps=2", "trainer.micro_batch=4")


def trained(run_dir: Path) -> dict[str, str]:
    """Hashes of weights and moments after the last step."""
    tensors = load_checkpoint(run_dir / "checkpoints" / "2").tensors
    return {stem: tensors_sha256(group) for stem, group in tensors.items()}


def test_the_weights_do_not_depend_on_it(tmp_path: Path) -> None:
    """Gradients, moments or random numbers left over from a trial would make every run another one."""
    for preflight in ("auto", "off"):
        fit(load_config(*QUICK, f"preflight={preflight}"), tmp_path / preflight)
    assert trained(tmp_path / "auto") == trained(tmp_path / "off")


def test_only_stops_before_the_first_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is for looking: nothing is trained or saved, and the facts that decide are printed."""
    assert fit(load_config(*QUICK, "preflight=only"), tmp_path) == 0
    printed = capsys.readouterr().out
    for fact in (
        "1 x CPU",
        f"torch {torch.__version__}",
        "disk: a checkpoint takes",
        "steps 1 to 2, 16 dialogues",
        "about",
    ):
        assert fact in printed
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_the_largest_micro_batch_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typical one would fit where the worst, hours later, does not."""
    forward, seen = OmniChat.forward, []

    def noted(self: OmniChat, batch: Any) -> Any:
        seen.append(len(batch.ids))
        return forward(self, batch)

    monkeypatch.setattr(OmniChat, "forward", noted)
    fit(load_config(*QUICK, "trainer.max_steps=4"), tmp_path)
    assert seen[0] == seen[1] >= max(seen[2:])


def test_a_full_disk_is_named_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours of training must not end in a save that fails."""
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("omnichat.training.preflight.shutil.disk_usage", lambda path: usage)
    with pytest.raises(TrainingError, match=r"a checkpoint takes .*10 B are free.*hydra.run.dir"):
        fit(load_config(*QUICK), tmp_path)
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_steps_by_tokens_have_a_largest_micro_batch_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There the number of dialogues is not given."""
    overrides = ("trainer.dialogues_per_step=null", "trainer.tokens_per_step=2000", "preflight=only")
    assert fit(load_config(*QUICK, *overrides), tmp_path) == 0
    assert "largest micro-batch: " in capsys.readouterr().out


def test_pack_of_the_longest(tmp_path: Path) -> None:
    """Longest first, over all sources."""
    from omnichat import build

    config = build.materialise(load_config(*QUICK), tmp_path)
    data = build.build_data(config, build.build_prompt(config), None)
    lengths = [len(example.tokens.ids) for example in data.dataset.longest(6)]
    everything = sorted((int(n) for _, part in data.dataset.drawn_scans() for n in part.lengths), reverse=True)
    assert lengths == everything[:6]
    assert len(pack(data.dataset.longest(2)).ids) == sum(everything[:2])

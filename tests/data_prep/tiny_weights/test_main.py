"""The command: everything once, in a few steps; and the weights that ship."""

import json
from pathlib import Path

import pytest
import torch

from data_prep.synthesis.backends.embedded.espeak import Espeak
from data_prep.tiny_weights.__main__ import PARTS, main
from omnichat.models.encoders import load_encoder
from omnichat.models.llm import load_llm

SHIPPED = Path(__file__).parents[3] / "checkpoints" / "tiny"
FILES = {"whisper": "whisper.pt", "emotion2vec": "emotion2vec", "beats": "beats.pt"}


def check(folder: Path) -> None:
    for name, file in FILES.items():
        options = {"context": "trim"} if name == "whisper" else {}
        frames, _ = load_encoder(name, folder / file, **options)(torch.randn(1, 16_000), torch.tensor([16_000]))
        assert frames.isfinite().all()
    assert load_llm(folder / "llama").config.num_hidden_layers == 4


def test_everything_once(espeak: Espeak, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a part that cannot be trained, written or loaded, and scores that are printed but not kept."""
    assert main([str(tmp_path), "--scale", "0.001"]) == 0
    check(tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores) == set(PARTS)
    printed = capsys.readouterr().out
    assert all(json.dumps(scores[part]) in printed for part in PARTS)


def test_one_part_keeps_the_others_scores(tmp_path: Path) -> None:
    """Would catch a remade part that loses what is known of the rest, or that needs the speech of the others."""
    (tmp_path / "scores.json").write_text('{"beats": {"seen voices": {"sound": 0.9}}}')
    assert main([str(tmp_path), "--only", "llama", "--scale", "0.001"]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores) == {"beats", "llama"}
    assert not (tmp_path / "beats.pt").exists()


@pytest.mark.parametrize("arguments", [["--scale", "0"], ["--seed", "-1"], ["--only", "bert"]])
def test_wrong_usage(tmp_path: Path, arguments: list[str]) -> None:
    """Would catch a wrong option that starts 40 minutes of training."""
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), *arguments])
    assert stopped.value.code == 2


def test_the_shipped_weights_load_and_are_small() -> None:
    """Would catch shipped weights that our loaders refuse, or a repository grown by more than 6 MB."""
    check(SHIPPED)
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) <= 6_000_000

"""`python -m data_prep.convert_encoder`: an expert's file as safetensors, or why not."""

from pathlib import Path

import pytest

from data_prep.convert_encoder import NAMES, main
from omnichat.models.encoders import ENCODERS, load_encoder
from tests.models.encoders.conftest import GOLDEN


def test_what_is_converted_loads(tmp_path: Path) -> None:
    """A command that knows fewer experts than the package leaves the rest as pickles."""
    assert tuple(ENCODERS) == NAMES
    assert main(["beats", str(GOLDEN / "beats/beats_pretrained.pt"), str(tmp_path / "out")]) == 0
    assert load_encoder("beats", tmp_path / "out").name == "beats"


def test_usage_and_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage exits with 2 and the names; a bad file with 1 and its name."""
    with pytest.raises(SystemExit, match="2"):
        main(["bats", "a", "b"])
    assert "whisper" in capsys.readouterr().err
    assert main(["beats", str(tmp_path / "none.pt"), str(tmp_path / "out")]) == 1
    assert "none.pt" in capsys.readouterr().err

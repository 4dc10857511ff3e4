"""Whisper with its decoder, from openai-whisper's files: what cannot be used is named."""

from pathlib import Path
from typing import Any

import pytest
import torch

from omnichat.models.encoders import EncoderError
from omnichat.models.whisper_checkpoint import load_whisper

GOLDEN = Path(__file__).parents[1] / "golden/whisper"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_state_dict": None}, "looks like an openai-whisper checkpoint"),
        ({"dims": [1]}, "looks like an openai-whisper checkpoint"),
        ({"dims": {"n_mels": 80}}, "its dims lack n_audio_ctx, n_audio_head"),
    ],
)
def test_a_file_that_is_no_whisper_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Prevents an UnboundLocalError in place of what is wrong."""
    torch.save(torch.load(GOLDEN / "whisper80.pt", weights_only=True) | change, tmp_path / "odd.pt")
    with pytest.raises(EncoderError, match=message):
        load_whisper(tmp_path / "odd.pt", str(GOLDEN / "whisper80_hf"), "cpu")

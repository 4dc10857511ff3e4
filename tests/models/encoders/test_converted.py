"""Upstream's pickles saved again as safetensors: the same frames, and nothing in the folder that could run code."""

import json
from pathlib import Path

import pytest
import torch

from omnichat.models.encoders import EncoderError, load_encoder
from omnichat.models.encoders.converted import save_converted
from tests.models.encoders.conftest import EXPERTS, GOLDEN


@pytest.mark.parametrize("expert", EXPERTS)
def test_the_same_frames(expert: str, tmp_path: Path) -> None:
    """A lost weight, option or size would give other frames; a pickle left in the folder would defeat its purpose."""
    name, checkpoint, options = EXPERTS[expert]
    save_converted(load_encoder(name, GOLDEN / checkpoint), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.json", "encoder.safetensors"]
    waves, lengths = (
        torch.randn(2, 8_000, generator=torch.Generator().manual_seed(0)) / 10,
        torch.tensor([8_000, 5_000]),
    )
    expected, expected_lengths = load_encoder(name, GOLDEN / checkpoint, **options)(waves, lengths)
    found, found_lengths = load_encoder(name, tmp_path, **options)(waves, lengths)
    assert torch.equal(found, expected)
    assert torch.equal(found_lengths, expected_lengths)


@pytest.mark.parametrize(
    ("name", "checkpoint", "options"),
    [
        *(("beats", "beats/beats_pretrained.pt", {"layout": layout}) for layout in ("tokens", "time")),
        *(("whisper", "whisper/whisper80.pt", {"context": context}) for context in ("pad30", "trim")),
    ],
)
def test_options_are_obeyed_and_kept(name: str, checkpoint: str, options: dict[str, str], tmp_path: Path) -> None:
    """Another layout has the same shape: it would be trained on, and kept in a feature cache, under a wrong name."""
    save_converted(load_encoder(name, GOLDEN / checkpoint), tmp_path)
    original, found = (load_encoder(name, path, **options) for path in (GOLDEN / checkpoint, tmp_path))
    assert found.options == original.options == options
    clip = torch.randn(1, 8_000, generator=torch.Generator().manual_seed(0)) / 10, torch.tensor([8_000])
    assert torch.equal(found(*clip)[0], original(*clip)[0])


def test_labels_of_a_fine_tuned_beats(tmp_path: Path) -> None:
    """Classes without names cannot be read."""
    encoder = load_encoder("beats", GOLDEN / "beats/beats_finetuned.pt")
    save_converted(encoder, tmp_path)
    assert getattr(load_encoder("beats", tmp_path), "labels") == getattr(encoder, "labels")  # noqa: B009


def test_the_wrong_encoder_and_damage_are_named(tmp_path: Path) -> None:
    """A folder of another encoder, and a file cut short, give one clear error each."""
    save_converted(load_encoder("beats", GOLDEN / "beats/beats_pretrained.pt"), tmp_path)
    with pytest.raises(EncoderError, match="holds 'beats', not whisper"):
        load_encoder("whisper", tmp_path)
    weights = tmp_path / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000])
    with pytest.raises(EncoderError, match=r"encoder\.safetensors"):
        load_encoder("beats", tmp_path)


@pytest.mark.parametrize(
    "change", [{"labels": 5}, {"config": {"conv_layers": [[1, 2]]}}, {"config": {"conv_layers": 7}}]
)
def test_a_description_that_is_none_is_named(change: dict[str, object], tmp_path: Path) -> None:
    """A file that was edited by hand gives no traceback."""
    save_converted(load_encoder("emotion2vec", GOLDEN / "emotion2vec/base"), tmp_path)
    file = tmp_path / "encoder.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(EncoderError, match=r"encoder\.json: "):
        load_encoder("emotion2vec", tmp_path)

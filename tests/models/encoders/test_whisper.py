"""Whisper's encoder against openai-whisper, in both contexts and from both file formats."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from omnichat.models.encoders import EncoderError, load_encoder
from omnichat.models.encoders.whisper import WhisperDims, WhisperEncoderNet, sinusoids

CASES = ["whisper80/w1_1000ms", "whisper80/w2_3370ms", "whisper80/w4_562ms", "whisper128/w2_3370ms"]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("context", "array"), [("pad30", "pad30"), ("trim", "varlen")])
def test_matches_upstream(case, golden, waves, name, context, array) -> None:
    """Prevents any difference from openai's encoder (pad30) and from SLAM-LLM's on the clip alone (trim)."""
    tolerances, arrays = case(name)
    encoder = load_encoder("whisper", golden / tolerances["checkpoint"], context=context)
    wave = waves[name.split("/")[1]]
    frames, lengths = encoder(wave[None], torch.tensor([len(wave)]))
    count = (len(wave) // 160 + 1) // 2
    assert lengths.tolist() == [count]
    expected = torch.from_numpy(arrays[array])[:count]
    torch.testing.assert_close(frames[0], expected, atol=tolerances["atol_from_golden_mel"], rtol=0)


def test_matches_upstream_from_its_mel(case, golden) -> None:
    """Prevents an encoder that fits only our own log-mel; and looks at the frames of the padding too."""
    tolerances, arrays = case("whisper80/w1_1000ms")
    mel = torch.from_numpy(case("logmel/w1_1000ms")[1]["mel80_pad30"])[None]
    net = load_encoder("whisper", golden / tolerances["checkpoint"]).net
    frames, lengths = net.encode(mel, torch.tensor([3000]))
    assert lengths.tolist() == [1500]
    expected = torch.from_numpy(arrays["pad30"])[None]
    torch.testing.assert_close(frames, expected, atol=tolerances["atol_from_golden_mel"], rtol=0)


@pytest.mark.parametrize("layout", ["WhisperModel", "WhisperForConditionalGeneration", "sharded"])
def test_hugging_face_folders_give_the_same_frames(golden, batch, tmp_path, layout) -> None:
    """Prevents a wrong weight name in a Hugging Face folder, bare, wrapped or in shards: bit-equal to the .pt."""
    folder = tmp_path / "hf"
    shutil.copytree(golden / "whisper/whisper80_hf", folder)
    weights = load_file(folder / "model.safetensors")
    if layout == "WhisperForConditionalGeneration":
        save_file({f"model.{name}": tensor for name, tensor in weights.items()}, folder / "model.safetensors")
    if layout == "sharded":
        (folder / "model.safetensors").unlink()
        names = sorted(weights)
        shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
        for file, keys in shards.items():
            save_file({key: weights[key] for key in keys}, folder / file)
        index = {"weight_map": {key: file for file, keys in shards.items() for key in keys}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    expected = load_encoder("whisper", golden / "whisper/whisper80.pt", context="trim")(*batch)[0]
    assert torch.equal(load_encoder("whisper", folder, context="trim")(*batch)[0], expected)


@pytest.mark.parametrize(
    ("key", "value"), [("encoder_ffn_dim", 64), ("activation_function", "relu"), ("max_source_positions", 750)]
)
def test_a_hugging_face_config_that_is_another_network_is_refused(golden, tmp_path, key, value) -> None:
    """Prevents a config that this encoder does not obey from giving other frames in silence."""
    folder = tmp_path / "hf"
    shutil.copytree(golden / "whisper/whisper80_hf", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(EncoderError, match=str(value)):
        load_encoder("whisper", folder)


def test_context_is_another_function(golden, batch) -> None:
    """Prevents `trim` and `pad30` from being one and the same: attention to the padding changes every frame."""
    pad30, trim = (
        load_encoder("whisper", golden / "whisper/whisper80.pt", context=context)(*batch)[0]
        for context in ("pad30", "trim")
    )
    assert pad30.shape == trim.shape
    assert (pad30 - trim).abs().mean() > 0.1


def test_positions_are_whispers() -> None:
    """Prevents wrong periods in a network trained from scratch (files bring their own): 1, ..., 10,000 radians."""
    table = sinusoids(1500, 4)
    angles = torch.arange(1500.0)[:, None] * torch.tensor([1.0, 1e-4])
    expected = torch.cat([angles.sin(), angles.cos()], dim=1)
    torch.testing.assert_close(table, expected, atol=1e-4, rtol=0)


def test_more_than_30_s_at_once_is_refused() -> None:
    """Prevents a network that silently cuts what its positions do not reach."""
    net = WhisperEncoderNet(WhisperDims(n_mels=80, n_audio_state=8, n_audio_head=2, n_audio_layer=1))
    with pytest.raises(ValueError, match="30 s"):
        net(torch.zeros(1, 480_001), torch.tensor([480_001]))

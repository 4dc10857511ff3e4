"""BEATs against unilm's code: pre-trained, fine-tuned, pre-norm."""

import numpy as np
import pytest
import torch

from omnichat.models.encoders import EncoderError, load_encoder
from omnichat.models.encoders.beats import BeatsConfig, BeatsEncoder, BeatsNet, relative_buckets

VARIANTS = ["beats_pretrained", "beats_finetuned", "beats_prenorm"]
CLIPS = ["w1_1000ms", "w2_3370ms", "w4_562ms"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("clip", CLIPS)
def test_matches_upstream(case, golden, waves, variant, clip) -> None:
    """Prevents any difference from upstream's features, from the waveform and from upstream's own filterbank."""
    tolerances, arrays = case(f"{variant}/{clip}")
    encoder = load_encoder("beats", golden / tolerances["checkpoint"])
    expected = torch.from_numpy(arrays["features"])
    frames, lengths = encoder(waves[clip][None], torch.tensor([len(waves[clip])]))
    assert lengths.tolist() == [len(expected)]
    assert (frames[0] - expected).abs().mean() <= tolerances["mean_atol"]
    torch.testing.assert_close(frames[0], expected, atol=tolerances["atol"], rtol=0)
    fbank = torch.from_numpy(case(f"fbank/{clip}")[1]["fbank_beats"])[None]
    frames, _ = encoder.net.encode(fbank, torch.tensor([fbank.shape[1]]))
    torch.testing.assert_close(frames[0], expected, atol=tolerances["atol_from_golden_fbank"], rtol=0)


def test_fbank_is_scaled_as_upstream(case, waves) -> None:
    """Prevents a wrong mean or deviation, to which the patches' LayerNorm is almost blind."""
    tolerances, arrays = case("fbank/w1_1000ms")
    fbank, lengths = BeatsNet(BeatsConfig(encoder_layers=1)).features(waves["w1_1000ms"][None], torch.tensor([16_000]))
    assert lengths.tolist() == [98]
    difference = np.abs(fbank[0].numpy() - arrays["fbank_beats"])
    assert difference.max() <= tolerances["atol_beats"]
    assert difference.mean() <= tolerances["mean_atol_beats"]


def test_probabilities_match_upstream_in_a_batch(case, golden, batch) -> None:
    """Prevents a predictor averaged over padding, and a fine-tuned file that gives probabilities for features."""
    encoder = load_encoder("beats", golden / "beats/beats_finetuned.pt")
    assert isinstance(encoder, BeatsEncoder)
    assert encoder.labels == tuple(f"/m/t0{index}x" for index in range(7))
    probabilities = encoder.probabilities(*batch)
    for row, clip in enumerate(CLIPS):
        expected = torch.from_numpy(case(f"beats_finetuned/{clip}")[1]["probs"])
        torch.testing.assert_close(probabilities[row], expected, atol=1e-4, rtol=0)


def test_probabilities_need_a_fine_tuned_checkpoint(golden, batch) -> None:
    """Prevents a traceback where a pre-trained file is asked for classes it lacks."""
    with pytest.raises(ValueError, match="not fine-tuned"):
        load_encoder("beats", golden / "beats/beats_pretrained.pt").probabilities(*batch)


@pytest.mark.parametrize("found", [{"0": "a", "10": "b"}, {0: "a", 2: "b"}, ["a"], 5])
def test_labels_that_do_not_name_every_class_are_refused(golden, tmp_path, found) -> None:
    """Prevents names beside the wrong classes: keys that are texts would be sorted as 0, 10, 2."""
    contents = torch.load(golden / "beats/beats_finetuned.pt", weights_only=True)
    torch.save(contents | {"label_dict": found}, tmp_path / "odd.pt")
    with pytest.raises(EncoderError, match=r"odd\.pt: its label_dict does not name the classes 0 to 6"):
        load_encoder("beats", tmp_path / "odd.pt")


def test_layout_time_is_the_mean_of_the_bands(golden, batch) -> None:
    """Prevents a mean across time steps: token 8 t + f is band f of step t; the rate stays 50 a second."""
    tokens, lengths = load_encoder("beats", golden / "beats/beats_pretrained.pt")(*batch)
    steps, step_lengths = load_encoder("beats", golden / "beats/beats_pretrained.pt", layout="time")(*batch)
    assert torch.equal(step_lengths, lengths)
    assert steps.shape == tokens.shape
    for step in range(tokens.shape[1] // 8):
        mean = tokens[:, 8 * step : 8 * step + 8].mean(dim=1, keepdim=True)
        torch.testing.assert_close(steps[:, 8 * step : 8 * step + 8], mean.expand(-1, 8, -1))


def test_relative_buckets() -> None:
    """Prevents swapped sides and a wrong logarithm, with the published sizes: 320 buckets up to distance 800."""
    buckets = relative_buckets(1001, 320, 800)
    assert buckets.shape == (2001,)
    at = {distance: int(buckets[1000 + distance]) for distance in (-1000, -800, -79, -1, 0, 1, 79, 80, 253, 799, 1000)}
    # Exact up to 79; then 80 + 80 ln(d / 80) / ln 10 rounded down, at most 159; 160 more where the key comes after.
    assert at == {
        -1000: 159, -800: 159, -79: 79, -1: 1, 0: 0, 1: 161, 79: 239, 80: 240, 253: 280, 799: 319, 1000: 319,
    }  # fmt: skip


def test_config_is_obeyed(golden, tmp_path) -> None:
    """Prevents defaults in place of the file's `cfg`: without deep_norm upstream's embeddings are noise."""
    contents = torch.load(golden / "beats/beats_pretrained.pt", weights_only=True)
    wave = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0)), torch.tensor([16_000])
    expected = load_encoder("beats", golden / "beats/beats_pretrained.pt")(*wave)[0]
    for key, value in (("deep_norm", False), ("max_distance", 1280), ("activation_fn", "relu")):
        torch.save(contents | {"cfg": contents["cfg"] | {key: value}}, tmp_path / "other.pt")
        changed = load_encoder("beats", tmp_path / "other.pt")(*wave)[0]
        assert (changed - expected).abs().mean() > 1e-3, key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_fn": "glu"}, "activation_fn 'glu' is none of gelu"),
        ({"encoder_attention_heads": 5}, "no multiple"),
        ({"layer_norm_first": True}, "exclude each other"),
        ({"encoder_layers": "two"}, "`encoder_layers` is 'two'"),
        ({"input_patch_size": 8}, "patches of 8"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(golden, tmp_path, change, message) -> None:
    """Prevents a traceback from inside torch where a `cfg` makes no sense."""
    contents = torch.load(golden / "beats/beats_pretrained.pt", weights_only=True)
    torch.save(contents | {"cfg": contents["cfg"] | change}, tmp_path / "odd.pt")
    with pytest.raises(EncoderError, match=message):
        load_encoder("beats", tmp_path / "odd.pt")

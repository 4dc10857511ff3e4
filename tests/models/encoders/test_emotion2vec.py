"""emotion2vec against FunASR's code, in the layouts of base and plus."""

import json
import shutil

import pytest
import torch
import yaml
from torch.nn import functional as F

from omnichat.models.encoders import EncoderError, load_encoder
from omnichat.models.encoders.emotion2vec import Emotion2vecConfig, _Convolutions, alibi_slopes, normalize


@pytest.mark.parametrize("variant", ["base", "plus"])
@pytest.mark.parametrize("clip", ["w1_1000ms", "w2_3370ms", "w4_562ms"])
def test_matches_upstream(case, golden, waves, variant, clip) -> None:
    """Prevents any difference from FunASR's features: normalisation, positions, ALiBi, extra tokens, norms."""
    tolerances, arrays = case(f"emotion2vec_{variant}/{clip}")
    encoder = load_encoder("emotion2vec", golden / "emotion2vec" / variant)
    frames, lengths = encoder(waves[clip][None], torch.tensor([len(waves[clip])]))
    expected = torch.from_numpy(arrays["features"])
    assert lengths.tolist() == [len(expected)]
    assert (frames[0] - expected).abs().mean() <= tolerances["mean_atol"]
    torch.testing.assert_close(frames[0], expected, atol=tolerances["atol"], rtol=0)
    normalised = normalize(waves[clip][None], torch.tensor([len(waves[clip])]))[0, :400]
    torch.testing.assert_close(normalised, torch.from_numpy(arrays["source_normalized"]), atol=1e-6, rtol=0)


def test_convolutions_as_products() -> None:
    """Prevents a GPU from computing other frames: taps and channels in another order, a stride or a norm left out."""
    torch.manual_seed(0)
    convolutions = _Convolutions(Emotion2vecConfig(conv_layers=((16, 10, 5), (24, 3, 2), (8, 2, 2))).conv_layers)
    wave = torch.randn(2, 3_001)
    with torch.no_grad():
        torch.testing.assert_close(convolutions.as_products(wave[:, None]), convolutions(wave))


def test_normalisation_is_over_the_clip_alone() -> None:
    """Prevents statistics over the padding: each row is layer_norm of its own samples, zero beyond, silence zero."""
    waves = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0)) + 0.5
    waves[2] = 0.0
    normalised = normalize(waves, torch.tensor([1000, 640, 1000]))
    torch.testing.assert_close(normalised[1, :640], F.layer_norm(waves[1, :640], (640,)))
    assert not normalised[1, 640:].any()
    assert not normalised[2].any()


def test_a_negative_scale_of_positions_is_none(golden, waves) -> None:
    """Prevents attention that grows with distance, where training left such a scale: upstream clamps it at zero."""
    clip = waves["w4_562ms"][None], torch.tensor([len(waves["w4_562ms"])])
    found = []
    for scale in (-1.0, 0.0, 1.0):
        encoder = load_encoder("emotion2vec", golden / "emotion2vec/base")
        encoder.net.modality_encoders["AUDIO"].alibi_scale.data.fill_(scale)
        found.append(encoder(*clip)[0])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


def test_alibi_slopes() -> None:
    """Prevents a wrong rule for heads that are no power of two: base has 12, plus 16."""
    assert alibi_slopes(4) == [2**-2, 2**-4, 2**-6, 2**-8]
    assert alibi_slopes(6) == [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]
    assert alibi_slopes(12) == pytest.approx([2**-k for k in range(1, 9)] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5])
    assert len(alibi_slopes(16)) == 16


def _copy(golden, tmp_path, **changes):
    folder = tmp_path / "model"
    shutil.copytree(golden / "emotion2vec/base", folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for key, value in changes.items():
        audio = config["model_conf"]["modalities"]["audio"]
        (audio if key in audio else config["model_conf"])[key] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_other_forms_of_the_same_folder(golden, batch, tmp_path) -> None:
    """Prevents refusing what is out there: no configuration.json, an exponent that YAML reads as text, an old scale."""
    folder = _copy(golden, tmp_path, norm_eps="1e-05")
    (folder / "configuration.json").unlink()
    contents = torch.load(folder / "model.pt", weights_only=True)
    key = "modality_encoders.AUDIO.alibi_scale"
    contents["model"][key] = contents["model"][key][0]
    torch.save(contents, folder / "model.pt")
    expected = load_encoder("emotion2vec", golden / "emotion2vec/base")(*batch)[0]
    assert torch.equal(load_encoder("emotion2vec", folder)(*batch)[0], expected)


def test_files_named_by_configuration_json(golden, batch, tmp_path) -> None:
    """Prevents reading model.pt where configuration.json names another file."""
    folder = _copy(golden, tmp_path)
    (folder / "model.pt").rename(folder / "weights.pt")
    text = (folder / "configuration.json").read_text().replace("model.pt", "weights.pt")
    (folder / "configuration.json").write_text(text)
    load_encoder("emotion2vec", folder)(*batch)


def test_the_teachers_weights_are_passed_over(golden, batch, tmp_path) -> None:
    """Prevents refusing a file of fairseq's trainer: data2vec 2.0 keeps its teacher among the weights."""
    folder = _copy(golden, tmp_path)
    contents = torch.load(folder / "model.pt", weights_only=True)
    contents["model"]["_ema"] = {"0.norm1.weight": torch.zeros(3)}
    torch.save(contents, folder / "model.pt")
    expected = load_encoder("emotion2vec", golden / "emotion2vec/base")(*batch)[0]
    assert torch.equal(load_encoder("emotion2vec", folder)(*batch)[0], expected)


@pytest.mark.parametrize("metas", [None, [], "model.pt", {"config": 1}, {"init_param": ["model.pt"]}])
def test_a_configuration_json_that_names_no_files_is_refused(golden, tmp_path, metas) -> None:
    """Prevents a traceback for a folder whose description was edited by hand."""
    folder = _copy(golden, tmp_path)
    (folder / "configuration.json").write_text(json.dumps({"file_path_metas": metas}))
    with pytest.raises(EncoderError, match=r"configuration\.json: its file_path_metas do not name"):
        load_encoder("emotion2vec", folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_norm_first": True}, "layer_norm_first"),
        ({"extractor_mode": "default"}, "extractor_mode"),
        ({"num_alibi_heads": 2}, "num_alibi_heads 2"),
        ({"embed_dim": 33}, "embed_dim 33 is no multiple"),
        ({"feature_encoder_spec": "[(16, 10, 5)] + [(16, 3, 2)]"}, "sees 20 samples every 10"),
        ({"feature_encoder_spec": "[(16, 10)]"}, "no list of"),
        ({"feature_encoder_spec": "[(16., 10, 5)] + [(16, 3, 2)] * 4 + [(16, 2, 2)] * 2"}, "no list of"),
        ({"feature_encoder_spec": "[(16, 10, 5)] * 999_999_999_999"}, "sees"),
        ({"conv_pos_groups": 0}, "describes no network"),
        ({"num_heads": 0}, "by zero"),
    ],
)
def test_a_config_that_is_another_network_is_refused(golden, tmp_path, changes, message) -> None:
    """Prevents a setting that is not written here from being ignored in silence."""
    with pytest.raises(EncoderError, match=message):
        load_encoder("emotion2vec", _copy(golden, tmp_path, **changes))


def test_the_convolutions_are_not_evaluated_as_code(golden, tmp_path) -> None:
    """Prevents upstream's eval(): a config.yaml must not run."""
    mark = tmp_path / "ran"
    folder = _copy(golden, tmp_path, feature_encoder_spec=f"[__import__('pathlib').Path({str(mark)!r}).touch()]")
    with pytest.raises(EncoderError, match="no list of"):
        load_encoder("emotion2vec", folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "model: Emotion2vec\n",
        "[1, 2]",
        "a: [",
        "model_conf: {modalities: {text: {}}}",
        "model_conf: {modalities: 5}",
        "2026-13-45",
    ],
)
def test_a_config_that_is_not_emotion2vecs_is_refused(golden, tmp_path, text) -> None:
    """Prevents a traceback for another model's config.yaml."""
    folder = _copy(golden, tmp_path)
    (folder / "config.yaml").write_text(text)
    with pytest.raises(EncoderError, match=r"config\.yaml"):
        load_encoder("emotion2vec", folder)

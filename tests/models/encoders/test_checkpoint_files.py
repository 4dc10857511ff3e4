"""Checkpoints that cannot be used: one error that names the file, the fault and the cure; nothing from them runs."""

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from random import Random

import pytest
import torch

from omnichat.models.encoders import EncoderError, load_encoder

FILES = {"whisper": "whisper/whisper80.pt", "beats": "beats/beats_pretrained.pt", "emotion2vec": "emotion2vec/base"}
WEIGHTS = {"whisper": "model_state_dict", "beats": "model", "emotion2vec": "model"}


@pytest.fixture(params=FILES)
def copied(request, golden, tmp_path) -> tuple[str, Path, Path]:
    """(name, what load_encoder is given, its .pt file) of each encoder, copied so that a test may spoil it."""
    name = request.param
    source, target = golden / FILES[name], tmp_path / Path(FILES[name]).name
    if source.is_dir():
        shutil.copytree(source, target)
        return name, target, target / "model.pt"
    shutil.copyfile(source, target)
    return name, target, target


def _message(name: str, checkpoint: Path, **options: str) -> str:
    with pytest.raises(EncoderError) as caught:
        load_encoder(name, checkpoint, **options)
    assert str(checkpoint) in str(caught.value)
    return str(caught.value)


def test_every_fault_is_listed_at_once(copied) -> None:
    """Prevents upstream's silence about weights that do not fit, and a list that ends at the first of them."""
    name, checkpoint, file = copied
    contents = torch.load(file, weights_only=True)
    weights = contents[WEIGHTS[name]]
    names = [key for key in weights if key.endswith("weight") and "decoder." not in key]
    del weights[names[0]], weights[names[1]]
    weights[names[2]] = weights[names[2]][..., :-1]
    weights[names[3]] = torch.full_like(weights[names[3]], torch.nan)
    weights[names[4]] = weights[names[4]].to(torch.int8)
    weights["blocks.77.surplus"] = torch.zeros(1)
    torch.save(contents, file)
    message = _message(name, checkpoint)
    assert "6 weights do not fit" in message
    for line in (
        f"missing: {names[0]} (",
        f"missing: {names[1]} (",
        f"wrong shape: {names[2]} is (",
        f"NaN or infinite: {names[3]}",
        f"not floating point: {names[4]} torch.int8",
        "extra: blocks.77.surplus",
    ):
        assert f"\n  {line}" in message


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_truncated(copied, share) -> None:
    """Prevents a traceback for half a download."""
    name, checkpoint, file = copied
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    message = _message(name, checkpoint)
    assert "truncated" in message
    assert "get it again" in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>Sign in to continue</html>", "web page"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><Error><Code>AuthenticationFailed</Code></Error>", "error message"),
        (b"GGUF\x03\x00\x00\x00", "llama.cpp"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "Git LFS pointer"),
        (b'\x10\x00\x00\x00\x00\x00\x00\x00{"a":1}       ', "safetensors"),
        (b"RIFF....WAVE", "no file of torch.save"),
        (b"\x80\x02", "truncated or damaged"),
        (pickle.dumps([1, 2, 3], protocol=2), "damaged"),
    ],
)
def test_no_torch_file(copied, content, said) -> None:
    """Prevents a pickle error where the download left something else behind."""
    name, checkpoint, file = copied
    file.write_bytes(content)
    assert said in _message(name, checkpoint)


def test_a_file_of_an_older_torch(copied) -> None:
    """Prevents refusing files from before torch.save made archives, which cannot be mapped."""
    name, checkpoint, file = copied
    torch.save(torch.load(file, weights_only=True), file, _use_new_zipfile_serialization=False)
    assert load_encoder(name, checkpoint).dim == 32


def test_no_dictionary(copied) -> None:
    """Prevents a traceback for a file of torch.save that holds a bare tensor."""
    name, checkpoint, file = copied
    torch.save(torch.zeros(3), file)
    assert "holds a Tensor, not a dictionary" in _message(name, checkpoint)


def test_another_archive(copied) -> None:
    """Prevents a traceback for a zip file that torch did not write."""
    name, checkpoint, file = copied
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "no weights")
    assert "damaged" in _message(name, checkpoint)


class _Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_pickle_that_runs_code_is_refused(copied, tmp_path, as_zip) -> None:
    """Prevents a checkpoint from running what its author likes: it is named, and not run."""
    name, checkpoint, file = copied
    mark = tmp_path / "ran"
    torch.save({"model": {}, "cfg": _Bomb(mark)}, file, _use_new_zipfile_serialization=as_zip)
    message = _message(name, checkpoint)
    assert not mark.exists()
    assert "refused" in message
    assert "mkdir" in message
    torch.load(file, weights_only=False)
    assert mark.exists()  # the bomb works: it was not the test that defused it


@pytest.mark.parametrize(
    ("name", "given", "kind"),
    [
        ("whisper", "beats/beats_pretrained.pt", "a BEATs checkpoint"),
        ("whisper", "emotion2vec/base/model.pt", "an emotion2vec checkpoint"),
        ("whisper", "emotion2vec/plus", "a FunASR folder"),
        ("whisper", "beats", "a folder with"),
        ("beats", "whisper/whisper80.pt", "an openai-whisper checkpoint"),
        ("beats", "emotion2vec/plus/model.pt", "an emotion2vec checkpoint"),
        ("beats", "whisper/whisper80_hf", "a Hugging Face folder of the model type 'whisper'"),
        ("emotion2vec", "whisper/whisper80_hf", "a Hugging Face folder of the model type 'whisper'"),
        ("emotion2vec", "emotion2vec/base/model.pt", "give the folder"),
        ("emotion2vec", "audio", "a folder with"),
    ],
)
def test_another_kind_of_checkpoint_is_recognised(golden, name, given, kind) -> None:
    """Prevents a list of 200 missing weights where two paths were swapped."""
    assert kind in _message(name, golden / given)


@pytest.mark.parametrize(
    ("contents", "kind"),
    [
        ({"model": {"quantize.embedding.weight": torch.zeros(1)}, "cfg": {}}, "a BEATs tokenizer"),
        ({"model": {"speech_Qformer.bert.x": torch.zeros(1)}, "config": {}}, "a SALMONN checkpoint"),
        ({"state_dict": {}, "pytorch-lightning_version": "2.6"}, "a Lightning checkpoint"),
        (
            {f"key{i}": 0 for i in range(10)},
            "`key5`, `key6`, `key7` and 2 more",
        ),
    ],
)
@pytest.mark.parametrize("name", ["whisper", "beats"])
def test_relatives_are_recognised(tmp_path, name, contents, kind) -> None:
    """Prevents mistaking BEATs' tokenizers, which lie beside its checkpoints, for damaged ones."""
    torch.save(contents, tmp_path / "relative.pt")
    assert kind in _message(name, tmp_path / "relative.pt")


def test_weights_of_another_encoder_in_a_funasr_folder(golden, tmp_path) -> None:
    """Prevents a random model, as FunASR's loader makes of it."""
    shutil.copytree(golden / "emotion2vec/base", tmp_path / "base")
    shutil.copyfile(golden / "whisper/whisper80.pt", tmp_path / "base/model.pt")
    assert "an openai-whisper checkpoint" in _message("emotion2vec", tmp_path / "base")


@pytest.mark.parametrize("name", FILES)
def test_missing_files_say_where_to_get_them(name, tmp_path) -> None:
    """Prevents a bare "no such file" for weights that a user has yet to fetch."""
    message = _message(name, tmp_path / "absent.pt")
    assert "no such" in message
    assert "weights are" in message


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_broken_hugging_face_folder(golden, tmp_path, file) -> None:
    """Prevents a traceback for a folder that is incomplete or cut short."""
    folder = tmp_path / "hf"
    shutil.copytree(golden / "whisper/whisper80_hf", folder)
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[: len(whole) // 2])
    assert file in _message("whisper", folder)
    (folder / file).unlink()
    assert "Whisper's weights are" in _message("whisper", folder)


def test_missing_and_wrong_dims(golden, tmp_path) -> None:
    """Prevents a KeyError for a file whose `dims` do not describe its encoder."""
    contents = torch.load(golden / "whisper/whisper80.pt", weights_only=True)
    dims = {key: value for key, value in contents["dims"].items() if key != "n_audio_head"}
    torch.save(contents | {"dims": dims | {"n_mels": "80"}}, tmp_path / "odd.pt")
    message = _message("whisper", tmp_path / "odd.pt")
    assert "`n_audio_head` is missing" in message
    assert "`n_mels` is '80'" in message
    torch.save(contents | {"dims": contents["dims"] | {"n_audio_layer": 1}}, tmp_path / "odd.pt")
    assert "extra: encoder.blocks.1.attn.query.weight" in _message("whisper", tmp_path / "odd.pt")


def test_the_network_does_not_hold_on_to_the_file(golden, tmp_path, batch) -> None:
    """Prevents weights that stay mapped to the file and change, or crash, with it."""
    file = tmp_path / "beats.pt"
    shutil.copyfile(golden / "beats/beats_pretrained.pt", file)
    encoder = load_encoder("beats", file)
    expected = encoder(*batch)[0]
    file.write_bytes(bytes(file.stat().st_size))
    assert torch.equal(encoder(*batch)[0], expected)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wisper", {}, "no encoder 'wisper'; there are whisper, emotion2vec, beats"),
        ("whisper", {"layout": "time"}, "whisper has no option 'layout'; it has context"),
        ("emotion2vec", {"context": "trim"}, "emotion2vec has no option 'context'; it has none"),
        ("beats", {"layout": "bands"}, "layout='bands' is none of tokens, time"),
    ],
)
def test_names_and_options_that_do_not_exist(name, options, message) -> None:
    """Prevents a misspelt option from being ignored."""
    with pytest.raises(ValueError, match=message):
        load_encoder(name, "anywhere.pt", **options)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("whisper", {"n_audio_head": 0}, "dims"),
        ("whisper", {"n_mels": -1}, "describes no network"),
        ("beats", {"conv_pos_groups": 0}, "describes no network"),
        ("beats", {"encoder_attention_heads": 0}, "cfg"),
        ("beats", {"embed_dim": -1}, "describes no network"),
    ],
)
def test_sizes_that_make_no_network_are_named(golden, tmp_path, name, change, message) -> None:
    """Prevents a division by zero deep in torch for a damaged description of the network."""
    contents = torch.load(golden / FILES[name], weights_only=True)
    key = "dims" if name == "whisper" else "cfg"
    torch.save(contents | {key: contents[key] | change}, tmp_path / "odd.pt")
    assert message in _message(name, tmp_path / "odd.pt")


def test_weights_without_a_name_are_no_checkpoint(copied) -> None:
    """Prevents a traceback where the keys of a file are no names."""
    name, checkpoint, file = copied
    contents = torch.load(file, weights_only=True)
    torch.save(contents | {WEIGHTS[name]: contents[WEIGHTS[name]] | {1: torch.zeros(1)}}, file)
    assert "looks like" in _message(name, checkpoint)


@pytest.mark.parametrize("as_zip", [True, False])
def test_flipped_bytes_are_one_clear_error(golden, tmp_path, as_zip) -> None:
    """Prevents what torch's unpickler says of damage: assertions, indices out of range."""
    file, random = tmp_path / "beats.pt", Random(0)
    torch.save(torch.load(golden / FILES["beats"], weights_only=True), file, _use_new_zipfile_serialization=as_zip)
    whole, refused = file.read_bytes(), []
    for _ in range(60):
        spoilt = bytearray(whole)
        for _ in range(3):
            spoilt[random.randrange(8_000)] = random.randrange(256)
        file.write_bytes(spoilt)
        try:
            load_encoder("beats", file)
        except EncoderError as error:
            refused.append(str(error))
    assert len(refused) > 30
    assert all(str(file) in message for message in refused)


@pytest.mark.parametrize(
    "index", [{}, {"weight_map": None}, {"weight_map": {"a": 1}}, {"weight_map": {"a": "../model.safetensors"}}]
)
def test_an_index_that_names_no_files_of_the_folder(golden, tmp_path, index) -> None:
    """Prevents a KeyError for a broken index of shards, and reading weights from elsewhere."""
    folder = tmp_path / "hf"
    shutil.copytree(golden / "whisper/whisper80_hf", folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "weight_map names no files" in _message("whisper", folder)

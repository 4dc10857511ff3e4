"""Recognisers, on checkpoints in the real formats and a server."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_prep.synthesis.backends.embedded.engine import speak
from data_prep.synthesis.backends.embedded.espeak import TRAIN_VOICES, Espeak
from data_prep.synthesis.backends.recognise import Recogniser, RecogniserSettings, make_recogniser
from data_prep.synthesis.stage import BackendError, Reject, Retry
from omnichat.dialogue import Style
from tests.data_prep.synthesis.fakes.server import FakeServer, buzz

WORDS = ["hello", "cat", "dog", "rain", "the", "a"]
OURS = {"n_mels": 8, "n_audio_ctx": 1500, "n_audio_state": 16, "n_audio_head": 2, "n_audio_layer": 1}
OURS |= {"n_text_ctx": 32, "n_text_state": 16, "n_text_head": 2, "n_text_layer": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Whisper as Hugging Face stores it."""
    import transformers

    folder = tmp_path_factory.mktemp("whisper")
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    vocabulary = {word: number for number, word in enumerate([*(f"Ġ{word}" for word in WORDS), *special])}
    tokenizer = transformers.WhisperTokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    config = transformers.WhisperConfig(
        num_mel_bins=8, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_target_positions=32,
        vocab_size=len(tokenizer), bos_token_id=6, eos_token_id=6, pad_token_id=6, decoder_start_token_id=7,
        suppress_tokens=None, begin_suppress_tokens=None, init_std=1.0,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config.update(
        is_multilingual=True, lang_to_id={"<|en|>": 8}, task_to_id={"transcribe": 9}, no_timestamps_token_id=10,
        bos_token_id=6, eos_token_id=6, pad_token_id=6, decoder_start_token_id=7, return_timestamps=False,
    )  # fmt: skip
    model.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=8).save_pretrained(folder)
    return folder


def heard(settings: RecogniserSettings, wave: np.ndarray) -> str:
    async def run() -> str:
        recogniser = make_recogniser(settings)
        await recogniser.open()
        try:
            return await recogniser.transcribe(wave)
        finally:
            await recogniser.close()

    return asyncio.run(run())


def test_whisper_transcribes_from_a_hugging_face_folder(folder: Path) -> None:
    """Words of its vocabulary, none of its marks; the same for the same clip; longer clips in pieces of 30 s."""
    settings = RecogniserSettings(kind="whisper", model=str(folder), max_tokens=5)
    said = heard(settings, buzz(2.0))
    assert said
    assert set(said.split()) <= set(WORDS)
    assert heard(settings, buzz(2.0)) == said
    assert len(heard(settings, buzz(31.0)).split()) > len(said.split())


def test_an_openai_file_says_what_the_folder_says(folder: Path, tmp_path: Path) -> None:
    """A wrong name in the table would leave a weight random."""
    import transformers

    model = transformers.WhisperForConditionalGeneration.from_pretrained(folder)
    names = {
        "layers.": "blocks.", ".self_attn_layer_norm.": ".attn_ln.", ".encoder_attn_layer_norm.": ".cross_attn_ln.",
        ".self_attn.q_proj.": ".attn.query.", ".self_attn.k_proj.": ".attn.key.", ".self_attn.v_proj.": ".attn.value.",
        ".self_attn.out_proj.": ".attn.out.", ".encoder_attn.q_proj.": ".cross_attn.query.",
        ".encoder_attn.k_proj.": ".cross_attn.key.", ".encoder_attn.v_proj.": ".cross_attn.value.",
        ".encoder_attn.out_proj.": ".cross_attn.out.", ".final_layer_norm.": ".mlp_ln.", ".fc1.": ".mlp.0.",
        ".fc2.": ".mlp.2.", "encoder.layer_norm.": "encoder.ln_post.", "decoder.layer_norm.": "decoder.ln.",
        "embed_positions.weight": "positional_embedding", "embed_tokens.": "token_embedding.",
    }  # fmt: skip
    weights = {}
    for name, weight in model.model.state_dict().items():
        for theirs, openai in names.items():
            name = name.replace(theirs, openai)
        weights[name] = weight.half()
    path = tmp_path / "tiny.pt"
    torch.save({"dims": OURS | {"n_vocab": model.config.vocab_size}, "model_state_dict": weights}, path)
    model.half().float().save_pretrained(folder / "half")
    for file in folder.glob("*token*"):
        (folder / "half" / file.name).write_bytes(file.read_bytes())
    said = heard(RecogniserSettings(kind="whisper", model=str(path), tokenizer=str(folder), max_tokens=6), buzz(1.5))
    assert said == heard(RecogniserSettings(kind="whisper", model=str(folder / "half"), max_tokens=6), buzz(1.5))
    with pytest.raises(BackendError, match="set tokenizer to a folder"):
        heard(RecogniserSettings(kind="whisper", model=str(path)), buzz(1.0))
    del weights["decoder.ln.weight"]
    torch.save({"dims": OURS | {"n_vocab": model.config.vocab_size}, "model_state_dict": weights}, path)
    with pytest.raises(BackendError, match=r"missing \['model.decoder.layer_norm.weight'\]"):
        heard(RecogniserSettings(kind="whisper", model=str(path), tokenizer=str(folder)), buzz(1.0))


def test_a_folder_that_is_no_whisper_is_named(tmp_path: Path) -> None:
    """At the start, not at the first item."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(BackendError, match="no Whisper that can be read"):
        heard(RecogniserSettings(kind="whisper", model=str(tmp_path)), buzz(1.0))


def http(fake: FakeServer, **given: Any) -> RecogniserSettings:
    server = {"endpoints": [f"{fake.address}/v1"], "timeout": 0.5, "retries": 1, "backoff": 0.01}
    return RecogniserSettings.model_validate({"kind": "http", "model": "some-asr", "server": server, **given})


def test_a_server_gets_a_wav_and_answers_with_text() -> None:
    """OpenAI's protocol: a form with a file."""
    with FakeServer() as fake:
        fake.heard[16000] = "it is raining"
        assert heard(http(fake), buzz(1.0001)[:16000]) == "it is raining"
        [(path, fields)] = fake.calls
    assert path == "/v1/audio/transcriptions"
    assert (fields["model"], fields["language"]) == ("some-asr", "en")
    assert fields["file"][:4] == b"RIFF"


@pytest.mark.parametrize("fault", ["500", "timeout", "html", "reset"])
def test_a_server_that_fails_costs_the_attempt(fault: str) -> None:
    """A recogniser that is down says nothing of the recording."""
    with FakeServer(always=fault) as fake, pytest.raises(Retry) as refused:
        heard(http(fake), buzz(1.0))
    assert refused.value.reason == "asr_http"
    with FakeServer(always="400") as fake, pytest.raises(Reject):
        heard(http(fake), buzz(1.0))


def test_pocketsphinx_fits_the_right_words_better_than_others(espeak: Espeak) -> None:
    """Its score is the statistic beside espeak-ng's speech; as free words it mishears most, so it does not judge."""
    pytest.importorskip("pocketsphinx")
    text, other = "my brother is coming home for dinner.", "there is a lot of traffic in the city today."
    wave = speak(espeak, text, TRAIN_VOICES[8], Style()).pcm

    async def run(recogniser: Recogniser) -> tuple[float, float, str]:
        await recogniser.open()
        right, wrong = [await recogniser.measures(wave, words) for words in (text, other)]
        return right["alignment"], wrong.get("alignment", -1e9), await recogniser.transcribe(wave)

    recogniser = make_recogniser(RecogniserSettings(kind="pocketsphinx"))
    right, wrong, free = asyncio.run(run(recogniser))
    assert right > wrong
    assert free
    assert not recogniser.judges
    assert make_recogniser(RecogniserSettings(kind="pocketsphinx", judges=True)).judges


def test_settings_that_cannot_work_are_refused() -> None:
    """When the configuration is read."""
    with pytest.raises(ValueError, match="kind http: needs section server"):
        RecogniserSettings(kind="http")
    with pytest.raises(ValueError, match="kind whisper: needs model"):
        RecogniserSettings(kind="whisper")

"""Tiny checkpoints in the real formats: a chat model, Whisper with its decoder, Qwen2-Audio."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from omnichat.data.made_up import made_up_dialogues
from omnichat.models.tiny import write_random_checkpoints

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
QWEN_MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a chat template."""
    folder = write_random_checkpoints(tmp_path_factory.mktemp("chat"), seed=5)["llama"]
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": CHAT_TEMPLATE}))
    return folder


@pytest.fixture(scope="session")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Whisper of one layer as Hugging Face stores it; its words are made of six."""
    folder = tmp_path_factory.mktemp("whisper")
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    words = ["hello", "cat", "dog", "rain", "the", "a"]
    vocabulary = {word: number for number, word in enumerate([*(f"Ġ{word}" for word in words), *special])}
    tokenizer = transformers.WhisperTokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    tokenizer.save_pretrained(folder)
    marks = {"bos_token_id": 6, "eos_token_id": 6, "pad_token_id": 6, "decoder_start_token_id": 7}
    torch.manual_seed(3)
    config = transformers.WhisperConfig(
        num_mel_bins=8, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_target_positions=16,
        vocab_size=len(tokenizer), suppress_tokens=None, begin_suppress_tokens=None, init_std=1.0, **marks,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config.update(
        is_multilingual=True, lang_to_id={"<|en|>": 8}, task_to_id={"transcribe": 9}, no_timestamps_token_id=10,
        return_timestamps=False, **marks,
    )  # fmt: skip
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def qwen2_audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2-Audio with the files of the published one: model, processor, byte-level tokenizer."""
    folder = tmp_path_factory.mktemp("qwen2_audio")
    alphabet = sorted(bytes_to_unicode().values())
    tokenizer = transformers.Qwen2Tokenizer(vocab={mark: n for n, mark in enumerate(alphabet)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": QWEN_MARKS[1:], "eos_token": "<|endoftext|>"})
    extractor = transformers.WhisperFeatureExtractor(feature_size=8)
    transformers.Qwen2AudioProcessor(extractor, tokenizer).save_pretrained(folder)
    torch.manual_seed(4)
    config = transformers.Qwen2AudioConfig(
        audio_config={
            "num_mel_bins": 8, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "d_model": 16,
        },
        text_config={
            "model_type": "qwen2", "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "initializer_range": 0.3,
            "max_position_embeddings": 8192,
        },
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )  # fmt: skip
    model = transformers.Qwen2AudioForConditionalGeneration(config)
    model.generation_config.update(
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"), do_sample=True, top_p=0.5
    )
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Five dialogues of one to three rounds."""
    made_up_dialogues(tmp_path / "store", 5, seed=1, split="held")
    return tmp_path / "store" / "held.jsonl"

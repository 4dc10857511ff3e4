"""A Llama and its tokenizer: a small configuration, and the files of a Hugging Face folder."""

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from omnichat.dialogue import STYLE_VALUES
from omnichat.models.tiny.half import half

# Llama-3.1's special tokens in the order of its tokenizer.json; the rest of its 256, all reserved, are left out.
SPECIAL_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_2|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)
# Llama-3's split: contractions, words with the character before them, up to three digits, punctuation, white space.
_SPLIT = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
NUM_BYTES = 256  # a byte-level vocabulary begins with one token per byte


def default_texts() -> list[str]:
    """The words every prompt is made of: roles, and style values as they are rendered."""
    return ["system user assistant unknown", *(f"({', '.join(values)}): " for values in STYLE_VALUES.values())]


def llama_config(tokenizer: Tokenizer, width: int, heads: int, layers: int, **options: Any) -> LlamaConfig:
    """A small Llama of the 3rd generation: grouped heads, RoPE of base 500,000; `options` replace any of it."""
    defaults: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "bos_token_id": tokenizer.token_to_id("<|begin_of_text|>"),
        "eos_token_id": tokenizer.token_to_id("<|eot_id|>"),
        "tie_word_embeddings": False,
    }
    return LlamaConfig(**(defaults | options))


def write_llama(folder: Path | str, llm: LlamaForCausalLM) -> None:
    """`config.json` and `model.safetensors` of a Hugging Face folder; `llm` itself is left as it is."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(llm.config)
    config.dtype, config.architectures = torch.float16, ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    state = llm.state_dict()
    if config.tie_word_embeddings:  # one tensor under two names; transformers stores the first
        del state["lm_head.weight"]
    (folder / "model.safetensors").write_bytes(save(half(state), metadata={"format": "pt"}))


def write_tokenizer(folder: Path | str, texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a Llama-3 style tokenizer on `texts` and write `tokenizer.json` and `tokenizer_config.json`.

    Byte-level BPE behind Llama-3's split, so that any text has tokens; the special tokens come last, as Llama-3's do.

    Raises:
        ValueError: `vocab_size` has no room for the bytes and the special tokens.
    """
    num_pieces = vocab_size - len(SPECIAL_TOKENS)
    if num_pieces < NUM_BYTES:
        raise ValueError(
            f"vocab_size={vocab_size} must be at least {NUM_BYTES + len(SPECIAL_TOKENS)}: bytes and special tokens"
        )
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=num_pieces, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS])
    begin = SPECIAL_TOKENS[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A",
        pair=f"{begin} $A {begin}:1 $B:1",
        special_tokens=[(begin, tokenizer.token_to_id(begin))],
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "bos_token": begin,
        "eos_token": "<|eot_id|>",
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return tokenizer

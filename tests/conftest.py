"""What many tests need: a small tokenizer of Llama-3's kind, made here because a real one cannot be shipped."""

import os
import signal
from pathlib import Path

# A shell that starts the tests in the background lets them ignore Ctrl-C, and programs that they start inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before torch is imported: tests run side by side, one thread each, and nothing may reach for the network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

# The split of Llama-3's tokenizer.json: it decides which characters can share a token.
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPECIAL = [
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|reserved_special_token_0|>",
]


CHATML_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # as SmolLM2's


def make_tokenizer(special: list[str] = LLAMA3_SPECIAL) -> Tokenizer:
    """Byte-level BPE with Llama-3's split, a few merges, and the given special tokens."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = "user assistant system (female, (male, happy, sad, neutral, normal, high): how are you today"
    tokenizer.train_from_iterator([words] * 3, trainer)
    return tokenizer


@pytest.fixture
def tokenizer() -> Tokenizer:
    """A tokenizer of a test's own: a `Prompt` takes its tokenizer over."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two-track dialogues, not to be changed; see `write_two_tracks`."""
    from tests.two_tracks import write_two_tracks

    return write_two_tracks(tmp_path_factory.mktemp("tracks"))

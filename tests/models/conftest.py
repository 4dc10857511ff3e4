"""A random Llama for the tests of packing, losses, decoding and loading, and dialogues end to end for it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from omnichat.models.llm import add_lora, load_llm
from omnichat.models.packed import packed_hidden
from omnichat.models.tiny import default_texts, llama_config, write_llama, write_tokenizer

LENGTHS = [5, 9, 3, 9]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers with grouped heads, in a Hugging Face folder."""
    path = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    tokenizer = write_tokenizer(path, default_texts(), 300)
    write_llama(path, LlamaForCausalLM(llama_config(tokenizer, width=32, heads=4, layers=2, initializer_range=0.3)))
    return path


@pytest.fixture
def llm(folder: Path) -> LlamaForCausalLM:
    """The model with LoRA that does something: upstream starts its second half at zero."""
    model = load_llm(folder)
    torch.manual_seed(1)
    add_lora(model, rank=2, alpha=4)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def embeddings(lengths: list[int] = LENGTHS) -> list[Tensor]:
    """Random token embeddings, one tensor a dialogue."""
    return list(torch.randn(sum(lengths), 32, generator=torch.Generator().manual_seed(2)).split(lengths))


def packed(model: LlamaForCausalLM, rows: list[Tensor]) -> list[Tensor]:
    """Hidden states of dialogues put end to end, cut apart again."""
    lengths = [len(row) for row in rows]
    starts = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    positions = torch.cat([torch.arange(length) for length in lengths])
    return list(packed_hidden(model, torch.cat(rows), positions, starts, max(lengths)).split(lengths))

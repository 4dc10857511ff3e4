"""The language model: any Llama-architecture causal LM of transformers, frozen, with LoRA to be trained."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from tokenizers import Tokenizer
from torch import nn
from transformers import LlamaForCausalLM

from omnichat.models.packed import PACKED
from omnichat.models.quantization import keep_packing, quantization_options
from omnichat.weight_files import folder_faults, mistaken_for_a_folder, quantised


def load_llm(
    folder: Path | str, dtype: torch.dtype = torch.float32, quantization: str | None = None, accelerator: str = "auto"
) -> LlamaForCausalLM:
    """A frozen language model from a local Hugging Face folder; nothing is downloaded.

    Its attention understands packed input (`omnichat.models.packed`), and the usual padding masks.

    Args:
        folder: of config, tokenizer and safetensors.
        dtype: of the weights; of what is computed with them where they are quantised.
        quantization: `nf4` for weights of 4 bits, see `omnichat.models.quantization`.
        accelerator: of the trainer: where quantised weights are made.

    Raises:
        ValueError: weights cannot be quantised here; the folder, config, tokenizer or weights are missing or damaged,
            the weights do not fit the config, the tokenizer does not fit the model, or the architecture is not
            Llama's; names the file and the cure.
    """
    folder = Path(folder)
    _check_folder(folder)
    options = quantization_options(dtype, accelerator) if quantization is not None else {}
    try:
        loaded: Any = LlamaForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=PACKED,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # only to hear all faults at once; they are refused below
            output_loading_info=True,
            **options,
        )
        tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    except Exception as error:  # three libraries, each with kinds of its own; tokenizers raises plain Exception
        raise ValueError(f"{folder}: cannot be loaded ({error}); copy the model's folder again") from None
    llm: LlamaForCausalLM
    llm, info = loaded
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    wrong = [f"{len(info[kind])} {kind.replace('_', ' ')}: {_some(info[kind])}" for kind in kinds if info[kind]]
    if wrong:
        raise ValueError(
            f"{folder}: the weights do not fit config.json: {'; '.join(wrong)}. They are another model's, or of "
            "another size; download config.json and the weights from one page"
        )
    if tokens > llm.config.vocab_size:
        raise ValueError(
            f"{folder}: tokenizer.json knows {tokens} tokens, the model {llm.config.vocab_size}; "
            "use the tokenizer that belongs to the model"
        )
    keep_packing(llm)
    return llm.requires_grad_(False).eval()


def _some(keys: Iterable[Any], limit: int = 8) -> str:
    """The first few of the names of weights; an 8B model has 291."""
    found = sorted(map(str, keys))
    return ", ".join(found[:limit]) + (f" and {len(found) - limit} more" if len(found) > limit else "")


def _check_folder(folder: Path) -> None:
    if mistake := mistaken_for_a_folder(folder):
        raise ValueError(f"{folder}: {mistake}")
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; point model.llm.checkpoint to the Hugging Face folder of a Llama")
    needed = (("config.json",), ("tokenizer.json",), ("model.safetensors", "model.safetensors.index.json"))
    missing = [" or ".join(names) for names in needed if not any((folder / name).is_file() for name in names)]
    if missing:
        pickled = next((path.name for path in sorted(folder.glob("*.bin"))), None)
        instead = f" ({pickled} is a pickle, which is not read)" if pickled else ""
        raise ValueError(f"{folder}: lacks {', '.join(missing)}{instead}; copy the model's whole folder")
    if faults := folder_faults(folder):
        raise ValueError("\n".join(faults))
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind, method = config.get("model_type"), quantised(config)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{folder / 'config.json'}: is not a JSON object ({error}); copy it again") from None
    if kind != "llama":
        raise ValueError(f"{folder}: model_type is {kind!r}; only the Llama architecture ('llama') is supported")
    if method is not None:
        raise ValueError(
            f"{folder}: its weights are quantised ({method}), which is not supported; give the model that they were "
            "made of (model.llm.quantization=nf4 makes 4 bits of it while it loads)"
        )


def add_lora(
    llm: nn.Module, rank: int, alpha: float, dropout: float = 0.0, targets: Sequence[str] = ("q_proj", "v_proj")
) -> None:
    """Add LoRA to the named linear layers of `llm` in place; the adapters become its only trainable parameters.

    Adapters are kept in float32 whatever the model's dtype: AdamW's small steps vanish in bfloat16.

    Raises:
        ValueError: `rank` below 1, or a name that no linear layer has; PEFT itself passes over those in silence as long
            as one matches.
    """
    # The output layer stays frozen: `target_losses` counts on it.
    linear = {name.rpartition(".")[2] for name, module in llm.named_modules() if isinstance(module, nn.Linear)}
    known = sorted(linear - {"lm_head"})
    unknown = sorted(set(targets) - set(known))
    if unknown or not targets:
        raise ValueError(
            f"LoRA targets {', '.join(unknown) or '(none)'}: the model's linear layers are {', '.join(known)}"
        )
    scale: Any = alpha  # PEFT says int, and divides it by the rank
    config = LoraConfig(r=rank, lora_alpha=scale, lora_dropout=dropout, target_modules=list(targets), bias="none")
    inject_adapter_in_model(config, llm)
    for name, parameter in llm.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()

"""Models of Hugging Face folders: loaded whole or not at all, decoded greedily."""

from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.utils import logging

from omnichat.weight_files import folder_faults, mistaken_for_a_folder


class ModelError(ValueError):
    """A folder that cannot be used as the model that is asked for; the message names it, and the cure."""


def load_strictly(kind: Any, folder: Path, dtype: torch.dtype, device: str) -> Any:
    """A model of a transformers class, frozen and in evaluation mode. Nothing is fetched, no code of the folder is run.

    transformers fills weights that a file lacks with random ones and goes on; here that is an error.

    Args:
        kind: the class, of transformers.
        folder: `config.json` and safetensors files.
        dtype: of the weights.
        device: of torch's names.

    Raises:
        ModelError: the folder or a file is missing or broken, or the weights are not this class's.
    """
    if mistake := mistaken_for_a_folder(folder):
        raise ModelError(f"{folder}: {mistake}")
    if broken := folder_faults(folder):
        raise ModelError("\n".join(broken))
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json there; give the folder of a Hugging Face model, downloaded whole")
    logging.disable_progress_bar()
    options = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    try:
        model, about = kind.from_pretrained(folder, dtype=dtype, **options)
    except Exception as error:  # transformers, safetensors and torch each have their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{folder}: cannot be loaded as {kind.__name__} ({reason}); download it again") from None
    faults = {what: sorted(map(str, about[what])) for what in ("missing_keys", "mismatched_keys")}
    if any(faults.values()):
        named = "; ".join(f"{what.replace('_', ' ')}: {', '.join(keys[:3])}" for what, keys in faults.items() if keys)
        raise ModelError(f"{folder}: its weights are not those of {kind.__name__} ({named}); download it again")
    return model.requires_grad_(False).eval().to(device)


def greedy(model: Any, tokenizer: Any, max_new_tokens: int) -> GenerationConfig:
    """The likeliest token at each step; of the folder's own settings (sampling, penalties) only its marks are taken."""
    own = model.generation_config
    stop = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
    pad = next((mark for mark in (tokenizer.pad_token_id, own.pad_token_id) if mark is not None), None)
    if pad is None:
        pad = stop[0] if isinstance(stop, list) else stop
    return GenerationConfig(do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=stop, pad_token_id=pad)


def context_of(model: Any) -> int | None:
    """How many tokens a language model was made for; None where its config does not say."""
    config = model.config
    found = getattr(getattr(config, "text_config", config), "max_position_embeddings", None)
    return None if found is None else int(found)

"""QLoRA: the frozen weights of the language model in 4 bits (Dettmers et al., 2023), by bitsandbytes.

nf4 with double quantisation; the embeddings and the output layer stay whole. What is trained is not quantised.
"""

import importlib.util
import os
from typing import Any

import torch
from torch import nn


def quantization_options(dtype: torch.dtype, accelerator: str) -> dict[str, Any]:
    """What `from_pretrained` needs to quantise while it loads.

    Args:
        dtype: that products are computed in.
        accelerator: of the trainer; each rank quantises on its own device.

    Raises:
        ValueError: bitsandbytes is missing, or cannot compute on the device; nothing has been loaded by then.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError("model.llm.quantization=nf4: needs the package bitsandbytes; pip install -e '.[qlora]'")
    from transformers import BitsAndBytesConfig

    device = _device(accelerator)
    _try_out(device)
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
        "device_map": {"": device},
    }


def keep_packing(llm: nn.Module) -> None:
    """Leave quantised weights as they are, whatever they meet.

    A CPU with AVX512 would repack them at an input that needs no gradient, into another function that cannot be
    differentiated (bitsandbytes 0.50, nn/modules.py Linear4bit).
    """
    for module in llm.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010, torch types attributes as tensors


def _device(accelerator: str) -> torch.device:
    if accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    # Before Lightning has set the rank's device: torchrun and Lightning say LOCAL_RANK, srun SLURM_LOCALID.
    rank = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
    return torch.device("cuda", int(rank))


def _try_out(device: torch.device) -> None:
    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        codes, state = quantize_4bit(torch.ones(64, 64, device=device), quant_type="nf4", compress_statistics=True)
        whole = bool((dequantize_4bit(codes, state) == 1).all())
    except Exception as error:  # a missing library, an unknown device, an unsupported GPU: each has kinds of its own
        raise ValueError(_no_backend(device, str(error).strip() or type(error).__name__)) from None
    if not whole:
        raise ValueError(_no_backend(device, "what it quantises does not come back"))


def _no_backend(device: torch.device, reason: str) -> str:
    return (
        f"model.llm.quantization=nf4: bitsandbytes cannot compute on {device} ({reason}); install a release for this "
        "device, or set model.llm.quantization=null"
    )

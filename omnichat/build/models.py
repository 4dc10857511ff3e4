"""The prompt, the experts and the model of a run."""

import sys
from collections.abc import Mapping
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from omnichat.audio import num_windows
from omnichat.chat_format import read_taught
from omnichat.config import ConfigError, RunConfig
from omnichat.models.encoders import Encoder, load_encoder, own_options
from omnichat.models.events import EventModel
from omnichat.models.llm import add_lora, load_llm
from omnichat.models.mixformer import MixFormer
from omnichat.models.omnichat import OmniChat
from omnichat.models.published import PUBLISHED, checkpoint_name, published_expert, published_llama
from omnichat.prompt import Prompt, load_tokenizer
from omnichat.recipes import locate

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def build_prompt(config: RunConfig) -> Prompt:
    """The prompt of a run, with the LLM's own tokenizer.

    Raises:
        DataError: `bad_tokenizer`.
        ValueError: the tokenizer is of no chat format that is known, or the model is a base model.
    """
    assert config.model.llm.checkpoint is not None, "materialise() gives a random model its checkpoints"
    folder = locate(config.model.llm.checkpoint)
    data = config.data
    return Prompt(
        load_tokenizer(folder / "tokenizer.json"),
        config.model.window,
        config.model.queries,
        data.input,
        data.system,
        data.loss_on_first,
        data.max_tokens,
        data.loss_on,
        read_taught(folder),
    )


def build_encoders(config: RunConfig) -> dict[str, Encoder]:
    """The frozen experts that `model.experts` names, in its order, computing in the trainer's precision.

    With `bf16-mixed` too they are in bfloat16 throughout: autocast would normalise and add in float32, at twice the
    memory traffic.
    """
    options, dtype = encoder_options(config), encoder_dtype(config)
    return {
        name: load_encoder(name, locate(path), **options[name]).in_dtype(dtype)
        for name, path in expert_checkpoints(config).items()
    }


def encoder_dtype(config: RunConfig) -> torch.dtype:
    """What the experts compute in; the spectrograms before them are float32 in any case."""
    return torch.float32 if config.trainer.precision == "32-true" else torch.bfloat16


def encoder_options(config: RunConfig) -> dict[str, dict[str, str]]:
    """What each expert is loaded with, and has as its `options` afterwards."""
    encoders = config.model.encoders
    return {
        "whisper": {"context": encoders.whisper.context},
        "emotion2vec": {},
        "beats": {"layout": encoders.beats.layout},
        **{name: own_options(name) for name in config.model.experts if name in encoders.own},
    }


def expert_checkpoints(config: RunConfig) -> dict[str, str]:
    """Where the weights of each expert of the run lie."""
    return {name: str(config.model.encoders.checkpoint(name)) for name in config.model.experts}


def build_model(config: RunConfig, widths: Mapping[str, int] | None = None) -> OmniChat:
    """The whole model. With the `widths` of cached features the experts themselves are not loaded."""
    if not sys.stderr.isatty():  # the bar of loading weights would fill a log
        disable_progress_bar()
    encoders = build_encoders(config) if widths is None else {}
    llm = config.model.llm
    assert llm.checkpoint is not None, "materialise() gives a random model its checkpoints"
    loaded = load_llm(locate(llm.checkpoint), DTYPES[llm.dtype], llm.quantization, config.trainer.accelerator)
    return _assemble(config, encoders, widths, loaded)


def sized_model(config: RunConfig) -> OmniChat:
    """The model of a run as sizes alone, on the device `meta`: what can be counted without weights.

    Published nets are known by the name of their checkpoint; the sizes of others are read from their files.

    Raises:
        ConfigError: a net that is neither published nor there, or an expert of one's own.
        EncoderError, ValueError: its files cannot be used.
    """
    if config.model.random:
        raise ConfigError(["model.random: random nets have no sizes before their run; set it to false"])
    if own := [name for name in config.model.experts if name in config.model.encoders.own]:
        raise ConfigError([f"model.experts: what {', '.join(own)} computes is not known; count without it"])
    options, dtype = encoder_options(config), encoder_dtype(config)
    paths = expert_checkpoints(config) | {"llm": str(config.model.llm.checkpoint)}
    faults = [
        f"{path}: is not there, and its sizes are not known by its name; download it, or name one of "
        f"{', '.join(PUBLISHED[name])}"
        for name, path in paths.items()
        if checkpoint_name(path) not in PUBLISHED[name] and not locate(path).exists()
    ]
    if faults:
        raise ConfigError(faults)
    llm_path = paths.pop("llm")
    with torch.device("meta"):
        sizes = published_llama(checkpoint_name(llm_path)) or LlamaConfig.from_pretrained(locate(llm_path))
        llm: Any = LlamaForCausalLM(sizes)
        known = {name: published_expert(name, checkpoint_name(path), options[name]) for name, path in paths.items()}
    encoders = {
        name: (known[name] or load_encoder(name, locate(path), **options[name])).in_dtype(dtype).to("meta")
        for name, path in paths.items()
    }
    widths = {name: encoder.dim for name, encoder in encoders.items()}
    cached = config.data.features == "cached" and config.data.input != "text"
    with torch.device("meta"):
        llm.to(DTYPES[config.model.llm.dtype]).requires_grad_(False).eval()
        return _assemble(config, {} if cached else encoders, widths, llm)


def _assemble(
    config: RunConfig, encoders: Mapping[str, Encoder], widths: Mapping[str, int] | None, llm: LlamaForCausalLM
) -> OmniChat:
    model = config.model
    if model.lora.enabled:
        add_lora(llm, model.lora.rank, model.lora.alpha, model.lora.dropout, model.lora.targets)
        for name, module in llm.named_modules():
            if name.endswith("lora_dropout"):
                module.train()  # all else of the LLM stays in evaluation mode
    if config.trainer.activation_checkpointing:
        llm.activation_checkpointing_enable()
        for layer in llm.model.layers:
            layer.training = True  # else transformers leaves it out; what is inside stays in evaluation mode
    widths = widths if widths is not None else {name: encoder.dim for name, encoder in encoders.items()}
    mixformer = _mixformer(config, widths, llm.config.hidden_size)
    return OmniChat(encoders, mixformer, llm, model.window, model.queries, config.trainer.compile)


def _mixformer(config: RunConfig, widths: Mapping[str, int], out_dim: int) -> MixFormer:
    model = config.model
    return MixFormer(
        widths,
        out_dim,
        gate=model.gate,
        hidden=model.qformer.hidden,
        layers=model.qformer.layers,
        heads=model.qformer.heads,
        ffn=model.qformer.ffn,
        window=model.window,
        queries=model.queries,
    )


def build_event_model(config: RunConfig, classes: int, clip: int) -> EventModel:
    """The experts of a run, frozen, with a Mix-Former and a head to be trained, on the accelerator that it names.

    Args:
        config: of the run.
        classes: that the head tells apart.
        clip: samples at 16 kHz of every clip.
    """
    encoders, model = build_encoders(config), config.model
    mixformer = _mixformer(config, {name: encoder.dim for name, encoder in encoders.items()}, model.qformer.hidden)
    made = EventModel(encoders, mixformer, model.qformer.hidden, num_windows(clip, model.window), classes)
    on_gpu = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    return made.to("cuda" if on_gpu else "cpu")

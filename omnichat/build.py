"""From a config to objects: the only place where config meets classes."""

import fcntl
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from omnichat.audio import num_windows
from omnichat.batch import Example
from omnichat.config import ConfigError, RunConfig
from omnichat.data.dataset import DialogueDataset, StoreDataset
from omnichat.data.features import FeatureReader
from omnichat.data.made_up import made_up_dialogues
from omnichat.data.mixture import alpha_weights
from omnichat.data.module import DialogueModule
from omnichat.data.scan import Scan, raise_faults
from omnichat.data.scan_cache import cached_scan
from omnichat.data.steps import Steps
from omnichat.data.store import Store
from omnichat.dialogue import Dialogue
from omnichat.models.encoders import Encoder, load_encoder
from omnichat.models.events import EventModel
from omnichat.models.llm import add_lora, load_llm
from omnichat.models.mixformer import MixFormer
from omnichat.models.omnichat import OmniChat
from omnichat.models.published import PUBLISHED, checkpoint_name, published_expert, published_llama
from omnichat.models.tiny import write_random_checkpoints
from omnichat.prompt import Prompt
from omnichat.recipes import locate

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SOURCES = ("synthetic", "real")  # source 0 is drawn where mu < alpha (paper, App. C.1)


def materialise(config: RunConfig, run_dir: Path) -> RunConfig:
    """The config with all that is made for one run (random weights, made-up dialogues) made and pointed to."""
    values = config.model_dump(mode="json")
    if config.model.random:
        folder = run_dir / "random_weights"
        paths = _made_once(folder, [config.seed], lambda: write_random_checkpoints(folder, config.seed))
        for name in config.model.experts:
            values["model"]["encoders"][name]["checkpoint"] = paths[name]
        values["model"]["llm"]["checkpoint"] = paths["llama"]
        values["model"]["random"] = False
    if config.data.made_up is not None:
        folder, count = run_dir / "made_up", config.data.made_up
        splits = (*SOURCES, "val")
        _made_once(folder, [config.seed, count], lambda: _made_up_splits(folder, count, config.seed, splits))
        drawn = {"synthetic": config.data.alpha != 0, "real": config.data.alpha != 1}
        values["data"] |= {source: str(folder / f"{source}.jsonl") for source in SOURCES if drawn[source]}
        values["data"]["val"] = {"val": str(folder / "val.jsonl")}
        values["data"]["made_up"] = None
    return RunConfig.model_validate_json(json.dumps(values))


def _made_once(folder: Path, key: list[int], make: Callable[[], Mapping[str, Path]]) -> dict[str, str]:
    """What `make` puts into a folder, by name; the ranks of one machine make it once and wait for each other."""
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "made.json"
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = json.loads(done.read_text(encoding="utf-8")) if done.is_file() else None
        if made is None or made["key"] != key:
            paths = {name: path.relative_to(folder).as_posix() for name, path in make().items()}
            made = {"key": key, "paths": paths}
            done.write_text(json.dumps(made), encoding="utf-8")
    return {name: str(folder / path) for name, path in made["paths"].items()}


def _made_up_splits(folder: Path, count: int, seed: int, splits: Sequence[str]) -> dict[str, Path]:
    for split in splits:
        made_up_dialogues(folder, count, seed, split)
    return {split: folder / f"{split}.jsonl" for split in splits}


def build_prompt(config: RunConfig) -> Prompt:
    """The prompt of a run, with the LLM's own tokenizer."""
    assert config.model.llm.checkpoint is not None, "materialise() gives a random model its checkpoints"
    tokenizer = Tokenizer.from_file(str(locate(config.model.llm.checkpoint) / "tokenizer.json"))
    data = config.data
    return Prompt(
        tokenizer,
        config.model.window,
        config.model.queries,
        data.input,
        data.system,
        data.loss_on_first,
        data.max_tokens,
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
    }


def expert_checkpoints(config: RunConfig) -> dict[str, str]:
    """Where the weights of each expert of the run lie."""
    return {name: str(getattr(config.model.encoders, name).checkpoint) for name in config.model.experts}


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
        ConfigError: a net that is neither published nor there.
        EncoderError, ValueError: its files cannot be used.
    """
    if config.model.random:
        raise ConfigError(["model.random: random nets have no sizes before their run; set it to false"])
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


def training_stores(config: RunConfig) -> dict[str, Path]:
    """The stores that the run draws from, by source; one whose share is 0 is left out."""
    data = config.data
    if data.alpha is None:
        return {name: locate(source.path) for name, source in data.sources.items() if source.weight}
    shares = {"synthetic": data.alpha, "real": 1 - data.alpha}
    paths = {"synthetic": data.synthetic, "real": data.real}
    return {name: locate(path) for name in SOURCES if shares[name] > 0 and (path := paths[name]) is not None}


def source_weights(config: RunConfig) -> dict[str, float]:
    """The share of each source, those that are not drawn included: a source's draws depend on its place.

    Raises:
        DataError: see `alpha_weights`.
    """
    data = config.data
    if data.alpha is None:
        total = math.fsum(source.weight for source in data.sources.values())
        return {name: source.weight / total for name, source in data.sources.items()}
    return alpha_weights(data.alpha, data.synthetic is not None, data.real is not None)


def validation_stores(config: RunConfig) -> dict[str, Path]:
    """The held-out stores by name."""
    return {name: locate(path) for name, path in config.data.val.items()}


def build_data(
    config: RunConfig, prompt: Prompt, features: FeatureReader | None, start_step: int = 0
) -> DialogueModule:
    """The stream of training batches from `start_step` on, and the validation sets; everything is scanned first.

    Raises:
        DataError: every fault of every store at once.
    """
    data, settings = config.data, config.trainer

    def scanned(stores: Mapping[str, Path]) -> dict[str, Scan]:
        return {name: cached_scan(Store(path), prompt, data.overlong) for name, path in stores.items()}

    sources, held_out = scanned(training_stores(config)), scanned(validation_stores(config))
    sources |= {name: sources[name].first(count) for name, count in data.first.items() if name in sources}
    raise_faults([fault for part in (*sources.values(), *held_out.values()) for fault in part.faults])
    for name, part in [*sources.items(), *held_out.items()]:
        _report(name, part)
    dataset = DialogueDataset(sources, source_weights(config), prompt, config.seed, features)
    steps = Steps(dataset, settings.dialogues_per_step, settings.tokens_per_step, settings.shared_prefix)
    val = [_held_out(part, prompt, features, settings.validation_dialogues) for part in held_out.values()]
    return DialogueModule(
        steps,
        settings.max_steps,
        val,
        settings.micro_batch,
        data.num_workers,
        start_step,
    )


def eval_examples(
    config: RunConfig, prompt: Prompt, path: Path | str, features: FeatureReader | None = None, limit: int | None = None
) -> tuple[list[Dialogue], list[Example]]:
    """Dialogues of a store and their examples, which end where the last assistant turn is to be written.

    Raises:
        DataError: every fault of the store at once.
    """
    dataset = eval_dialogues(config, prompt, path, features, limit)
    return [dataset.dialogue(n) for n in range(len(dataset))], [dataset[n] for n in range(len(dataset))]


def eval_dialogues(
    config: RunConfig, prompt: Prompt, path: Path | str, features: FeatureReader | None = None, limit: int | None = None
) -> StoreDataset:
    """The dialogues of a store as they are shown to a model that is to answer them; no audio is read yet.

    Raises:
        DataError: every fault of the store at once.
    """
    part = cached_scan(Store(locate(str(path))), prompt, config.data.overlong)
    raise_faults(part.faults)
    return _held_out(part, prompt, features, limit, generation=True)


def _held_out(
    part: Scan, prompt: Prompt, features: FeatureReader | None, limit: int | None, generation: bool = False
) -> StoreDataset:
    return StoreDataset(part.store, prompt, features, generation, part.rows[:limit], part.first_turns[:limit])


def _report(name: str, part: Scan) -> None:
    dropped = (
        f"; {len(part.dropped)} too long, left out: {', '.join(fault.where for fault in part.dropped[:5])}"
        if part.dropped
        else ""
    )
    if len(shortened := np.flatnonzero(part.first_turns)):
        named = ", ".join(part.store.place(int(part.rows[place])) for place in shortened[:5])
        turns = int(part.first_turns.sum())
        dropped += f"; {len(shortened)} too long, without their oldest turns ({turns} in all): {named}"
    print(
        f"{name}: {len(part.rows):,} dialogues, {float(part.seconds.sum()) / 3600:.2f} h heard, "
        f"{int(np.sum(part.lengths)):,} tokens, {int(np.sum(part.targets)):,} of them targets{dropped}",
        flush=True,
    )

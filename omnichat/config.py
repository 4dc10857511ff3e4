"""The schema of a run: every key with its type and range.

What a key means, its default and the default's source stand in `conf/`; no default lives here only, so that
`python train.py --help` shows every key. `validate` names every fault of a config at once.
"""

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from omnichat.recipes import compose, did_you_mean

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]
# Names become folder and file names.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
Expert = Literal["whisper", "emotion2vec", "beats"]
# What pydantic adds to the place of a fault where a key may be of several types.
UNION_TAGS = ("constrained-int", "literal['auto']")


class ConfigError(ValueError):
    """A config that cannot be run. `faults` has a line for each thing that is wrong, with its cure."""

    def __init__(self, faults: Sequence[str]) -> None:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__("\n".join([f"{count} in the config:", *(f"  {fault}" for fault in faults)]))
        self.faults = list(faults)

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[list[str]]]:
        return ConfigError, (self.faults,)


class Section(BaseModel):
    """A part of the config: typed strictly, closed to unknown keys, not to be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class WhisperConfig(Section):
    """`model.encoders.whisper`."""

    checkpoint: Text | None
    context: Literal["pad30", "trim"]


class Emotion2vecConfig(Section):
    """`model.encoders.emotion2vec`."""

    checkpoint: Text | None


class BeatsConfig(Section):
    """`model.encoders.beats`."""

    checkpoint: Text | None
    layout: Literal["tokens", "time"]


class EncodersConfig(Section):
    """`model.encoders`: those named in `model.experts` are loaded."""

    whisper: WhisperConfig
    emotion2vec: Emotion2vecConfig
    beats: BeatsConfig


class QFormerConfig(Section):
    """`model.qformer`."""

    hidden: Positive
    layers: Positive
    heads: Positive
    ffn: Positive


class LLMConfig(Section):
    """`model.llm`."""

    checkpoint: Text | None
    dtype: Literal["float32", "bfloat16"]


class LoRAConfig(Section):
    """`model.lora`."""

    enabled: bool
    rank: Positive
    alpha: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: Annotated[tuple[Text, ...], Field(min_length=1)]


class ModelConfig(Section):
    """`model`."""

    random: bool
    experts: Annotated[tuple[Expert, ...], Field(min_length=1)]
    encoders: EncodersConfig
    window: Positive
    queries: Positive
    gate: Literal["scalar", "channel", "none"]
    qformer: QFormerConfig
    llm: LLMConfig
    lora: LoRAConfig


class DataConfig(Section):
    """`data`."""

    made_up: Positive | None
    synthetic: Text | None
    real: Text | None
    alpha: Fraction
    val: dict[Name, Text]
    test: dict[Name, Text]
    input: Literal["speech", "text", "speech+text"]
    system: str
    loss_on_first: bool
    max_tokens: Positive
    overlong: Literal["error", "drop_oldest_turns", "drop_dialogue"]
    features: Literal["live", "cached"]
    features_dir: Text | None
    num_workers: Count


class TrainerConfig(Section):
    """`trainer`."""

    max_steps: Positive
    dialogues_per_step: Positive
    micro_batch: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    warmup_steps: Count
    min_learning_rate_ratio: Fraction
    weight_decay: Annotated[float, Field(ge=0)]
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]
    gradient_clip: Annotated[float, Field(gt=0)] | None
    precision: Literal["32-true", "bf16-mixed", "bf16-true"]
    accelerator: Literal["auto", "cpu", "gpu"]
    devices: Positive | Literal["auto"]
    num_nodes: Positive
    strategy: Literal["auto", "ddp", "deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_3", "fsdp"]
    activation_checkpointing: bool
    validate_every: Count
    validation_dialogues: Positive | None
    generate_dialogues: Count
    save_every: Count
    keep_last: Count
    log_every: Positive


class WandbConfig(Section):
    """`logger.wandb`."""

    mode: Literal["disabled", "offline", "online", "auto"]
    project: Text
    entity: Text | None
    group: Text | None


class LoggerConfig(Section):
    """`logger`; `metrics.jsonl` is always written."""

    tensorboard: bool
    wandb: WandbConfig


class EvaluationConfig(Section):
    """`evaluation`."""

    batch_size: Positive
    max_new_tokens: Positive
    bootstrap: Count
    seed: Count


class RunConfig(Section):
    """Everything a run depends on."""

    run_name: Name
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    resume: Text
    threads: Positive | None
    model: ModelConfig
    data: DataConfig
    trainer: TrainerConfig
    logger: LoggerConfig
    evaluation: EvaluationConfig


def load_config(*overrides: str) -> RunConfig:
    """The checked config of `python train.py OVERRIDES`.

    Raises:
        ConfigError: see `validate`.
    """
    return validate(compose(*overrides))


def validate(cfg: DictConfig) -> RunConfig:
    """Check a composed config against the schema and against itself.

    Raises:
        ConfigError: names every fault at once, each with the nearest known key or value, or a cure.
    """
    config, faults = check(cfg)
    if config is None or faults:
        raise ConfigError(faults)
    return config


def check(cfg: DictConfig) -> tuple[RunConfig | None, list[str]]:
    """The typed config, if every known key has a fitting value, and all faults found."""
    try:
        values: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        return None, [" ".join(str(error).split())]
    faults: dict[str, str] = {}
    try:
        config = RunConfig.model_validate_json(json.dumps(values))
    except ValidationError as error:
        for fault in error.errors():
            key = ".".join(str(part) for part in fault["loc"] if part not in UNION_TAGS)
            # A key that may be of two types has a fault for each of them.
            faults[key] = f"{faults[key]}; or: {fault['msg']}" if key in faults else f"{key}: {_explain(key, fault)}"
            if fault["type"] == "extra_forbidden":
                _delete(values, fault["loc"])
        try:  # unknown keys set aside, the rest may still make sense as a whole
            config = RunConfig.model_validate_json(json.dumps(values))
        except ValidationError:
            return None, list(faults.values())
    return config, [*faults.values(), *_contradictions(config)]


def _delete(values: dict[str, Any], location: Sequence[int | str]) -> None:
    for part in location[:-1]:
        values = values[str(part)]
    values.pop(str(location[-1]), None)


def _explain(key: str, fault: ErrorDetails) -> str:
    if fault["type"] == "missing":
        return "is missing; every key has its default in conf/"
    if fault["type"] == "extra_forbidden":
        known = known_keys()
        parent = key.rpartition(".")[0]
        siblings = ", ".join(name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == parent)
        return "unknown key" + (did_you_mean(key, known) or f"; {parent or 'the top level'} has {siblings}")
    choices = re.findall(r"'([^']*)'", str(fault.get("ctx", {}).get("expected", "")))
    return f"{fault['msg']} (got {fault['input']!r}){did_you_mean(str(fault['input']), choices)}"


def known_keys(section: type[Section] = RunConfig, prefix: str = "") -> list[str]:
    """Every dotted key of the schema, sections included."""
    keys = []
    for name, field in section.model_fields.items():
        keys.append(f"{prefix}{name}")
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            keys += known_keys(field.annotation, f"{prefix}{name}.")
    return keys


def _contradictions(config: RunConfig) -> list[str]:
    """What each key allows by itself, and the keys together do not."""
    model, data, trainer = config.model, config.data, config.trainer
    held_out = data.val or data.made_up
    micro_batches = _micro_batches(trainer)
    rules = [
        (len(set(model.experts)) < len(model.experts), "model.experts: names an expert twice"),
        (
            model.qformer.hidden % model.qformer.heads != 0,
            f"model.qformer: hidden {model.qformer.hidden} cannot be cut into {model.qformer.heads} heads of one width",
        ),
        (
            data.made_up is not None and (data.synthetic or data.real),
            "data.made_up: stands in for both sources; set data.synthetic=null data.real=null, or data.made_up=null",
        ),
        (
            data.alpha > 0 and not (data.synthetic or data.made_up),
            f"data.alpha: {data.alpha:g} draws synthetic dialogues; set data.synthetic, or data.alpha=0",
        ),
        (
            data.alpha < 1 and not (data.real or data.made_up),
            f"data.alpha: {data.alpha:g} draws real dialogues; set data.real, or data.alpha=1",
        ),
        (
            data.features == "cached" and data.features_dir is None,
            "data.features_dir: data.features=cached keeps frames there; name a folder, or data.features=live",
        ),
        (
            trainer.warmup_steps > trainer.max_steps,
            f"trainer.warmup_steps: {trainer.warmup_steps} is more than trainer.max_steps {trainer.max_steps}",
        ),
        (
            trainer.micro_batch not in micro_batches,
            f"trainer.micro_batch: {trainer.dialogues_per_step} dialogues a step on {_ranks(trainer) or 'any'} "
            f"rank(s) cannot be cut into micro-batches of {trainer.micro_batch}; "
            + (f"choose {_listed(micro_batches)}" if micro_batches else "change trainer.devices or dialogues_per_step"),
        ),
        (
            trainer.validate_every > 0 and not held_out,
            "trainer.validate_every: there is nothing to validate on; set data.val, or trainer.validate_every=0",
        ),
    ]
    return [*(message for broken, message in rules if broken), *_checkpoint_faults(model)]


def _checkpoint_faults(model: ModelConfig) -> list[str]:
    sections = {f"model.encoders.{name}": getattr(model.encoders, name) for name in model.experts} | {
        "model.llm": model.llm
    }
    if model.random:
        return [
            f"{key}.checkpoint: is set, but model.random=true trains on random weights; set one of them back"
            for key, section in sections.items()
            if section.checkpoint is not None
        ]
    return [
        f"{key}.checkpoint: is null; name its weights"
        + (", or leave it out of model.experts" if key != "model.llm" else "")
        for key, section in sections.items()
        if section.checkpoint is None
    ]


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:-1])) + (" or " if len(numbers) > 1 else "") + str(numbers[-1])


def _ranks(trainer: TrainerConfig) -> int | None:
    return trainer.devices * trainer.num_nodes if isinstance(trainer.devices, int) else None


def _micro_batches(trainer: TrainerConfig) -> list[int]:
    """The sizes of a micro-batch that cut a step evenly; on an unknown number of ranks, those that cut it on one."""
    share, rest = divmod(trainer.dialogues_per_step, _ranks(trainer) or trainer.num_nodes)
    return [size for size in range(1, share + 1) if share % size == 0] if rest == 0 else []

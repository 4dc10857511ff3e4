"""Composing and checking a config: `validate` names every fault at once, with a cure for each."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from omnichat.recipes import compose, did_you_mean, force, read_overrides, with_own_keys
from omnichat.schema import DataConfig, EncodersConfig, RunConfig, Section, SourceConfig, TrainerConfig

# What pydantic adds to the place of a fault where a key may be of several types.
UNION_TAGS = ("constrained-int", "literal['auto']")
# What Hydra raises for overrides; ValueError for a group that is set to null.
UNFIT = (HydraException, OmegaConfBaseException, ValueError)
# A file without these is not the config of a run, of whatever version.
NEVER_FILLED = ("run_name", "model", "data", "trainer")


class ConfigError(ValueError):
    """A config that cannot be run. `faults` has a line for each thing that is wrong, with its cure."""

    def __init__(self, faults: Sequence[str]) -> None:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__("\n".join([f"{count} in the config:", *(f"  {fault}" for fault in faults)]))
        self.faults = list(faults)

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[list[str]]]:
        return ConfigError, (self.faults,)


def load_config(*overrides: str) -> RunConfig:
    """The checked config of `python train.py OVERRIDES`.

    Raises:
        ConfigError: see `validate`; or an override that cannot be applied, or has several values.
    """
    alternatives, faults = read_overrides(with_own_keys(overrides))
    faults += [f"{word}: there is no such option; settings are key=value" for word in overrides if word[:1] == "-"]
    faults += [
        f"{values[0].partition('=')[0]}: has {len(values)} values; give one, only train.py -m takes several"
        for values in alternatives
        if len(values) > 1
    ]
    config, others = checked([values[0] for values in alternatives if values])
    faults += others
    if config is None or faults:
        raise ConfigError(faults)
    return config


def checked(overrides: Sequence[str]) -> tuple[RunConfig | None, list[str]]:
    """The config that overrides make, and all faults of both; None where an override cannot be applied."""
    first = None
    try:
        cfg = compose(*overrides)
    except UNFIT as error:
        first = " ".join(str(error).split())
        try:  # Hydra stops at the first unknown key; the schema names all of them
            cfg = compose(*map(force, overrides))
        except UNFIT:
            return None, [first]
    config, faults = check(cfg)
    return (config, faults) if first is None else (None, faults or [first])


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
    config, faults = _typed(values)
    return config, faults if config is None else [*faults, *_contradictions(config)]


def saved_config(values: object, where: Path | str) -> RunConfig:
    """The config that a run has saved; keys newer than the run get their defaults, and are named on stderr.

    Args:
        values: as it was saved.
        where: the file, for messages.

    Raises:
        ConfigError: it is not the config of a run, or has keys or values that this version does not know; names all.
    """
    if not isinstance(values, dict):
        raise ConfigError([f"{where}: is not the config of a run, but {type(values).__name__}"])
    values, filled = with_defaults(values)
    config, faults = _typed(values)
    if config is None or faults:
        raise ConfigError([f"{where}: {fault}" for fault in faults])
    if filled:
        given = ", ".join(f"{key}={json.dumps(value)}" for key, value in filled.items())
        print(f"{where}: is older than some keys, which get their defaults: {given}", file=sys.stderr)
    return config


def with_defaults(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A saved config with the keys that it lacks, at their defaults in `conf/`; and these, by dotted name."""
    lacking = _lacking(values, RunConfig)
    if not lacking:
        return dict(values), {}
    defaults: Any = OmegaConf.to_container(compose("~recipe"), resolve=True)
    whole, filled = json.loads(json.dumps(values)), {}
    for key in lacking:
        section, default = whole, defaults
        *parents, name = key.split(".")
        for parent in parents:
            section, default = section[parent], default[parent]
        section[name] = filled[key] = default[name]
    return whole, filled


def _lacking(values: Mapping[str, Any], section: type[Section], prefix: str = "") -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        if name not in values:
            keys += [] if prefix + name in NEVER_FILLED else [prefix + name]
        elif (part := _section(field.annotation)) and isinstance(values[name], dict):
            keys += _lacking(values[name], part, f"{prefix}{name}.")
    return keys


def _section(annotation: object) -> type[Section] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _typed(values: dict[str, Any]) -> tuple[RunConfig | None, list[str]]:
    faults: dict[str, str] = {}
    values = json.loads(json.dumps(values))  # where every key is a string, as faults name them
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
    return config, list(faults.values())


def _delete(values: Any, location: Sequence[int | str]) -> None:
    for part in location[:-1]:
        values = values[part]
    values.pop(location[-1], None)


def _explain(key: str, fault: ErrorDetails) -> str:
    in_sources = key.startswith("data.sources.")
    if fault["type"] == "missing":
        return f"is missing; every {'source has a path and a weight' if in_sources else 'key has its default in conf/'}"
    if fault["type"] == "extra_forbidden":
        known = known_keys()
        parent = key.rpartition(".")[0]
        if in_sources:  # the names of sources are the user's
            known = [f"{parent}.{name}" for name in SourceConfig.model_fields]
        siblings = ", ".join(name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == parent)
        return "unknown key" + (did_you_mean(key, known) or f"; {parent or 'the top level'} has {siblings}")
    choices = re.findall(r"'([^']*)'", str(fault.get("ctx", {}).get("expected", "")))
    return f"{fault['msg']} (got {fault['input']!r}){did_you_mean(str(fault['input']), choices)}"


def known_keys(section: type[Section] = RunConfig, prefix: str = "") -> list[str]:
    """Every dotted key of the schema, sections included."""
    keys = []
    for name, field in section.model_fields.items():
        keys.append(f"{prefix}{name}")
        if part := _section(field.annotation):
            keys += known_keys(part, f"{prefix}{name}.")
    return keys


def _contradictions(config: RunConfig) -> list[str]:
    """What each key allows by itself, and the keys together do not."""
    model, data, trainer = config.model, config.data, config.trainer
    rules = [
        (len(set(model.experts)) < len(model.experts), "model.experts: names an expert twice"),
        *(
            (
                name not in model.encoders.names(),
                f"model.experts: no expert {name!r}; there are {', '.join(model.encoders.names())}, and your own in "
                f"model.encoders.own{did_you_mean(name, model.encoders.names())}",
            )
            for name in model.experts
        ),
        (
            model.qformer.hidden % model.qformer.heads != 0,
            f"model.qformer: hidden {model.qformer.hidden} cannot be cut into {model.qformer.heads} heads of one width",
        ),
        *(_source_rules(data) if data.sources else _alpha_rules(data)),
        *(
            (
                name not in (data.sources or ("synthetic", "real")),
                f"data.first.{name}: there is no such source"
                + did_you_mean(name, data.sources or ("synthetic", "real")),
            )
            for name in data.first
        ),
        (
            data.features == "cached" and data.features_dir is None and config.task == "dialogue",
            "data.features_dir: data.features=cached keeps frames there; name a folder, or data.features=live",
        ),
        (
            config.init_from is not None and config.resume not in ("auto", "never"),
            "init_from: resume=PATH begins with its weights, optimizer and step; set init_from=null, or resume=auto",
        ),
        (
            trainer.warmup_steps > trainer.max_steps,
            f"trainer.warmup_steps: {trainer.warmup_steps} is more than trainer.max_steps {trainer.max_steps}",
        ),
        *_step_rules(trainer),
        (
            trainer.shared_prefix and model.lora.enabled and model.lora.dropout > 0,
            "trainer.shared_prefix: computes the system message once, where dropout would fall on all dialogues alike; "
            f"set it to false, or model.lora.dropout={model.lora.dropout:g} to 0",
        ),
        (
            trainer.compile_experts and trainer.strategy == "deepspeed_stage_3",
            "trainer.compile_experts: compiled Q-Formers cannot gather the weights that ZeRO-3 shards; set "
            "trainer.compile_experts=false, or trainer.strategy=deepspeed_stage_2 or fsdp",
        ),
        (
            model.llm.quantization is not None and trainer.strategy in ("fsdp", "deepspeed_stage_3"),
            f"trainer.strategy: {trainer.strategy} cuts the LLM into shards, which quantised weights cannot be; choose "
            "ddp or deepspeed_stage_2, or model.llm.quantization=null",
        ),
        (
            trainer.validate_every > 0 and not (data.val or data.made_up),
            "trainer.validate_every: there is nothing to validate on; set data.val, or trainer.validate_every=0",
        ),
    ]
    return [*(message for broken, message in rules if broken), *_checkpoint_faults(config)]


def _alpha_rules(data: DataConfig) -> list[tuple[bool, str]]:
    """The paper's two sources."""
    if data.alpha is None:
        return [(True, "data.alpha: is null, and data.sources has no source; set one of them")]
    return [
        (
            data.made_up is not None and bool(data.synthetic or data.real),
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
    ]


def _source_rules(data: DataConfig) -> list[tuple[bool, str]]:
    """Any number of sources, in place of the paper's two."""
    shares = "data.sources gives the shares"
    return [
        (data.alpha is not None, f"data.alpha: {shares}; set data.alpha=null, or data.sources={{}}"),
        *(
            (getattr(data, name) is not None, f"data.{name}: {shares}; set data.{name}=null, or data.sources={{}}")
            for name in ("synthetic", "real", "made_up")
        ),
        (
            not any(source.weight for source in data.sources.values()),
            "data.sources: every weight is 0, so nothing is drawn; give one source a weight",
        ),
    ]


def _step_rules(trainer: TrainerConfig) -> list[tuple[bool, str]]:
    """A step is so many dialogues, or so many tokens."""
    if trainer.tokens_per_step is not None:
        return [
            (
                trainer.dialogues_per_step is not None,
                "trainer.tokens_per_step: a step is so many tokens or so many dialogues; set "
                "trainer.dialogues_per_step=null, or trainer.tokens_per_step=null",
            )
        ]
    tokens = (
        trainer.micro_batch_tokens is not None,
        "trainer.micro_batch_tokens: a step of so many dialogues is cut by trainer.micro_batch; set it to null, or "
        "trainer.tokens_per_step with trainer.dialogues_per_step=null",
    )
    if trainer.dialogues_per_step is None:
        message = "is null, and so is trainer.tokens_per_step; say how large a step is"
        return [(True, f"trainer.dialogues_per_step: {message}")]
    sizes = _micro_batches(trainer.dialogues_per_step, _ranks(trainer) or trainer.num_nodes)
    return [
        tokens,
        (
            trainer.micro_batch not in sizes,
            f"trainer.micro_batch: {trainer.dialogues_per_step} dialogues a step on {_ranks(trainer) or 'any'} "
            f"rank(s) cannot be cut into micro-batches of {trainer.micro_batch}; "
            + (f"choose {_listed(sizes)}" if sizes else "change trainer.devices or dialogues_per_step"),
        ),
    ]


def _checkpoint_faults(config: RunConfig) -> list[str]:
    model = config.model
    ready = [name for name in model.experts if name in EncodersConfig.model_fields]  # others always have their weights
    sections = {f"model.encoders.{name}": getattr(model.encoders, name) for name in ready}
    sections |= {"model.llm": model.llm} if config.task == "dialogue" else {}  # events are told apart without
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


def _micro_batches(dialogues: int, ranks: int) -> list[int]:
    """The sizes of a micro-batch that cut a step evenly; on an unknown number of ranks, those that cut it on one."""
    share, rest = divmod(dialogues, ranks)
    return [size for size in range(1, share + 1) if share % size == 0] if rest == 0 else []

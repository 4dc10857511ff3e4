"""What a baseline's folder says of it: `config.yaml`, in the place of a run's. Light: nothing heavy is imported."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import OmegaConf
from pydantic import ValidationError

from omnichat.config import ConfigError
from omnichat.recipes import compose
from omnichat.schema import EvaluationConfig, Name, RunConfig, Section

Kind = Literal["majority", "asr_llm", "qwen2_audio"]
Given = Literal["nothing", "transcript", "speech"]
KINDS: dict[Kind, Given] = {"majority": "nothing", "asr_llm": "transcript", "qwen2_audio": "speech"}
TITLES: dict[Kind, str] = {
    "majority": "Majority: one reply to all",
    "asr_llm": "Whisper, then a language model",
    "qwen2_audio": "Qwen2-Audio, zero-shot",
}
GIVEN = {
    "nothing": "it hears and reads nothing",
    "transcript": "it reads what a recogniser wrote down, and hears nothing",
    "speech": "it hears the user",
}


class BaselineData(Section):
    """`data`: what of a user turn the baseline gets."""

    input: Given


class BaselineConfig(Section):
    """A baseline. It has what scoring and reports need of a run's config, under the same names."""

    baseline: Kind
    run_name: Name
    seed: int  # nothing is drawn; scores name a seed
    options: dict[str, str]
    data: BaselineData
    evaluation: EvaluationConfig


ScoredConfig = RunConfig | BaselineConfig  # whatever has replies that can be scored


def make_config(kind: Kind, name: str, options: Mapping[str, str], evaluation: Mapping[str, Any]) -> BaselineConfig:
    """The config of a baseline; evaluation settings that are not given are those of `conf/`.

    Raises:
        ConfigError: a setting out of range, or a name that can be none.
    """
    defaults: Any = OmegaConf.to_container(compose("~recipe").evaluation, resolve=True)
    values = {"baseline": kind, "run_name": name, "seed": 0, "options": dict(options), "data": {"input": KINDS[kind]}}
    return read_baseline({**values, "evaluation": {**defaults, **evaluation}}, "")


def read_baseline(values: Mapping[str, Any], where: Path | str) -> BaselineConfig:
    """The config that a baseline's folder holds.

    Raises:
        ConfigError: all that is wrong with it.
    """
    try:
        return BaselineConfig.model_validate(dict(values))
    except ValidationError as error:
        place = f"{where}: " if where else ""
        faults = [f"{place}{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise ConfigError(faults) from None


def config_text(config: BaselineConfig) -> str:
    """As `config.yaml` has it."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)

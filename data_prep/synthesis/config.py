"""The config of a run: a recipe, `key=value` overrides, and the check of both; every fault is named at once."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from data_prep.synthesis.backends.chat import ChatSettings
from data_prep.synthesis.backends.gates import GateSettings
from data_prep.synthesis.backends.speech import SpeechSettings
from data_prep.synthesis.contracts import Contract
from data_prep.synthesis.mixing.settings import MixSettings
from data_prep.synthesis.writing.settings import WritingSettings

RECIPES = Path(__file__).with_name("recipes")
CONFIG_FILE = "config.yaml"
# Changing these changes no result, so a run may go on with other ones.
SERVER = ("endpoints", "api_key_env", "timeout", "retries", "backoff", "longest_wait", "concurrency", "max_bytes")
SERVED = ("chat", "speech.server", "gates.recogniser.server", "gates.emotion.server")
FREE = ("execution", "prices", "chat.endpoints_of", *(f"{part}.{key}" for part in SERVED for key in SERVER))


class ConfigError(ValueError):
    """A config that cannot be run; has a line for each fault, with its cure."""


class ConversationSettings(Contract):
    """The check of whole conversations. It needs a recogniser in `gates:`; without one all pass.

    Attributes:
        max_wer: word errors over words of all spoken turns; the paper's limit is 5 %.
        max_takes: recordings of a turn; the worst turns of a conversation that fails are spoken again.
    """

    max_wer: float = Field(default=0.05, ge=0)
    max_takes: int = Field(default=4, ge=1)


class Prices(Contract):
    """What things cost, for `estimate`, in one currency.

    Attributes:
        tokens_in, tokens_out: a million tokens of the language model.
        hour: of a worker's time, by stage: a GPU's where its server waits for nothing else, or a core's.
    """

    tokens_in: float = Field(default=0, ge=0)
    tokens_out: float = Field(default=0, ge=0)
    hour: dict[Literal["scripts", "speak", "mix"], float] = Field(default_factory=dict)


class Execution(Contract):
    """Where and how wide it runs; changes no result.

    Attributes:
        executor: `local` processes, `ray`, or `inline`, in this process (one worker, for debugging).
        workers: processes or Ray actors; None is one for each core.
        ray_address: of a cluster, as ray.init takes it; None starts Ray here.
        lease_seconds: after which work of a driver that is out of sight is given to others.
    """

    executor: Literal["inline", "local", "ray"] = "local"
    workers: int | None = Field(default=None, ge=1)
    ray_address: str | None = None
    lease_seconds: float = Field(default=120, gt=0)


class Config(Contract):
    """A whole run.

    Attributes:
        name: of the corpus, in its `store.json`.
        seed: of all that is drawn.
        scripts: how many are asked for; each gives a dialogue for each branch.
        splits: share of the scripts in each split of the store.
        shard: "i/n": only scripts whose number is i modulo n.
        licence: of the corpus as a whole, in its `store.json`.
        speak_assistant: whether assistant turns are spoken too; training reads them.
        writing, chat, speech, gates, conversation, mix: the stages.
        prices, execution: see there.
    """

    name: str = Field(pattern=r"^\w[\w.-]*$")
    seed: int = Field(default=0, ge=0)
    scripts: int = Field(ge=1)
    splits: dict[str, float] = Field(default={"train": 0.9, "val": 0.05, "test": 0.05})
    shard: str | None = None
    licence: str = "Apache-2.0 (text and code); speech and sounds under the licences of their engines and clips"
    speak_assistant: bool = False
    writing: WritingSettings = WritingSettings()
    chat: ChatSettings | None = None
    speech: SpeechSettings = SpeechSettings()
    gates: GateSettings = GateSettings()
    conversation: ConversationSettings = ConversationSettings()
    mix: MixSettings = MixSettings()
    prices: Prices = Prices()
    execution: Execution = Execution()

    @field_validator("splits")
    @classmethod
    def _whole(cls, splits: dict[str, float]) -> dict[str, float]:
        if any(not 0 < share <= 1 for share in splits.values()) or abs(sum(splits.values()) - 1) > 1e-6:
            raise ValueError("are shares above 0 that sum to 1, as in {train: 0.9, test: 0.1}")
        if bad := [name for name in splits if not re.fullmatch(r"\w[\w.-]*", name)]:
            raise ValueError(f"{bad[0]!r} is not the name of a split")
        return splits

    @field_validator("shard")
    @classmethod
    def _of_several(cls, shard: str | None) -> str | None:
        if shard is not None:
            number, _, count = shard.partition("/")
            if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
                raise ValueError("is i/n with i from 0 to n-1, as in 0/4")
        return shard

    def has(self, number: int) -> bool:
        """Whether the script of this number is this shard's."""
        if self.shard is None:
            return True
        mine, count = map(int, self.shard.split("/"))
        return number % count == mine

    def dump(self) -> dict[str, Any]:
        """As JSON and YAML have it."""
        return self.model_dump(mode="json")


def recipes() -> dict[str, str]:
    """Recipes by name with their titles, the first line of each."""
    return {path.stem: path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for path in recipe_files()}


def recipe_files() -> list[Path]:
    """The shipped recipes."""
    return sorted(RECIPES.glob("*.yaml"))


def compose(arguments: Sequence[str], base: Config | None = None) -> Config:
    """The config of `recipe=NAME key=value ...`; a recipe is shipped, or a YAML file of the user's.

    Args:
        arguments: as given on the command line.
        base: what they change where they name no recipe: the config that a folder has.

    Raises:
        ConfigError: names every fault.
    """
    pairs, faults = [], []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            faults.append(f"{argument}: is not of the form key=value")
            continue
        pairs.append((key, text))
    if faults:
        raise ConfigError(_listed(faults))
    values: dict[str, Any] = base.dump() if base is not None else {}
    for name in (text for key, text in pairs if key == "recipe"):
        values = read_recipe(name)
    if base is None and not any(key == "recipe" for key, _ in pairs):
        raise ConfigError(f"recipe: is missing; name one of {', '.join(recipes())}, or a YAML file")
    for key, text in pairs:
        if key != "recipe":
            _set(values, key, text)
    return check(values)


def read_recipe(name: str) -> dict[str, Any]:
    """The values of a recipe.

    Raises:
        ConfigError: there is none, or it is not a mapping in YAML.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(recipes())
        raise ConfigError(f"recipe: {name!r} is neither a file nor one of {known}{_did_you_mean(name, recipes())}")
    return read_yaml(path)


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping from a YAML file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no keys and values")
    return values


def check(values: Mapping[str, Any]) -> Config:
    """The config of these values.

    Raises:
        ConfigError: names every fault, unknown keys with the nearest known one.
    """
    try:
        return Config.model_validate_json(json.dumps(values))
    except ValidationError as error:
        faults: dict[str, str] = {}
        for fault in error.errors():
            key = ".".join(str(part) for part in fault["loc"]) or "config"
            if fault["type"] == "extra_forbidden":
                message = f"unknown key{_did_you_mean(key, known_keys())}"
            elif fault["type"] == "missing":
                message = "is missing"
            else:
                shown = "" if fault["type"] == "value_error" else f" (got {fault['input']!r})"
                choices = re.findall(r"'([^']*)'", str(fault.get("ctx", {}).get("expected", "")))
                message = fault["msg"].removeprefix("Value error, ") + shown
                message += _did_you_mean(str(fault["input"]), choices) if choices else ""
            faults.setdefault(key, f"{key}: {message}")
        raise ConfigError(_listed(list(faults.values()))) from None
    except TypeError as error:  # a date, or what else YAML knows and JSON does not
        raise ConfigError(f"a value that is neither text, number nor list: {error}") from None


def known_keys(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every dotted key, sections included."""
    keys = []
    for name, field in section.model_fields.items():
        keys.append(f"{prefix}{name}")
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                keys += known_keys(kind, f"{prefix}{name}.")
    return keys


def differing(old: Config, new: Config, free: Sequence[str] = FREE) -> list[str]:
    """Dotted keys in which the results of two configs may differ, as `key: old -> new`."""
    before, after = _flat(old.dump()), _flat(new.dump())
    keys = [key for key in dict.fromkeys([*before, *after]) if before.get(key) != after.get(key)]
    held = [key for key in keys if not any(key == name or key.startswith(f"{name}.") for name in free)]
    return [f"{key}: {before.get(key)!r} -> {after.get(key)!r}" for key in held]


def write_config(path: Path, config: Config) -> None:
    """Write the complete config as YAML."""
    text = yaml.safe_dump(config.dump(), sort_keys=False, allow_unicode=True, width=120)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _set(values: dict[str, Any], key: str, text: str) -> None:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{key}: {text!r} is no value ({' '.join(str(error).split())})") from None
    *parents, last = key.split(".")
    section = values
    for parent in parents:
        inner = section.setdefault(parent, {})
        if not isinstance(inner, dict):
            inner = section[parent] = {}
        section = inner
    section[last] = value


def _did_you_mean(name: str, known: Any) -> str:
    from omnichat.recipes import did_you_mean  # Hydra comes with it, which only a mistake has to wait for

    return did_you_mean(name, known)


def _listed(faults: Sequence[str]) -> str:
    return faults[0] if len(faults) == 1 else "\n  ".join([f"{len(faults)} faults:", *faults])

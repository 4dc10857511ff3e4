"""Upstream's checkpoint files: read without running anything, and compared weight by weight with the network.

`.pt` files are pickles. They are read with `weights_only=True`, which builds tensors and plain containers and
nothing else. Every weight must find its place: upstream's loaders skip what does not fit and hand back a network
that is partly random.
"""

import json
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from omnichat.models.encoders.base import EncoderNet
from omnichat.weight_files import head_of, safetensors_fault, snapshot_in, torch_fault

WHISPER, EMOTION2VEC, BEATS = "an openai-whisper checkpoint", "an emotion2vec checkpoint", "a BEATs checkpoint"

Config = TypeVar("Config")
Net = TypeVar("Net", bound=EncoderNet)


class EncoderError(ValueError):
    """A checkpoint that cannot be used; the message names the file, what does not fit, and the cure."""


def read_torch(path: Path, source: str) -> dict[str, Any]:
    """The dictionary in a file of `torch.save`, its tensors on the CPU.

    Raises:
        EncoderError: where the file is absent (says where to get it: `source`), empty, truncated, of another
            format, holds objects that only code could rebuild, or no dictionary.
    """
    if not path.is_file():
        raise EncoderError(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}; {source}")
    if what := torch_fault(path):
        raise EncoderError(f"{path}: {what}; get it again: {source}")
    is_zip = head_of(path).startswith(b"PK")
    try:
        # A mapped file is read only where it is used: emotion2vec's carry an optimizer state of twice their weights.
        contents = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it asks to import `{found[1]}`" if found else "it is more than tensors in plain containers"
        raise EncoderError(
            f"{path}: refused, because {what}, and reading it would run code from the file; if you trust it, load it "
            "where that does no harm and save its tensors and configuration again as plain dictionaries"
        ) from None
    except Exception as error:  # a pickle with a flipped bit fails in any way there is
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EncoderError(f"{path}: truncated or damaged ({reason}); get it again: {source}") from None
    if not isinstance(contents, dict):
        raise EncoderError(f"{path}: holds a {type(contents).__name__}, not a dictionary of weights; {source}")
    return contents


def read_safetensors(folder: Path, source: str, skip: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The tensors of a folder's model.safetensors, or of the shards that its index names, without prefixes in `skip`.

    Raises:
        EncoderError: where a file is absent, truncated or of another format.
    """
    index = folder / "model.safetensors.index.json"
    names = _shard_names(index, source) if index.is_file() else ["model.safetensors"]
    tensors: dict[str, Tensor] = {}
    for path in (folder / name for name in names):
        if not path.is_file():
            raise EncoderError(f"{path}: no such file (weights are read as safetensors only); {source}")
        if what := safetensors_fault(path):
            raise EncoderError(f"{path}: {what}; get it again: {source}")
        try:
            with safe_open(path, framework="pt") as file:
                tensors |= {key: file.get_tensor(key) for key in file.keys() if not key.startswith(skip)}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise EncoderError(f"{path}: truncated, or no safetensors file ({error}); get it again: {source}") from None
    return tensors


def _shard_names(index: Path, source: str) -> list[str]:
    """The files that an index names, which lie beside it."""
    places = read_json(index, source).get("weight_map")
    names = list(places.values()) if isinstance(places, dict) else []
    if not names or any(not isinstance(name, str) or Path(name).name != name or "\0" in name for name in names):
        raise EncoderError(f"{index}: its weight_map names no files of this folder; get it again: {source}")
    return sorted(set(names))


def read_json(path: Path, source: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        EncoderError: where the file is absent, or holds anything else.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EncoderError(f"{path}: no such file; {source}") from None
    except (ValueError, RecursionError) as error:
        raise EncoderError(f"{path}: is no JSON ({error}); {source}") from None
    if not isinstance(contents, dict):
        raise EncoderError(f"{path}: holds a {type(contents).__name__}, not an object; {source}")
    return contents


def is_named(weights: object) -> TypeGuard[dict[str, Any]]:
    """Whether these are weights by their names, as every checkpoint has them."""
    return isinstance(weights, dict) and all(isinstance(name, str) for name in weights)


def looks_like(contents: Mapping[str, Any]) -> str:
    """What kind of checkpoint a dictionary is, in words, for an error message."""
    weights = contents.get("model", contents.get("model_state_dict", contents.get("state_dict", contents)))
    keys = [str(key) for key in weights] if isinstance(weights, Mapping) else []

    def any_key(*parts: str) -> bool:
        return any(part in key for key in keys for part in parts)

    if "dims" in contents and "model_state_dict" in contents:
        return WHISPER
    if any_key("modality_encoders.AUDIO."):
        return EMOTION2VEC
    if any_key("quantize."):
        return "a BEATs tokenizer"
    if any_key("patch_embedding.", "pos_conv.0.weight_v"):
        return BEATS
    if any_key("speech_Qformer"):
        return "a SALMONN checkpoint"
    if "pytorch-lightning_version" in contents:
        return "a Lightning checkpoint"
    if any_key("encoder.layers.0.self_attn.") and any_key("embed_positions"):
        return "the weights of a Hugging Face Whisper (give the folder with its config.json)"
    return f"a dictionary with the keys {shortened(contents)}"


def folder_looks_like(folder: Path) -> str:
    """What kind of checkpoint a folder is, in words, for an error message."""
    if snapshot := snapshot_in(folder):
        return f"a folder of the hub's cache (give what lies in {snapshot})"
    if (folder / "config.json").is_file():
        model_type = read_json(folder / "config.json", "").get("model_type")
        if model_type is not None:
            return f"a Hugging Face folder of the model type {model_type!r}"
    if (folder / "configuration.json").is_file() or (folder / "config.yaml").is_file():
        return "a FunASR folder"
    return f"a folder with {shortened(path.name for path in sorted(folder.iterdir()))}"


def shortened(names: Iterable[Any], limit: int = 8) -> str:
    """The names, quoted, the first few of many."""
    quoted = [f"`{name}`" for name in names]
    return ", ".join(quoted[:limit]) + (f" and {len(quoted) - limit} more" if len(quoted) > limit else "") or "nothing"


def read_config(config_class: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """The dataclass `config_class` from those of `values` that it has a field for.

    Raises:
        EncoderError: names every field that is missing, or is not of its type, or what the class itself refuses.
    """
    found, faults = {}, []
    for field in fields(config_class):  # type: ignore[arg-type]
        value = values.get(field.name, MISSING)
        if value is MISSING:
            if field.default is MISSING:
                faults.append(f"`{field.name}` is missing")
            continue
        try:
            found[field.name] = _convert(value, field.type)
        except (TypeError, ValueError):
            faults.append(f"`{field.name}` is {value!r}")
    if faults:
        raise EncoderError(f"{where}: {'; '.join(faults)}")
    try:
        return config_class(**found)
    except (ValueError, ArithmeticError) as error:
        raise EncoderError(f"{where}: {error}") from None


def _convert(value: Any, to: Any) -> Any:
    if to is float and isinstance(value, str | int | float):
        return float(value)  # YAML reads 1e-05, without a point, as a string
    if to is bool and value in (0, 1):  # upstream compares some of its flags with 1
        return bool(value)
    if to in (int, float, bool, str) and type(value) is not to:
        raise TypeError
    return value


def fill(
    build: Callable[[], Net], weights: Mapping[str, Any], where: Path, name_in_file: Callable[[str], str] = str
) -> Net:
    """The network that `build` makes, with these weights as float32: none left over, none left out.

    Args:
        build: makes the network; it is called where no memory is taken and no random number drawn.
        weights: tensors by their names in the file.
        where: the file, for messages.
        name_in_file: from the network's name of a weight to the file's.

    Raises:
        EncoderError: the configuration describes no network; else lists every missing weight, every extra one, every
            wrong shape or type, every one with NaN.
    """
    try:
        with torch.device("meta"):
            net = build()
    except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:  # sizes below 1, groups that do not divide
        raise EncoderError(f"{where}: its configuration describes no network ({error})") from None
    expected = {name_in_file(name): (name, tensor.shape) for name, tensor in net.state_dict().items()}
    faults = [f"missing: {name} {tuple(shape)}" for name, (_, shape) in expected.items() if name not in weights]
    faults += [f"extra: {name}" for name in weights if name not in expected]
    for name, (_, shape) in expected.items():
        tensor = weights.get(name)
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            faults.append(f"not floating point: {name} {getattr(tensor, 'dtype', type(tensor).__name__)}")
        elif tensor.shape != shape:
            faults.append(f"wrong shape: {name} is {tuple(tensor.shape)}, the configuration makes it {tuple(shape)}")
        elif not tensor.isfinite().all():
            faults.append(f"NaN or infinite: {name}")
    if faults:
        raise EncoderError(f"{where}: {len(faults)} weights do not fit:\n  " + "\n  ".join(faults))
    # Copied, so that nothing stays mapped to a file that may change.
    tensors = {own: weights[name].to(torch.float32, copy=True) for name, (own, _) in expected.items()}
    net.load_state_dict(tensors, assign=True)
    return net

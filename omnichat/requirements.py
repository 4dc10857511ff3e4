"""What a run needs from this machine: weights, data, optional packages; all that is missing, named at once."""

import importlib.util
import netrc
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from omnichat.config import RunConfig
from omnichat.recipes import locate
from omnichat.weight_files import folder_faults, mistaken_for_a_folder, torch_fault

# Where to get what the shipped recipes name: pages to look up, by key, by name and by path.
WEIGHTS = {
    "model.encoders.whisper.checkpoint": "openai-whisper's .pt file (README of openai/whisper on GitHub, 'Available "
    "models and languages') or the folder of the Hugging Face model page openai/whisper-large-v3",
    "model.encoders.emotion2vec.checkpoint": "the FunASR folder of the model page emotion2vec/emotion2vec_base "
    "(Hugging Face) or iic/emotion2vec_base (ModelScope)",
    "model.encoders.beats.checkpoint": "BEATs_iter3+ (AS2M), linked from beats/README.md of microsoft/unilm on GitHub",
    "model.llm.checkpoint": "the folder of the Hugging Face model page meta-llama/Llama-3.1-8B-Instruct; "
    "its licence is accepted there",
    "Llama-3.2-1B-Instruct": "the folder of the Hugging Face model page meta-llama/Llama-3.2-1B-Instruct; "
    "its licence is accepted there",
}
PLACES = {
    "checkpoints/tiny": "ships with this repository: git checkout checkpoints/tiny",
    "corpora/quickstart": "make quickstart makes it",
    "corpora/sharechat_mini": "make sharechat-mini makes it",
    "corpora/interact": "docs/interaction.md says how it is made",
    "corpora/dailytalk_tiny": "make experiments makes it, with DailyTalk's lists (docs/experiments.md)",
    "corpora/dailytalk": "DailyTalk (README of keonlee9420/DailyTalk on GitHub), read by "
    "python -m data_prep.dailytalk DOWNLOAD corpora/dailytalk",
    "corpora/sharechat": "ShareChatX (sharechatx.github.io; its files are not released, to our knowledge), or name a "
    "split of a store of its kind that docs/synthesis.md makes",
}
CONVERTED = "encoder.json"  # of a folder that omnichat.models.encoders.converted wrote, which has files of its own
FILES = ("model.encoders.whisper.checkpoint",)  # of those in FOLDERS, what may be a file as well
EXTRAS = {"bitsandbytes": "qlora"}  # where it is not called as the package
# What a folder of weights must hold, in the layout of its upstream; half a download lacks some of it.
FOLDERS = {
    "model.encoders.whisper.checkpoint": ("config.json",),
    "model.encoders.emotion2vec.checkpoint": ("config.yaml", "*.pt"),
    "model.llm.checkpoint": ("config.json", "tokenizer.json", "*.safetensors"),
}


def missing(config: RunConfig) -> list[str]:
    """A line for each missing file or package: the key that asks for it, which one, where to get it."""
    return _absent(_paths(config)) + [
        f"{key}: needs the package {package}; pip install -e '.[{EXTRAS.get(package, package)}]'"
        for key, package in _packages(config)
        if importlib.util.find_spec(package) is None
    ]


def named(config: RunConfig) -> dict[str, str]:
    """The paths of files that a run needs, by the key that asks for them."""
    return dict(_paths(config))


def has_wandb_key() -> bool:
    """Whether there is a key for W&B: in the environment, or in the file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    try:
        path = os.environ.get("NETRC") or Path.home() / ".netrc"
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def missing_weights(config: RunConfig) -> list[str]:
    """The same for frozen weights alone, all that a trained run needs to answer."""
    return _absent(_weights(config))


def missing_stores(config: RunConfig) -> list[str]:
    """The same for dialogues alone: those that are only scored, and sources that have no share, included."""
    data = config.data
    named = {"data.synthetic": data.synthetic, "data.real": data.real}
    named |= {f"data.sources.{name}.path": source.path for name, source in data.sources.items()}
    for kind, sets in (("val", data.val), ("test", data.test)):
        named |= {f"data.{kind}.{name}": path for name, path in sets.items()}
    return _absent((key, path) for key, path in named.items() if path is not None)


def _absent(paths: Iterator[tuple[str, str]]) -> list[str]:
    lines = []
    for key, path in paths:
        place = locate(path)
        page = WEIGHTS.get(place.name) or WEIGHTS.get(key, "correct the path")
        source = next((text for part, text in PLACES.items() if part in path), page)
        try:
            lines += [f"{key}: {fault}" for fault in _unfit(key, place, source)]
        except OSError as error:  # another's folder, a broken disk, or no name for a file
            lines.append(f"{key}: {place} cannot be read ({error.strerror}); correct the path, or its permissions")
    return lines


def _unfit(key: str, place: Path, source: str) -> list[str]:
    if not place.exists() and place.with_name(f"{place.name}.jsonl").exists():
        return [f"no folder {place}; there is a file {place.name}.jsonl: name it in full"]
    if not place.exists():
        return [f"no file {place}; {source}"]
    return _unusable(key, place, source) if key in WEIGHTS else []


def _unusable(key: str, place: Path, source: str) -> list[str]:
    """What can be seen from outside to be wrong with weights that are there: a broken download takes long to be met."""
    if place.is_file():
        what = mistaken_for_a_folder(place) if key in FOLDERS and key not in FILES else torch_fault(place)
        return [f"{place}: {what}; {source}"] if what else []
    if (place / CONVERTED).is_file():
        return []
    absent = [pattern for pattern in FOLDERS.get(key, ()) if not any(place.glob(pattern))]
    if absent and (mistake := mistaken_for_a_folder(place)):
        return [f"{place}: {mistake}"]
    pickled = sorted(path for pattern in FOLDERS.get(key, ()) if pattern == "*.pt" for path in place.glob(pattern))
    broken = [f"{path}: {what}; {source}" for path in pickled if (what := torch_fault(path))]
    return [f"no file {place / pattern}; {source}" for pattern in absent] + broken + folder_faults(place)


def _weights(config: RunConfig) -> Iterator[tuple[str, str]]:
    model = config.model
    own = model.encoders.own
    checkpoints: dict[str, str | None] = {
        f"model.encoders.{'own.' if name in own else ''}{name}": model.encoders.checkpoint(name)
        for name in model.experts
        if name in model.encoders.names()  # else the config is at fault, which is said elsewhere
    }
    checkpoints |= {"model.llm": model.llm.checkpoint} if config.task == "dialogue" else {}
    return ((f"{key}.checkpoint", path) for key, path in checkpoints.items() if path is not None)


def _paths(config: RunConfig) -> Iterator[tuple[str, str]]:
    data = config.data
    named: dict[str, str | None] = dict(_weights(config))
    named["data.synthetic"] = data.synthetic if data.alpha != 0 else None
    named["data.real"] = data.real if data.alpha != 1 else None
    named |= {f"data.sources.{name}.path": source.path for name, source in data.sources.items() if source.weight}
    named |= {f"data.val.{name}": path for name, path in data.val.items()}
    named["resume"] = None if config.resume in ("auto", "never") else config.resume
    return ((key, path) for key, path in named.items() if path is not None)


def _packages(config: RunConfig) -> Iterator[tuple[str, str]]:
    if config.trainer.strategy.startswith("deepspeed"):
        yield f"trainer.strategy={config.trainer.strategy}", "deepspeed"
    if config.model.llm.quantization is not None:
        yield f"model.llm.quantization={config.model.llm.quantization}", "bitsandbytes"
    if config.logger.tensorboard is True:
        yield "logger.tensorboard=true", "tensorboard"
    if config.logger.wandb.mode in ("offline", "online"):
        yield f"logger.wandb.mode={config.logger.wandb.mode}", "wandb"

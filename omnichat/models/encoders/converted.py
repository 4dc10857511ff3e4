"""Upstream's files saved again as safetensors and JSON, which nothing needs to be trusted to read.

`python -m data_prep.convert_encoder NAME SRC OUT` writes OUT/encoder.json (the kind of network, its sizes) and
OUT/encoder.safetensors (only what gives frames, float32); `load_encoder(NAME, OUT)` reads them.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from omnichat.models.encoders.base import Encoder, EncoderNet
from omnichat.models.encoders.beats import BeatsConfig, BeatsEncoder, BeatsNet
from omnichat.models.encoders.checkpoint_files import EncoderError, fill, read_config, read_json
from omnichat.models.encoders.emotion2vec import Emotion2vecNet
from omnichat.models.encoders.emotion2vec_config import Emotion2vecConfig
from omnichat.models.encoders.whisper import WhisperDims, WhisperEncoderNet

CONFIG_FILE, WEIGHTS_FILE = "encoder.json", "encoder.safetensors"
SOURCE = "write it again with python -m data_prep.convert_encoder"


def save_converted(encoder: Encoder, folder: Path | str) -> None:
    """Write an encoder's network as safetensors and JSON."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    net = encoder.net
    assert isinstance(net, WhisperEncoderNet | Emotion2vecNet | BeatsNet)
    sizes = asdict(net.dims if isinstance(net, WhisperEncoderNet) else net.config)
    record = {"encoder": encoder.name, "config": sizes, "labels": list(getattr(encoder, "labels", ()))}
    save_file({name: tensor.contiguous().clone() for name, tensor in net.state_dict().items()}, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def is_converted(path: Path) -> bool:
    """Whether a folder is one that `save_converted` wrote."""
    return (path / CONFIG_FILE).is_file()


def load_converted(name: str, folder: Path, **options: Any) -> Encoder:
    """The frozen encoder in such a folder, with the options of `load_encoder`.

    Raises:
        EncoderError: another encoder, a damaged file, or weights that do not fit.
    """
    record = {"labels": []} | read_json(folder / CONFIG_FILE, SOURCE)
    if record.get("encoder") != name or not isinstance(record.get("config"), dict):
        raise EncoderError(f"{folder}: holds {record.get('encoder')!r}, not {name}; {SOURCE}")
    if not isinstance(record["labels"], list):
        raise EncoderError(f"{folder / CONFIG_FILE}: its labels are no list; {SOURCE}")
    where = f"{folder / CONFIG_FILE}: config"
    build: Callable[[], EncoderNet]
    if name == "whisper":
        dims = read_config(WhisperDims, record["config"], where)
        build = lambda: WhisperEncoderNet(dims, **options)  # noqa: E731
    elif name == "emotion2vec":
        layers = record["config"].get("conv_layers")
        layers = tuple(map(tuple, layers)) if _is_table(layers) else ()
        config = read_config(Emotion2vecConfig, record["config"] | {"conv_layers": layers}, where)
        build = lambda: Emotion2vecNet(config)  # noqa: E731
    else:
        beats = read_config(BeatsConfig, record["config"], where)
        build = lambda: BeatsNet(beats, **options)  # noqa: E731
    path = folder / WEIGHTS_FILE
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise EncoderError(f"{path}: missing or damaged ({error}); {SOURCE}") from None
    net = fill(build, weights, path)
    if isinstance(net, BeatsNet):
        return BeatsEncoder(net, tuple(record["labels"]))
    return Encoder(name, net, options)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, list) for row in value)

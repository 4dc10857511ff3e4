"""Experts of one's own, beside the three: a Python file registers them, and no file of this package changes.

    # my_experts.py
    register_encoder("wavlm", WavLM)        # WavLM(path) is an `EncoderNet`

    OMNICHAT_EXPERTS=my_experts.py python train.py model.experts=[whisper,wavlm] \\
        model.encoders.own.wavlm.checkpoint=checkpoints/wavlm-base-plus

The file is named by its user, in the environment: a config, which may be somebody else's, never runs code.
"""

import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from omnichat.audio import SAMPLE_RATE
from omnichat.models.encoders.base import Encoder, EncoderNet
from omnichat.models.encoders.checkpoint_files import EncoderError

EXPERTS_FILE = "OMNICHAT_EXPERTS"
GUIDE = "docs/own_expert.md shows how"
TOLERANCE = 1e-3  # of the largest frame: how far a clip's frames in a batch may be from those alone (float32)

_LOADERS: dict[str, Callable[[Path], EncoderNet]] = {}
_CODE: dict[str, str] = {}


def register_encoder(name: str, load: Callable[[Path], EncoderNet]) -> None:
    """Make an expert known by name; registered again, it is the later one.

    Args:
        name: as in `model.experts` and `model.encoders.own`.
        load: from the checkpoint's path to its net; a class that takes the path will do.

    Raises:
        ValueError: a name that cannot be one.
    """
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) or hasattr(nn.ModuleDict, name):
        raise ValueError(f"expert {name!r}: a name is of letters, digits and _, and none that torch.nn.ModuleDict has")
    _LOADERS[name] = load
    file = sys.modules[load.__module__].__file__ if load.__module__ in sys.modules else None
    source = Path(file).read_bytes() if file and Path(file).is_file() else b""
    _CODE[name] = hashlib.sha256(source).hexdigest()[:16]


def own_options(name: str) -> dict[str, str]:
    """What its frames depend on besides its checkpoint: the file that registers it.

    Raises:
        EncoderError: see `load_own`.
    """
    _known(name)
    return {"code": _CODE[name]}


def load_own(name: str, checkpoint: Path) -> Encoder:
    """The frozen expert that was registered under a name, tried on two clips.

    Raises:
        EncoderError: nothing is registered under it, it cannot be loaded, or its frames are not as `EncoderNet` says.
    """
    load = _known(name)
    if not checkpoint.exists():
        raise EncoderError(f"{checkpoint}: no such checkpoint; correct model.encoders.own.{name}.checkpoint")
    try:
        with torch.random.fork_rng(devices=[]):  # else what is trained would begin with other weights than from a cache
            net = load(checkpoint)
    except Exception as error:  # whatever the user's code raises
        raise EncoderError(f"{checkpoint}: {name} cannot be loaded ({type(error).__name__}: {error})") from error
    if not isinstance(net, EncoderNet):
        raise EncoderError(f"{name}: its loader gives {type(net).__name__}, not an EncoderNet; {GUIDE}")
    encoder = Encoder(name, net, own_options(name))
    _try(name, net)
    return encoder


def _known(name: str) -> Callable[[Path], EncoderNet]:
    file = os.environ.get(EXPERTS_FILE)
    if name not in _LOADERS and file:
        from omnichat.recipes import locate  # with it comes Hydra, which encoders do without

        _run(locate(file))
    if name not in _LOADERS:
        there = f"{EXPERTS_FILE}={file} registers {', '.join(_LOADERS) or 'none'}" if file else f"set {EXPERTS_FILE}"
        raise EncoderError(
            f"no encoder {name!r}; there are whisper, emotion2vec, beats, and nothing is registered: {there}; {GUIDE}"
        )
    return _LOADERS[name]


def _run(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise EncoderError(f"{EXPERTS_FILE}: {path} is no Python file; {GUIDE}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # before it runs: `register_encoder` looks up its file there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[path.stem]
        raise EncoderError(f"{EXPERTS_FILE}: {path} failed ({type(error).__name__}: {error})") from error


@torch.no_grad()
def _try(name: str, net: EncoderNet) -> None:
    """Two clips, alone and together: what breaks a promise of `EncoderNet` would otherwise only make training worse."""
    lengths = torch.tensor([SAMPLE_RATE, SAMPLE_RATE * 7 // 8])
    waves = torch.randn(2, SAMPLE_RATE, generator=torch.Generator().manual_seed(0)) / 10
    waves[1, lengths[1] :] = 0
    try:
        together, counts = net(waves, lengths)
        alone = [net(waves[n : n + 1, :length], lengths[n : n + 1])[0][0] for n, length in enumerate(lengths)]
        expected = [net.num_frames(int(length)) for length in lengths]
        shape = (2, expected[0], net.dim)
    except Exception as error:
        raise EncoderError(f"{name}: fails on two clips ({type(error).__name__}: {error}); {GUIDE}") from error
    if not 45 <= expected[0] <= 50:  # of the three: 50, 49, 48
        raise EncoderError(f"{name}: gives {expected[0]} frames for 1 s, where experts have 50; resample them; {GUIDE}")
    if tuple(together.shape) != shape or counts.tolist() != expected:
        raise EncoderError(
            f"{name}: gives frames of {tuple(together.shape)} and counts {counts.tolist()}, its num_frames and dim say "
            f"{shape} and {expected}; {GUIDE}"
        )
    if not torch.isfinite(together).all() or together[1, expected[1] :].any():
        raise EncoderError(f"{name}: frames beyond a clip's own count must be zero, and all of them finite; {GUIDE}")
    for number, count in enumerate(expected):
        apart = (together[number, :count] - alone[number][:count]).abs().max() / alone[number].abs().max().clamp(1e-9)
        if apart > TOLERANCE:
            raise EncoderError(
                f"{name}: a clip's frames differ by {apart:.1%} in a batch from those alone, so they would depend on "
                f"chance; mask what is padded, or encode clip by clip; {GUIDE}"
            )

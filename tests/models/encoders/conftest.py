"""Golden files: what upstream's own code gives for these recordings (tests/golden/manifest.json names the commits)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnichat.models.encoders import Encoder, load_encoder

GOLDEN = Path(__file__).parents[2] / "golden"
CLIPS = ("w1_1000ms", "w2_3370ms", "w4_562ms")
EXPERTS = {
    "whisper-pad30": ("whisper", "whisper/whisper80.pt", {"context": "pad30"}),
    "whisper-trim": ("whisper", "whisper/whisper80.pt", {"context": "trim"}),
    "emotion2vec": ("emotion2vec", "emotion2vec/base", {}),
    "beats": ("beats", "beats/beats_pretrained.pt", {}),
    "beats-prenorm": ("beats", "beats/beats_prenorm.pt", {}),
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The golden arrays were made on one thread; so tiny networks run fastest too."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden files."""
    return GOLDEN


@pytest.fixture(scope="session")
def case() -> Callable[[str], tuple[dict[str, Any], dict[str, NDArray[np.float32]]]]:
    """A case of the manifest (its tolerances) and its arrays."""
    cases = {entry["case"]: entry for entry in json.loads((GOLDEN / "manifest.json").read_text())["cases"]}

    def read(name: str) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
        return cases[name], dict(np.load(GOLDEN / cases[name]["output"]))

    return read


@pytest.fixture(scope="session")
def waves() -> dict[str, Tensor]:
    """The golden recordings, (S,) float32."""
    return {name: torch.from_numpy(soundfile.read(GOLDEN / f"audio/{name}.wav", dtype="float32")[0]) for name in CLIPS}


@pytest.fixture(scope="session")
def batch(waves: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The recordings in one batch, padded with what is no silence; and their lengths."""
    lengths = torch.tensor([len(waves[name]) for name in CLIPS])
    padded = torch.full((len(CLIPS), int(lengths.max()) + 700), 0.3)
    for row, name in enumerate(CLIPS):
        padded[row, : lengths[row]] = waves[name]
    return padded, lengths


@pytest.fixture(params=EXPERTS)
def expert(request: pytest.FixtureRequest) -> Encoder:
    """Each tiny golden encoder in turn, freshly loaded."""
    name, checkpoint, options = EXPERTS[request.param]
    return load_encoder(name, GOLDEN / checkpoint, **options)

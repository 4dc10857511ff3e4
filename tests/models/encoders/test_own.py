"""An expert of one's own: what docs/own_expert.md shows works, from its file to training, caching and chat."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMModel

from omnichat.build import sized_model
from omnichat.chat import load_run
from omnichat.config import ConfigError, load_config
from omnichat.models.encoders import EncoderError, EncoderNet, load_encoder, own, register_encoder
from omnichat.run_folder import read_metrics
from omnichat.training.fit import fit

ROOT = Path(__file__).parents[3]
(SHOWN,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "own_expert.md").read_text(encoding="utf-8"), re.DOTALL)
QUICK = ("data.made_up=4", "trainer.max_steps=1", "trainer.warmup_steps=1", "trainer.validate_every=0", "preflight=off")


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is its own."""
    monkeypatch.setattr(own, "_LOADERS", {})
    monkeypatch.setattr(own, "_CODE", {})


@pytest.fixture(scope="module")
def wavlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny WavLM with random weights, as Hugging Face lays it out; its group norm leaks padding into a batch."""
    folder = tmp_path_factory.mktemp("wavlm")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    convolutions = {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    WavLMModel(WavLMConfig(**sizes, **convolutions)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the guide shows, named as it says."""
    path = tmp_path / "my_experts.py"
    path.write_text(SHOWN)
    monkeypatch.setenv(own.EXPERTS_FILE, str(path))
    return path


def test_training_caching_and_chat_with_a_fourth_expert(file: Path, wavlm: Path, tmp_path: Path) -> None:
    """No file of the package names it; frames that were cached for other code must not be taken for its own."""
    experts = ("model.experts=[whisper,wavlm]", f"model.encoders.own.wavlm.checkpoint={wavlm}")
    cached = ("data.features=cached", f"data.features_dir={tmp_path / 'features'}")
    assert fit(load_config("recipe=smoke", *QUICK, *experts), tmp_path / "live") == 0
    assert fit(load_config("recipe=smoke", *QUICK, *experts, *cached), tmp_path / "cached") == 0
    losses = [read_metrics(tmp_path / name)[-1] for name in ("live", "cached")]
    assert losses[0]["loss/total"] == pytest.approx(losses[1]["loss/total"], rel=1e-6)
    assert any(key.startswith("gate/wavlm/") for key in losses[0])
    assert losses[0]["perf/tflops_per_s"] * losses[0]["perf/seconds"] > (
        losses[1]["perf/tflops_per_s"] * losses[1]["perf/seconds"]
    )  # what the experts compute is counted too
    assert list(load_run(tmp_path / "live").model.mixformer.widths) == ["whisper", "wavlm"]
    kept = sorted(path.name for path in (tmp_path / "features").glob("wavlm-*"))
    file.write_text(SHOWN + "# another one\n")
    own._LOADERS.clear()
    assert fit(load_config("recipe=smoke", *QUICK, *experts, *cached), tmp_path / "changed") == 0
    assert len(list((tmp_path / "features").glob("wavlm-*"))) == 2 * len(kept) == 2
    with pytest.raises(ValueError, match=r"wavlm: .* has the sha256"):  # going on with other code
        fit(load_config("recipe=smoke", *QUICK, *experts, "trainer.max_steps=2"), tmp_path / "live")


def test_what_is_wrong_with_it_is_named(
    file: Path, wavlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the words of whoever wrote it: which file, which line of thought, and where it is explained."""
    with pytest.raises(ConfigError, match=r"model\.experts: no expert 'wavlm'; there are whisper, emotion2vec, beats"):
        load_config("recipe=smoke", "model.experts=[wavlm]")
    sizes = ("recipe=dailytalk", "model.experts=[whisper,wavlm]", f"model.encoders.own.wavlm.checkpoint={wavlm}")
    with pytest.raises(ConfigError, match="what wavlm computes is not known"):
        sized_model(load_config(*sizes))
    with pytest.raises(EncoderError, match=r"my_experts\.py registers wavlm.*own_expert\.md"):
        load_encoder("hubert", wavlm)
    with pytest.raises(EncoderError, match=r"no such checkpoint; correct model\.encoders\.own\.wavlm\.checkpoint"):
        load_encoder("wavlm", tmp_path / "none")
    with pytest.raises(EncoderError, match=r"wavlm cannot be loaded \(ValueError: Unrecognized model"):
        load_encoder("wavlm", tmp_path)
    own._LOADERS.clear()
    file.write_text("import nothing_of_this_name")
    with pytest.raises(EncoderError, match=r"my_experts\.py failed \(ModuleNotFoundError"):
        load_encoder("wavlm", wavlm)
    monkeypatch.setenv(own.EXPERTS_FILE, str(tmp_path / "none.py"))
    with pytest.raises(EncoderError, match=r"none\.py is no Python file"):
        load_encoder("wavlm", wavlm)
    monkeypatch.delenv(own.EXPERTS_FILE)
    with pytest.raises(EncoderError, match="set OMNICHAT_EXPERTS"):
        load_encoder("wavlm", wavlm)
    with pytest.raises(ValueError, match="expert 'keys'"):
        register_encoder("keys", Kept)


class Kept(EncoderNet):
    """A net that keeps every promise: windows of 20 ms, weighted."""

    dim, min_samples = 4, 320

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(320, 4))

    def num_frames(self, num_samples: int) -> int:
        """One for each 320 samples."""
        return num_samples // 320

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Frames beyond a clip's own count are zero."""
        counts = lengths // 320
        frames = waves[:, : waves.shape[1] // 320 * 320].unflatten(1, (-1, 320)) @ self.weight
        inside = torch.arange(frames.shape[1]) < counts[:, None]
        return frames * inside[..., None], counts


class Leaking(Kept):
    """What is padded changes a clip's frames."""

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """By the mean of the whole row."""
        frames, counts = super().forward(waves - waves.std(1, keepdim=True), lengths)
        return frames, counts


class Unmasked(Kept):
    """Frames beyond a clip's count are not zero."""

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """All of them are one more."""
        frames, counts = super().forward(waves, lengths)
        return frames + 1, counts


class Miscounted(Kept):
    """It gives fewer frames than it says."""

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """By one."""
        frames, counts = super().forward(waves, lengths)
        return frames[:, 1:], counts - 1


class Narrow(Kept):
    """Its frames are narrower than it says."""

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """By one."""
        frames, counts = super().forward(waves, lengths)
        return frames[..., 1:], counts


class Uncounted(Kept):
    """It takes padding for frames."""

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """All of them."""
        frames, counts = super().forward(waves, lengths)
        return frames, torch.full_like(counts, frames.shape[1])


class Overflowing(Kept):
    """A frame that is no number, in a clip's own."""

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The first."""
        frames, counts = super().forward(waves, lengths)
        frames[:, 0] = torch.inf
        return frames, counts


class Fast(Kept):
    """100 frames a second."""

    def num_frames(self, num_samples: int) -> int:
        """One for each 160 samples."""
        return num_samples // 160


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (Leaking, "differ by .* in a batch from those alone"),
        (Unmasked, "beyond a clip's own count must be zero"),
        (Miscounted, r"its num_frames and dim say \(2, 50, 4\)"),
        (Narrow, r"gives frames of \(2, 50, 3\)"),
        (Uncounted, r"counts \[50, 50\], its num_frames and dim say .* \[50, 43\]"),
        (Overflowing, "all of them finite"),
        (Fast, "gives 100 frames for 1 s, where experts have 50"),
        (lambda path: torch.nn.Linear(1, 1), "gives Linear, not an EncoderNet"),
    ],
)
def test_a_broken_promise_is_found_before_training(
    load: Callable[[Path], EncoderNet], said: str, tmp_path: Path
) -> None:
    """Each of these would train without a word, and give worse or unrepeatable numbers."""
    register_encoder("kept", Kept)
    assert load_encoder("kept", tmp_path).dim == 4
    register_encoder("mine", load)
    with pytest.raises(EncoderError, match=said):
        load_encoder("mine", tmp_path)


class Summing(Kept):
    """No matrix product, so nothing that could be counted."""

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Means of the windows of 20 ms."""
        counts = lengths // 320
        frames = waves[:, : waves.shape[1] // 320 * 320].unflatten(1, (-1, 320)).mean(-1, keepdim=True)
        inside = torch.arange(frames.shape[1]) < counts[:, None]
        return (frames * inside[..., None]).expand(-1, -1, 4), counts


def test_what_cannot_be_counted_is_said_and_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A share of the peak without one of its parts would be a wrong figure, and no reason to end a run."""
    register_encoder("summing", Summing)
    experts = ("model.experts=[whisper,summing]", f"model.encoders.own.summing.checkpoint={tmp_path}")
    assert fit(load_config("recipe=smoke", *QUICK, *experts), tmp_path / "run") == 0
    assert "what summing computes cannot be counted (ValueError: torch counts no" in capsys.readouterr().out
    assert "perf/tflops_per_s" not in read_metrics(tmp_path / "run")[-1]

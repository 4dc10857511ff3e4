"""The count of arithmetic behind `perf/mfu`, against torch's own counter of what really ran."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from omnichat.batch import pack
from omnichat.models.encoders import Encoder, EncoderNet
from omnichat.training.flops import (
    count_own,
    encoder_flops,
    language_model_flops,
    mixformer_flops,
    peak_flops,
    step_flops,
)
from tests.spoken import DIALOGUES, cached, make_examples, make_model, make_prompt

ATTENTION = ("scaled_dot_product", "flash")


def counted(work) -> tuple[float, float]:
    """FLOPs of matrix products and convolutions, and of attention, which torch counts without regard to causality."""
    with FlopCounterMode(display=False) as counter:
        work()
    by_kind = counter.get_flop_counts()["Global"]
    attention = sum(count for kind, count in by_kind.items() if any(part in str(kind) for part in ATTENTION))
    return sum(by_kind.values()) - attention, attention


def test_language_model_and_mixformer() -> None:
    """Fails when a term is left out or counted twice: frozen weights, adapters, logits, windows, the backward."""
    model = make_model()
    examples = [cached(model, example) for example in make_examples(make_prompt(), dialogues=DIALOGUES[1:2])]
    batch = pack(examples)
    lengths = [len(example.tokens.ids) for example in examples]
    windows = len(batch.slots)

    linear, _ = counted(lambda: model(batch).total.backward())
    attention = 6 * sum(length**2 for length in lengths) * 32 * 2  # width 32, two layers
    ours = language_model_flops(model.llm, lengths, batch.num_targets) - attention
    ours += 3 * mixformer_flops(model.mixformer, windows)
    # Torch also counts what is computed for padded windows and leaves out what needs no gradient: experts' own frames.
    assert linear == pytest.approx(ours, rel=0.1)
    fewer = batch._replace(targets=batch.targets[:1])
    less = linear - counted(lambda: model(fewer).total.backward())[0]
    assert less == ours + attention - language_model_flops(model.llm, lengths, 1) - 3 * mixformer_flops(
        model.mixformer, windows
    )
    model.encoders.clear()
    assert step_flops(model, lengths, batch.num_targets, batch.num_samples) == pytest.approx(ours + attention)


def test_a_shared_prefix_is_work_that_is_not_done() -> None:
    """Fails when utilisation counts tokens that were never computed."""
    model = make_model()
    examples = [cached(model, example) for example in make_examples(make_prompt(system="Listen, and be kind. " * 5))]
    alone, together = pack(examples), pack(examples, share_prefix=True)
    assert together.shared is not None
    saved = counted(lambda: model(alone).total.backward())[0] - counted(lambda: model(together).total.backward())[0]
    lengths = alone.starts.diff().tolist()
    each, once = (language_model_flops(model.llm, lengths, 0, shared) for shared in (0, together.shared.length))
    again = len(lengths) - 1
    attention = 6 * again * together.shared.length**2 * 32 * 2
    assert saved == pytest.approx(each - once - attention, rel=0.02)
    assert step_flops(model, lengths, 0, [], together.shared) == pytest.approx(once)


@pytest.mark.parametrize(
    ("name", "spectrogram", "tokens", "blocks"),
    [
        ("whisper", 2 * 80 * 201 * 700, 350, 2),  # 80 mel bands of 201 frequencies, 700 frames
        ("emotion2vec", 0, 349 + 10, 4),  # ten extra tokens; prenet and blocks
        ("beats", 2 * 128 * 257 * 698, 344, 2),  # 128 bands of 257 frequencies; 43 time steps of 8 bands
    ],
)
def test_encoders(name: str, spectrogram: int, tokens: int, blocks: int) -> None:
    """Fails when convolutions, attention or a projection of an expert are missing from the count."""
    encoder = make_model().encoders[name]
    assert isinstance(encoder, Encoder)
    wave = torch.randn(1, 7 * 16_000)
    linear, attention = counted(lambda: encoder.encode(wave, [wave.shape[1]]))
    attention = attention or 4 * tokens**2 * 32 * blocks  # torch leaves the CPU's own attention out
    assert encoder_flops(encoder, wave.shape[1]) == pytest.approx(linear - spectrogram + attention, rel=0.02)


def test_an_expert_of_one_s_own_is_counted_by_what_it_does() -> None:
    """Fails when attention is left out, or a clip of another length than those it was counted on costs too little."""
    encoder = make_model().encoders["emotion2vec"]
    assert isinstance(encoder, Encoder)
    before = torch.random.get_rng_state()
    curve = count_own(encoder)
    assert torch.equal(torch.random.get_rng_state(), before)
    for seconds in (5, 30):
        assert curve(seconds) == pytest.approx(encoder_flops(encoder, seconds * 16_000), rel=0.01)
    own = step_flops(make_model(), [], 0, [7 * 16_000], own={"emotion2vec": curve, "beats": lambda seconds: 1e9})
    known = step_flops(make_model(), [], 0, [7 * 16_000])
    beats = encoder_flops(make_model().encoders["beats"], 7 * 16_000)
    assert own - known == pytest.approx(1e9 - beats, rel=0.01)


class Uneven(EncoderNet):
    """It multiplies matrices once for each frame, and beyond `seconds` twice."""

    dim, min_samples = 2, 320

    def __init__(self, seconds: int, products: bool = True) -> None:
        super().__init__()
        self.weight, self.seconds, self.products = torch.nn.Parameter(torch.ones(320, 2)), seconds, products

    def num_frames(self, num_samples: int) -> int:
        """One for each 320 samples."""
        return num_samples // 320

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The same frames in any case."""
        parts = waves.unflatten(1, (-1, 320))
        for _ in range(2 if waves.shape[1] > self.seconds * 16_000 else 1):
            frames = parts @ self.weight if self.products else parts.sum(-1, keepdim=True).expand(-1, -1, 2)
        return frames, lengths // 320


def test_what_cannot_be_counted_is_said() -> None:
    """Fails when a curve is made up for an expert whose work does not follow one."""
    assert count_own(Encoder("even", Uneven(30)))(10) == pytest.approx(2 * 500 * 320 * 2)
    with pytest.raises(ValueError, match="counts no matrix product"):
        count_own(Encoder("sums", Uneven(30, products=False)))
    with pytest.raises(ValueError, match=r"do not grow evenly with a clip: 64,000 in 1 s, .* 768,000 in 6 s"):
        count_own(Encoder("uneven", Uneven(4)))


def test_a_cpu_has_no_peak() -> None:
    """Fails when a utilisation is made up for a device whose peak is not known."""
    assert peak_flops(torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA A10G", None),
        ("NVIDIA RTX A4000", None),
        ("NVIDIA GB200", None),
    ],
)
def test_a_peak_is_the_device_s_own(name: str, peak: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An A4000 is no A40: a share of another device's peak would be a wrong figure in every log."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda")) == peak

"""The arms: each computes the mean loss of a step's dialogues and updates the same kind of weights.

The project's arms, the plain loop and the SALMONN-style step share one language model and, but for the last, one
Mix-Former, so that they start from the same numbers and none pays for another's weights.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from benchmarks.gpu.clock import Clock, Hooks
from benchmarks.gpu.data import PaddedBatch, on_device
from benchmarks.rows import padded_loss
from benchmarks.salmonn import SalmonnFront
from omnichat.audio import HOP, PIECE, WINDOW, num_frames
from omnichat.batch import PackedBatch
from omnichat.models.encoders import Encoder
from omnichat.models.encoders.whisper import HUGGING_FACE_NAMES, WhisperEncoderNet
from omnichat.models.mixformer import MixFormer
from omnichat.models.omnichat import OmniChat
from omnichat.models.packed import PACKED
from omnichat.prompt import IGNORE
from omnichat.training.optim import Verdict, build_optimizer, leave_out_unless, leaves_out_by_itself

CLIP = 1.0


class Arm(ABC):
    """One way to train on a step; its micro-batches lie on the host."""

    attention = PACKED
    autocast = True
    heard: Mapping[str, nn.Module] = {}  # the experts' nets by name

    def __init__(self, llm: LlamaForCausalLM, front: nn.Module, device: torch.device) -> None:
        self.llm, self.front, self.device = llm, front, device
        parts = {"llm": llm, "front": front}
        self.trainable = {
            f"{part}.{name}": parameter
            for part, module in parts.items()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self.optimizer = self.make_optimizer()
        self._before: Verdict | None = None

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The project's."""
        return build_optimizer(dict(self.trainable), 1e-5, weight_decay=0.05, betas=(0.9, 0.999))

    @abstractmethod
    def loss(self, batch: PackedBatch | PaddedBatch) -> Tensor:
        """The sum of the losses of a micro-batch on the device."""

    def backward(self, micro_batches: Sequence[PackedBatch | PaddedBatch], targets: int, clock: Clock) -> Tensor:
        """Gradients of the mean loss over all micro-batches, which is returned."""
        self.llm.set_attn_implementation(self.attention)
        total = torch.zeros((), device=self.device)
        after = {**self.heard, "Mix-Former": self.front, "LLM forward": self.llm.model.norm}
        stages = Hooks(clock, {"encoders": self.front}, after)  # encoders: what comes after the last of their nets
        for host in micro_batches:
            batch = on_device(host, self.device)
            clock.mark("transfer")
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast), stages:
                loss = self.loss(batch) / targets
            clock.mark("logits, loss")
            loss.backward()
            clock.mark("backward")
            total += loss.detach()
        return total

    def step(self, micro_batches: Sequence[PackedBatch | PaddedBatch], targets: int, clock: Clock) -> Tensor:
        """One update; the loss before it."""
        loss = self.backward(micro_batches, targets, clock)
        finite = nn.utils.clip_grad_norm_(self.trainable.values(), CLIP).isfinite()
        # As training does (training/guard.py): the CPU waits for nothing but the step before.
        if self._before is not None:
            self._before.sound()
        self._before = Verdict(finite)
        if leaves_out_by_itself(self.optimizer):
            leave_out_unless(finite, self.optimizer)
        self.optimizer.step()
        self.optimizer.zero_grad()
        clock.mark("optimizer")
        return loss

    def gradients(self, micro_batches: Sequence[PackedBatch | PaddedBatch], targets: int) -> tuple[float, Tensor]:
        """Loss and all gradients as one vector, on the host; none are left behind."""
        loss = self.backward(micro_batches, targets, Clock(self.device))
        found = torch.cat([parameter.grad.flatten().cpu() for parameter in self.trainable.values()])  # type: ignore
        self.optimizer.zero_grad()
        return float(loss), found


class Project(Arm):
    """The project's model on packed dialogues."""

    def __init__(self, model: OmniChat, device: torch.device, autocast: bool = True) -> None:
        self.model = model
        super().__init__(model.llm, model.mixformer, device)
        self.autocast = autocast
        self.heard = {name: cast(Encoder, encoder).net for name, encoder in model.encoders.items()}

    def loss(self, batch: PackedBatch | PaddedBatch) -> Tensor:
        """As training computes it."""
        assert isinstance(batch, PackedBatch)
        return self.model(batch).total


class PlainLoop(Arm):
    """As one writes it with transformers and PEFT: padding, 30 s for Whisper, the logits of all positions.

    The Mix-Former is the project's, all windows in one call, so that no ratio is owed to it.
    """

    attention = "sdpa"

    def __init__(
        self, encoders: Mapping[str, Encoder], mixformer: MixFormer, llm: LlamaForCausalLM, device: torch.device
    ) -> None:
        super().__init__(llm, mixformer, device)
        self.hear_with(encoders)

    def hear_with(self, encoders: Mapping[str, Encoder]) -> None:
        """The project's emotion2vec and BEATs, and transformers' Whisper with the same weights."""
        self.encoders = encoders
        self.whisper = hugging_face_whisper(encoders["whisper"])
        self.heard = {name: encoder.net for name, encoder in encoders.items()} | {"whisper": self.whisper}

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Torch's default."""
        return torch.optim.AdamW(self.trainable.values(), lr=1e-5, weight_decay=0.05)

    def loss(self, batch: PackedBatch | PaddedBatch) -> Tensor:
        """From padded dialogues."""
        assert isinstance(batch, PaddedBatch)
        counts = torch.tensor([num_frames(samples) for samples in batch.num_samples])
        features = self.frames(batch, int(counts.max()))
        heard = self.front(features, counts).embeds
        own = torch.arange(heard.shape[1]) < -(-counts // WINDOW)[:, None]
        return self.answer(batch, heard[own.to(self.device)].flatten(0, 1))

    def frames(self, batch: PaddedBatch, longest: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Each expert's frames of all clips in one call."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            features = {
                "whisper": (self.whisper(batch.mel).last_hidden_state[:, :longest], (batch.lengths // HOP + 1) // 2)
            }
            for name in ("emotion2vec", "beats"):
                features[name] = self.encoders[name].net(batch.waves, batch.lengths)
        return features

    def answer(self, batch: PaddedBatch, heard: Tensor) -> Tensor:
        """The loss that `LlamaForCausalLM` computes, times the targets; `heard` (slots, D) goes into the slots."""
        return padded_loss(self.llm, batch.rows, heard) * (batch.labels[:, 1:] != IGNORE).sum()


class SalmonnStyle(PlainLoop):
    """A step with SALMONN's shapes, written for this comparison; its weights have no counterpart in the other arms."""

    attention = "eager"

    def __init__(
        self, encoders: Mapping[str, Encoder], front: SalmonnFront, llm: LlamaForCausalLM, device: torch.device
    ) -> None:
        Arm.__init__(self, llm, front, device)
        self.hear_with(encoders)

    def loss(self, batch: PackedBatch | PaddedBatch) -> Tensor:
        """Every clip has 88 windows of 30 s, most of them silence."""
        assert isinstance(batch, PaddedBatch)
        frames = self.frames(batch, num_frames(PIECE))
        return self.answer(batch, self.front([found for found, _ in frames.values()]))


def hugging_face_whisper(encoder: Encoder) -> WhisperEncoder:
    """transformers' Whisper encoder around the same weights."""
    net = encoder.net
    assert isinstance(net, WhisperEncoderNet)
    dims = net.dims
    config = WhisperConfig(
        num_mel_bins=dims.n_mels,
        d_model=dims.n_audio_state,
        encoder_layers=dims.n_audio_layer,
        encoder_attention_heads=dims.n_audio_head,
        encoder_ffn_dim=4 * dims.n_audio_state,
    )
    with torch.device("meta"):
        theirs = WhisperEncoder(config)
    weights = {}
    for name, tensor in net.state_dict().items():
        for ours, other in HUGGING_FACE_NAMES.items():
            name = name.replace(ours, other)
        weights[name] = tensor
    theirs.load_state_dict(weights, assign=True)
    theirs.config._attn_implementation = "sdpa"
    return theirs.requires_grad_(False).eval()

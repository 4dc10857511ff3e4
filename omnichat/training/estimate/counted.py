"""What a run takes on each GPU, counted from its config."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import cast

from omnichat.audio import SAMPLE_RATE
from omnichat.build import sized_model
from omnichat.config import RunConfig, load_config
from omnichat.models.encoders import Encoder
from omnichat.models.omnichat import OmniChat
from omnichat.training.flops import PEAKS, encoder_flops, language_model_flops, step_flops
from omnichat.training.memory import Memory, MicroBatch, estimate_memory

GIB = 2**30
# GPU -> the name its peak goes by in `flops.PEAKS`, and GiB as the driver counts them.
GPUS = {
    "RTX 4090 24 GB": ("RTX 4090", 24.0),
    "A100 80 GB": ("A100", 80.0),
    "A800 80 GB": ("A800", 80.0),
    "H100 80 GB": ("H100", 79.6),
    "H200 141 GB": ("H200", 140.4),
}
USABLE = 0.92  # the rest: the driver's context, buffers of collectives, fragments; ours
# Shares of the peak, from one measured step (benchmarks/RESULTS.md, "On one H200"); assumed of every other GPU.
MFU = {True: 0.528, False: 0.403}  # with trainer.compile, and without
EXPERTS_SHARE = {"pad30": 0.31, "trim": 0.144}  # 1,366 and 466 ms for all three experts
# The dialogue that is assumed: the mean of the steps that were measured, with ShareChatX's lengths (paper, Table 1).
TOKENS, TARGETS, CLIPS, SECONDS = 246.3, 97.2, 3.67, 4.26


@dataclass(frozen=True)
class Step:
    """What one GPU computes in a step.

    Attributes:
        usual: a micro-batch of mean dialogues.
        largest: one in which every dialogue is as long as `data.max_tokens` allows.
        micro_batches: of a step.
        model_flops: of a step on all GPUs, as `perf/mfu` counts.
    """

    usual: MicroBatch
    largest: MicroBatch
    micro_batches: float
    ranks: int
    model_flops: float


@dataclass(frozen=True)
class Estimate:
    """A run on a GPU: bytes at the peak for mean and for longest dialogues, seconds a step, hours."""

    usual: Memory
    largest: Memory
    seconds: float
    hours: float
    capacity: float

    @property
    def fits(self) -> str:
        """`yes`; `mean` where only dialogues of mean length do; `no`."""
        room = USABLE * self.capacity
        return "yes" if self.largest.total <= room else "mean" if self.usual.total <= room else "no"


def micro_batch_of(dialogues: float, tokens: float = TOKENS) -> MicroBatch:
    """So many dialogues of so many tokens; what is heard and what is learnt grows with them."""
    longer = tokens / TOKENS
    clips = max(1, round(dialogues * CLIPS * longer))
    heard = round(dialogues * CLIPS * longer * SECONDS * SAMPLE_RATE)
    return MicroBatch(round(dialogues * tokens), round(dialogues * TARGETS * longer), [heard // clips] * clips)


def step_of(config: RunConfig, model: OmniChat) -> Step:
    """What the config makes of a step; `devices: auto` is taken for one."""
    trainer = config.trainer
    ranks = trainer.num_nodes * (trainer.devices if isinstance(trainer.devices, int) else 1)
    if trainer.dialogues_per_step is not None:
        dialogues, each = float(trainer.dialogues_per_step), float(trainer.micro_batch)
        largest = micro_batch_of(each, config.data.max_tokens)
    else:
        budget = float(trainer.tokens_per_step or 0)
        dialogues = budget / TOKENS
        each = min(trainer.micro_batch_tokens or budget, budget / ranks) / TOKENS
        largest = micro_batch_of(each)
    usual = micro_batch_of(each)
    return Step(usual, largest, dialogues / each / ranks, ranks, dialogues / each * flops_of(model, usual))


def flops_of(model: OmniChat, batch: MicroBatch) -> float:
    """Of a micro-batch; its dialogues are taken to be of mean length."""
    count = max(1, round(batch.tokens / TOKENS))
    return step_flops(model, [round(batch.tokens / count)] * count, batch.targets, batch.num_samples)


def seconds_of(config: RunConfig, model: OmniChat, step: Step, peak: float) -> float:
    """Of a step, on GPUs of this many FLOP/s at their peak; communication and waiting for data are not counted."""
    batch, mfu = step.usual, MFU[config.trainer.compile]
    experts = sum(
        encoder_flops(cast(Encoder, net), samples) for net in model.encoders.values() for samples in batch.num_samples
    )
    rest = flops_of(model, batch) - experts
    if config.trainer.activation_checkpointing:  # the layers' forward once more: half of what they cost otherwise
        rest += language_model_flops(model.llm, [round(TOKENS)] * round(batch.tokens / TOKENS), 0) / 2
    share = EXPERTS_SHARE[config.model.encoders.whisper.context]
    return step.micro_batches * (rest / mfu + experts / share) / peak


def estimate(config: RunConfig, model: OmniChat, gpu: str) -> Estimate:
    """A run on GPUs of this name in `GPUS`."""
    peak, capacity = GPUS[gpu]
    step = step_of(config, model)
    seconds = seconds_of(config, model, step, PEAKS[peak])
    usual, largest = (estimate_memory(model, config, batch, step.ranks) for batch in (step.usual, step.largest))
    return Estimate(usual, largest, seconds, seconds * config.trainer.max_steps / 3600, capacity * GIB)


def report(config: RunConfig) -> str:
    """All that is estimated of one run."""
    model = sized_model(config)
    step, trainer = step_of(config, model), config.trainer
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    frozen = sum(parameter.numel() for parameter in model.parameters()) - trained
    found = {gpu: estimate(config, model, gpu) for gpu in GPUS}
    some = next(iter(found.values()))
    parts = [
        (field.name, getattr(some.usual, field.name), getattr(some.largest, field.name)) for field in fields(Memory)
    ]
    parts.append(("peak", some.usual.total, some.largest.total))
    return "\n".join(
        [
            f"parameters: {trained / 1e6:,.1f} M trained, {frozen / 1e6:,.1f} M frozen",
            f"strategy {trainer.strategy} on {step.ranks} GPU(s), {trainer.precision}, quantization "
            f"{config.model.llm.quantization}, compile {trainer.compile}, activation checkpointing "
            f"{trainer.activation_checkpointing}",
            f"a step: {step.micro_batches:g} micro-batch(es) a GPU of {step.usual.tokens:,} tokens "
            f"({step.largest.tokens:,} at most), {step.model_flops / 1e12:,.1f} TFLOP on all GPUs",
            "",
            f"{'GiB on each GPU, estimated':<28}{'mean dialogues':>16}{'longest':>10}",
            *(f"{name:<28}{usual / GIB:>16.2f}{largest / GIB:>10.2f}" for name, usual, largest in parts),
            "",
            f"{'GPU, estimated':<16}{'fits':>6}{'s a step':>10}{'hours':>9}",
            *(f"{gpu:<16}{one.fits:>6}{one.seconds:>10.3f}{one.hours:>9.1f}" for gpu, one in found.items()),
            "",
            f"An MFU of {MFU[trainer.compile]:.1%} is assumed. fits: yes; mean: only where dialogues are of mean "
            "length; no. Communication and waiting for data are not counted; docs/hardware.md says more.",
        ]
    )


# The rows of docs/hardware.md.
ONE = ("trainer.devices=1", "trainer.strategy=auto")
CACHED = ("data.features=cached", "data.features_dir=features")
MEASURED = ("recipe=sharechat_emotion", *ONE, *CACHED, "trainer.micro_batch=48")
RECIPES = ("sharechat_emotion", "sharechat_audio", "sharechat_music", "dailytalk", "dailytalk_alpha_sweep")
ROWS: Sequence[tuple[str, ...]] = (
    *((f"recipe={name}",) for name in RECIPES),
    ("recipe=dailytalk", *CACHED),
    ("recipe=dailytalk", "model.encoders.whisper.context=trim"),
    ("recipe=dailytalk", "trainer=deepspeed"),
    ("recipe=dailytalk", "trainer.strategy=fsdp", "trainer.compile=false"),
    MEASURED,
    ("recipe=dailytalk", *ONE, *CACHED, "trainer.micro_batch=4"),
    ("recipe=dailytalk", "model=omnichat_4bit", *ONE, *CACHED, "trainer.micro_batch=1", "trainer.compile=false"),
    ("recipe=dailytalk", "model=omnichat_4bit", *ONE, *CACHED, "trainer.micro_batch=4", "trainer.compile=false",
     "trainer.activation_checkpointing=true"),
    ("recipe=dailytalk", "model=omnichat_1b", *ONE, "trainer.micro_batch=4"),
)  # fmt: skip
MEASURED_CELL = "**measured**: 0.656 s, 58.6 GiB; estimated: "  # benchmarks/RESULTS.md


def markdown(rows: Sequence[tuple[str, ...]] = ROWS) -> str:
    """The table of memory and hours."""
    head = ["run", "GPUs", "GiB (longest), estimated", *(f"{gpu}, estimated" for gpu in GPUS)]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    models: dict[str, OmniChat] = {}
    for overrides in rows:
        config = load_config(*overrides)
        trainer = config.trainer
        alike = f"{config.model} {config.data.features} {trainer.precision} {trainer.activation_checkpointing}"
        model = models[alike] = models.get(alike) or sized_model(config)
        found = {gpu: estimate(config, model, gpu) for gpu in GPUS}
        some = next(iter(found.values()))
        cells = {gpu: _cell(one) for gpu, one in found.items()}
        if overrides == MEASURED:
            cells["H200 141 GB"] = MEASURED_CELL + cells["H200 141 GB"]
        words = " ".join(f"`{override}`" for override in overrides)
        memory = f"{some.usual.total / GIB:.1f} ({some.largest.total / GIB:.1f})"
        lines.append(" | ".join([words, str(step_of(config, model).ranks), memory, *cells.values()]))
    return "\n".join(f"| {line} |" for line in lines)


def _cell(one: Estimate) -> str:
    time = f"{one.seconds:.2f} s, {one.hours:.1f} h"
    return {"yes": time, "mean": f"{time} (mean length only)", "no": "does not fit"}[one.fits]

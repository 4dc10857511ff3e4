"""The schema of a run: every key with its type and range.

What a key means, its default and the default's source stand in `conf/`; no default lives here, so that
`python train.py --help` shows every key. `omnichat.config` checks a config against it.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]
# Names become folder and file names.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
Expert = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class Section(BaseModel):
    """A part of the config: typed strictly, closed to unknown keys, not to be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class WhisperConfig(Section):
    """`model.encoders.whisper`."""

    checkpoint: Text | None
    context: Literal["pad30", "trim"]


class Emotion2vecConfig(Section):
    """`model.encoders.emotion2vec`."""

    checkpoint: Text | None


class BeatsConfig(Section):
    """`model.encoders.beats`."""

    checkpoint: Text | None
    layout: Literal["tokens", "time"]


class OwnExpertConfig(Section):
    """An expert in `model.encoders.own`."""

    checkpoint: Text


class EncodersConfig(Section):
    """`model.encoders`: those named in `model.experts` are loaded."""

    whisper: WhisperConfig
    emotion2vec: Emotion2vecConfig
    beats: BeatsConfig
    own: dict[Expert, OwnExpertConfig]

    def names(self) -> tuple[str, ...]:
        """All that `model.experts` may name."""
        return (*(name for name in EncodersConfig.model_fields if name != "own"), *self.own)

    def checkpoint(self, expert: str) -> str | None:
        """Where the weights of one of them lie."""
        section = self.own[expert] if expert in self.own else getattr(self, expert)
        return None if section.checkpoint is None else str(section.checkpoint)


class QFormerConfig(Section):
    """`model.qformer`."""

    hidden: Positive
    layers: Positive
    heads: Positive
    ffn: Positive


class LLMConfig(Section):
    """`model.llm`."""

    checkpoint: Text | None
    dtype: Literal["float32", "bfloat16"]
    quantization: Literal["nf4"] | None


class LoRAConfig(Section):
    """`model.lora`."""

    enabled: bool
    rank: Positive
    alpha: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: Annotated[tuple[Text, ...], Field(min_length=1)]


class ModelConfig(Section):
    """`model`."""

    random: bool
    experts: Annotated[tuple[Expert, ...], Field(min_length=1)]
    encoders: EncodersConfig
    window: Positive
    queries: Positive
    gate: Literal["scalar", "channel", "none"]
    qformer: QFormerConfig
    llm: LLMConfig
    lora: LoRAConfig


class SourceConfig(Section):
    """A source in `data.sources`."""

    path: Text
    weight: Annotated[float, Field(ge=0)]


class DataConfig(Section):
    """`data`."""

    made_up: Positive | None
    synthetic: Text | None
    real: Text | None
    alpha: Fraction | None
    sources: dict[Name, SourceConfig]
    first: dict[Name, Positive]
    val: dict[Name, Text]
    test: dict[Name, Text]
    input: Literal["speech", "text", "speech+text"]
    system: str
    loss_on: Literal["all", "last"]
    loss_on_first: bool
    max_tokens: Positive
    overlong: Literal["error", "drop_oldest_turns", "drop_dialogue"]
    features: Literal["live", "cached"]
    features_dir: Text | None
    num_workers: Count


class TrainerConfig(Section):
    """`trainer`."""

    max_steps: Positive
    dialogues_per_step: Positive | None
    tokens_per_step: Positive | None
    micro_batch: Positive
    micro_batch_tokens: Positive | None
    learning_rate: Annotated[float, Field(gt=0)]
    warmup_steps: Count
    min_learning_rate_ratio: Fraction
    weight_decay: Annotated[float, Field(ge=0)]
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]
    gradient_clip: Annotated[float, Field(gt=0)] | None
    precision: Literal["32-true", "bf16-mixed", "bf16-true"]
    accelerator: Literal["auto", "cpu", "gpu"]
    devices: Positive | Literal["auto"]
    num_nodes: Positive
    strategy: Literal["auto", "ddp", "deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_3", "fsdp"]
    compile: bool
    compile_experts: bool
    shared_prefix: bool
    activation_checkpointing: bool
    validate_every: Count
    validation_dialogues: Positive | None
    generate_dialogues: Count
    save_every: Count
    keep_last: Count
    log_every: Positive


class WandbConfig(Section):
    """`logger.wandb`."""

    mode: Literal["disabled", "offline", "online", "auto"]
    project: Text
    entity: Text | None
    group: Text | None


class LoggerConfig(Section):
    """`logger`; `metrics.jsonl` is always written."""

    tensorboard: bool | Literal["auto"]
    wandb: WandbConfig


class EvaluationConfig(Section):
    """`evaluation`."""

    turns: Literal["last", "gold_history", "own_history"]
    batch_size: Positive
    max_new_tokens: Positive
    bootstrap: Count
    seed: Count


class RunConfig(Section):
    """Everything a run depends on."""

    run_name: Name
    task: Literal["dialogue", "events"]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    resume: Text
    init_from: Text | None
    preflight: Literal["auto", "only", "off"]
    threads: Positive | None
    model: ModelConfig
    data: DataConfig
    trainer: TrainerConfig
    logger: LoggerConfig
    evaluation: EvaluationConfig

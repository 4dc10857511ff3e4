"""What a report says of its run: what was trained on what, how big it is, where it departs from the paper."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from omnichat.config import RunConfig
from omnichat.data.shares import describe, sources_in
from omnichat.evaluation.baselines.settings import TITLES, BaselineConfig

Parameters = Mapping[str, Mapping[str, int]]

TINY = 100_000_000  # weights of a language model below which a score says nothing about the method at full size
# The paper's setting: the keys that conf/ and recipes/ mark "paper", and Whisper and BEATs as they were trained.
PAPER: dict[str, Any] = {
    "data.input": "speech",
    "model.experts": ("whisper", "emotion2vec", "beats"),
    "model.encoders.whisper.context": "pad30",
    "model.encoders.beats.layout": "tokens",
    "model.window": 17,
    "model.queries": 1,
    "model.lora.enabled": True,
    "model.lora.targets": ("q_proj", "v_proj"),
    "trainer.max_steps": 30_000,
    "trainer.dialogues_per_step": 48,
}
PAPER_WEIGHTS = {
    "whisper": "whisper-large-v3",
    "emotion2vec": "emotion2vec",
    "beats": "BEATs_iter3",
    "llm": "Llama-3.1-8B-Instruct",
}


def tiny_notice(config: RunConfig, parameters: Parameters) -> str:
    """A plain statement, as HTML, where the weights are too small or too random for the numbers to mean more."""
    llm = sum(count["total"] for part, count in parameters.items() if part in ("llm", "lora"))
    if not (config.model.random or 0 < llm < TINY):
        return ""
    size = f" (language model: {_count(llm)}, the paper's: 8 B)" if llm else ""
    return (
        f'<p class="notice"><b>These weights are tiny</b>{size}. The page shows that the chain from sound to scored '
        "reply works, and what so small a model hears. The numbers say nothing about the method at full size, and are "
        "not to be compared with the paper's.</p>"
    )


def run_facts(
    config: RunConfig, parameters: Parameters, steps: Sequence[Mapping[str, float]], scores: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Names and values (HTML) of what the run is."""
    model, data, trainer = config.model, config.data, config.trainer
    experts = [f"{name} <code>{escape(_checkpoint(config, name))}</code>" for name in model.experts]
    lora = f"LoRA on {', '.join(model.lora.targets)}, rank {model.lora.rank}, alpha {model.lora.alpha:g}"
    lora = lora if model.lora.enabled else "no LoRA"
    seconds = sum(record.get("perf/seconds", 0.0) for record in steps)
    last = max((int(record["step"]) for record in steps), default=scores["step"])
    speed = f", {_duration(seconds)}" if seconds else ""
    split = next(iter(scores["splits"].values()))
    return [
        ("Input", f"{data.input} (of a user turn)"),
        ("Experts, frozen", "<br>".join(experts)),
        (
            "Mix-Former",
            f"windows of {model.window} frames ({model.window / 50:.2f} s), {model.queries} quer"
            f"{'y' if model.queries == 1 else 'ies'} each, gate {model.gate}, {model.qformer.layers} layers of "
            f"{model.qformer.hidden}",
        ),
        ("Language model", f"<code>{escape(str(model.llm.checkpoint))}</code>, {lora}"),
        ("Weights", _weights(parameters)),
        ("Trained on", _sources(config, steps)),
        (
            "Training",
            f"{last:,} of {trainer.max_steps:,} steps of {_step_size(config)}{speed}; learning rate "
            f"{trainer.learning_rate:g}, warm-up {trainer.warmup_steps}, weight decay {trainer.weight_decay:g}, "
            f"clipping {trainer.gradient_clip}, {trainer.precision}",
        ),
        ("Seeds", f"{config.seed} for weights and sample order, {split['bootstrap']['seed']} for the intervals"),
        (
            "Replies",
            f"step {scores['step']}, {', '.join(f'{key} {value}' for key, value in scores['decoding'].items())}; "
            f"{split['seconds_per_reply']:.3f} s per reply",
        ),
    ]


def baseline_facts(config: BaselineConfig, parameters: Parameters, scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values (HTML) of what a baseline is."""
    split = next(iter(scores["splits"].values()))
    decoding = ", ".join(f"{key} {value}" for key, value in scores["decoding"].items())
    return [
        ("Baseline", escape(TITLES[config.baseline])),
        *((key, f"<code>{escape(value)}</code>") for key, value in config.options.items()),
        ("Weights", _weights(parameters)),
        ("Seed", f"{split['bootstrap']['seed']} for the intervals"),
        ("Replies", f"{escape(decoding)}; {split['seconds_per_reply']:.3f} s per reply"),
    ]


def deviations(config: RunConfig, parameters: Parameters) -> list[str]:
    """Where the run's setting is not the paper's, one line each."""
    lines = []
    for key, paper in PAPER.items():
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        if value != paper and not (key.startswith("model.encoders.") and key.split(".")[2] not in config.model.experts):
            lines.append(f"{key}: {_plain(value)}, the paper's: {_plain(paper)}")
    weights: dict[str, str] = {name: _checkpoint(config, name) for name in config.model.experts}
    weights["llm"] = str(config.model.llm.checkpoint)
    lines += [
        f"{name}: {path}, the paper's: {PAPER_WEIGHTS[name]}"
        for name, path in weights.items()
        if name in PAPER_WEIGHTS and _other_weights(path, PAPER_WEIGHTS[name])  # model.experts tells of others
    ]
    if not config.trainer.precision.startswith("bf16"):
        lines.append(f"trainer.precision: {config.trainer.precision}, the paper's: bf16")
    others = [part for part, count in parameters.items() if count["trained"] and part not in ("mixformer", "lora")]
    if others:
        lines.append(f"trained besides Mix-Former and LoRA: {', '.join(others)}")
    lines.append("Styles are kept in form when replies are written; the paper does not say how it decodes")
    lines.append(
        "Learning rate, weight decay, warm-up, LoRA's rank and the Q-Former's depth are not in the paper; "
        "conf/ names the source of each"
    )
    return lines


def _other_weights(path: str, paper: str) -> bool:
    return not Path(path).name.lower().startswith(paper.lower()) or "tiny" in Path(path).parts


def _step_size(config: RunConfig) -> str:
    trainer = config.trainer
    if trainer.tokens_per_step is not None:
        return f"at most {trainer.tokens_per_step:,} tokens"
    return f"{trainer.dialogues_per_step} dialogues"


def _checkpoint(config: RunConfig, expert: str) -> str:
    return str(config.model.encoders.checkpoint(expert))


def _weights(parameters: Parameters) -> str:
    names = {part: part.removeprefix("encoders.") for part in parameters}
    trained = [f"{names[part]} {_count(count['trained'])}" for part, count in parameters.items() if count["trained"]]
    frozen = [f"{names[part]} {_count(count['total'])}" for part, count in parameters.items() if not count["trained"]]
    return f"trained: {', '.join(trained)}<br>frozen: {', '.join(frozen)}" if parameters else ""


def _sources(config: RunConfig, steps: Sequence[Mapping[str, float]]) -> str:
    """Each source with its share as asked for and, from the last step's metrics, as it was drawn."""
    data = config.data
    if data.alpha is None:
        weights = {name: source.weight for name, source in data.sources.items()}
        paths = {name: source.path for name, source in data.sources.items()}
    else:
        weights = {"synthetic": data.alpha, "real": 1 - data.alpha}
        paths = {name: str(getattr(data, name)) for name in weights}
    drawn = realised(steps)
    total = sum(weights.values())
    return "<br>".join(
        f"{name} <code>{escape(paths[name])}</code>, share {weight / total:g}"
        + (f"; drawn: {drawn[name]}" if name in drawn else "")
        for name, weight in weights.items()
        if weight
    )


def realised(steps: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """What was drawn of each source up to the last step that was logged, in words."""
    last = next((record for record in reversed(steps) if sources_in(record)), {})
    return {name: describe(name, last).removeprefix(f"{name}: ") for name in sources_in(last)}


def _count(number: int) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _plain(value: Any) -> str:
    if value is None:
        return "not set"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)

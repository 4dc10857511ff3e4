"""The README.md of an exported run: what it was made of, from what, under whose licence, and how well it does."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from omnichat import build
from omnichat.checkpoint import Checkpoint
from omnichat.config import RunConfig
from omnichat.data.info import read_info
from omnichat.dialogue import DataError
from omnichat.evaluation.facts import deviations, realised
from omnichat.evaluation.measure import TITLES, shown
from omnichat.evaluation.model_index import model_index
from omnichat.file_hashes import file_sha256
from omnichat.recipes import ROOT, locate
from omnichat.run_folder import MANIFEST, SCORES, read_metrics

# Licences that weights are known by, where their folder does not say: the model pages and repositories of their owners.
LICENCES = {
    "llama-3.1": "Llama 3.1 Community License",
    "llama-3.2": "Llama 3.2 Community License",
    "whisper": "Apache License 2.0 (Hugging Face page openai/whisper-large-v3), MIT (openai/whisper on GitHub)",
    "beats": "MIT (microsoft/unilm on GitHub)",
}
# Where hubs find published language models; of others a hub would look for a page that is not there.
PAGES = {
    name: f"meta-llama/{name}" for name in ("Llama-3.1-8B-Instruct", "Llama-3.2-1B-Instruct", "Llama-3.2-3B-Instruct")
} | {f"SmolLM2-{size}-Instruct": f"HuggingFaceTB/SmolLM2-{size}-Instruct" for size in ("135M", "360M", "1.7B")}
NOT_STATED = "not stated beside the weights; see their owner's page"


def model_card(run_dir: Path, config: RunConfig, start: Checkpoint, merged: bool) -> str:
    """The card as Markdown, with the front matter that model hubs read.

    Args:
        run_dir: holds `metrics.jsonl`, and `scores.json` where the run was scored.
        config: of the run.
        start: the checkpoint that is exported.
        merged: whether `merged/` lies beside the card.
    """
    scores = _read_scores(run_dir)
    of_these = scores is not None and scores.get("step") == start.step
    index = model_index(run_dir, config.run_name, scores) if scores is not None and of_these else []
    page = PAGES.get(Path(str(config.model.llm.checkpoint)).name)
    front = {
        **({"base_model": page} if page is not None else {}),
        "library_name": "peft" if config.model.lora.enabled else "omnichat",
        "license": "other",
        "license_name": "those-of-its-parts",
        "tags": ["omnichat", "spoken-dialogue"],
        **({"model-index": index} if index else {}),
    }
    sections = {
        "What this is": _about(config, start, merged),
        "Made of": _parts(config, start),
        "Trained on": _sources(run_dir, config, start.step),
        "Not as in the paper": _deviations(config),
        "Scores": _scores(scores, start.step),
        "How to load it": _loading(config, merged),
        "Citation": _citation(),
    }
    text = "\n\n".join(f"## {title}\n\n" + "\n".join(lines) for title, lines in sections.items())
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {config.run_name}\n\n{text}\n"


def _about(config: RunConfig, start: Checkpoint, merged: bool) -> list[str]:
    trained = {stem: sum(t.numel() for t in group.values()) for stem, group in start.tensors.items()}
    counts = ", ".join(f"{stem} {count:,}" for stem, count in trained.items() if stem != "optimizer")
    manifest = file_sha256(start.path / MANIFEST)
    versions = ", ".join(f"{name} {version}" for name, version in start.state.get("versions", {}).items())
    return [
        "What was trained of a spoken-dialogue model as in OmniChat (ICLR 2025): frozen audio experts, a Mix-Former, "
        "and a language model with LoRA. It hears the user's turns and writes the next turn: style, then words.",
        "",
        f"- run: `{config.run_name}`, step {start.step:,} of {config.trainer.max_steps:,}, seed {config.seed}",
        f"- run hash (sha256 of the checkpoint's manifest, so of weights and config): `{manifest}`",
        f"- trained weights: {counts}",
        f"- input of a user turn: {config.data.input}",
        f"- versions: {versions or 'older than their record'}",
        "- the whole config: `omnichat_config.yaml`",
        *(["- `merged/`: the language model with the adapter worked into its weights"] if merged else []),
        *(
            [
                f"- the adapter was trained on 4-bit weights of the language model ({config.model.llm.quantization}); "
                "on the weights that they were made from, merged or not, it does nearly the same, not the same"
            ]
            if config.model.llm.quantization is not None
            else []
        ),
    ]


def _parts(config: RunConfig, start: Checkpoint) -> list[str]:
    paths = build.expert_checkpoints(config) | {"llm": str(config.model.llm.checkpoint)}
    frozen = start.state.get("frozen", {})
    rows = [
        f"| {name} | {_shown(path)} | {licence_of(path)} | `{frozen.get(name, {}).get('sha256', 'not recorded')}` |"
        for name, path in paths.items()
    ]
    return [
        "| part, frozen | weights | licence | sha256 |",
        "|---|---|---|---|",
        *rows,
        "",
        "The licences of these weights and of the training data govern what may be done with what was trained on them.",
        *_llama_terms(licence_of(str(config.model.llm.checkpoint))),
    ]


def _llama_terms(licence: str) -> list[str]:
    """What Llama's licence (3.1 and 3.2, section 1.b) asks of whoever passes on what was trained on it."""
    version = re.search(r"llama[ -]?(3\.\d)", licence.lower())
    if version is None:
        return []
    return [
        "",
        f"**Built with Llama.** Llama {version[1]} is licensed under the Llama {version[1]} Community License, "
        "Copyright © Meta Platforms, Inc. All Rights Reserved. Whoever passes this on passes that licence on with it, "
        'and gives it a name that begins with "Llama".',
    ]


def licence_of(path: str) -> str:
    """The licence of weights: as their own README's front matter says, or as they are known by name."""
    where = locate(path).resolve()  # from the repository's own folder `locate` gives what it got
    if where.is_relative_to(ROOT / "checkpoints" / "tiny"):
        return "Apache License 2.0 (made by omnichat)"
    if "random_weights" in where.parts:
        return "none needed (random weights)"
    readme = (where if where.is_dir() else where.parent) / "README.md"
    try:
        front = yaml.safe_load(readme.read_text(encoding="utf-8").split("---")[1])
        if stated := front.get("license_name") or front.get("license"):
            return f"{stated} (its README.md)"
    except (OSError, UnicodeDecodeError, IndexError, AttributeError, yaml.YAMLError):
        pass  # no front matter, or no README: told by the name
    name = where.name.lower()
    return next((licence for known, licence in LICENCES.items() if known in name), NOT_STATED)


def _deviations(config: RunConfig) -> list[str]:
    lines = [f"- {line}" for line in deviations(config, {})]
    for path in (*build.expert_checkpoints(config).values(), str(config.model.llm.checkpoint)):
        lines = [line.replace(path, _shown(path)) for line in lines]
    return lines


def _sources(run_dir: Path, config: RunConfig, step: int) -> list[str]:
    drawn = realised([record for record in read_metrics(run_dir) if record.get("step", 0) <= step])
    weights = build.source_weights(config)
    return [
        f"- {name}: {_store(path)}; share asked for {weights[name]:g}"
        + (f"; drawn: {drawn[name]}" if name in drawn else "")
        for name, path in build.training_stores(config).items()
    ] + [f"- held out as {name}: {_store(path)}" for name, path in build.validation_stores(config).items()]


def _store(path: Path) -> str:
    shown = f"`{_shown(str(path))}`"
    if "made_up" in path.parts:
        return f"{shown} (made-up dialogues of tones; no licence needed)"
    for folder in (path, path.parent):  # a split's folder or file lies in its store
        try:
            info = read_info(folder)
        except DataError:
            continue
        origin = f"; from {info.source}" if info.source else ""
        return f"{shown} ({info.name}; licence: {info.licence}{origin})"
    return f"{shown} (its store does not say where it comes from)"


def _read_scores(run_dir: Path) -> dict[str, Any] | None:
    try:
        scores = json.loads((run_dir / SCORES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return scores if isinstance(scores, dict) and isinstance(scores.get("splits"), dict) else None


def _scores(scores: Mapping[str, Any] | None, step: int) -> list[str]:
    if scores is None:
        return ["These weights were not scored."]
    if scores.get("step") != step:
        return [f"These weights were not scored; the run's scores are of step {scores.get('step')}."]
    lines = []
    for split, record in scores["splits"].items():
        part = f", in part: {record['partial']['replies']} of {record['partial']['of']}" if record["partial"] else ""
        lines += [f"{split} (n = {record['n']}{part}; 95 % intervals by bootstrap), x 100:", "", "| metric | value |"]
        lines += ["|---|---|", *_rows(record["metrics"]), ""]
    return lines[:-1]


def _rows(metrics: Mapping[str, Any]) -> Sequence[str]:
    rows = []
    for name, title in TITLES.items():
        found = metrics.get(name)
        if not found or found.get("value") is None:
            continue
        interval = f" ({' to '.join(shown(name, end) for end in found['ci95'])})" if found.get("ci95") else ""
        rows.append(f"| {title} | {shown(name, found['value'])}{interval} |")
    return rows


def _loading(config: RunConfig, merged: bool) -> list[str]:
    base = f"PATH/TO/{Path(str(config.model.llm.checkpoint)).name}"
    heard = '"turn.wav"' if config.data.input == "speech" else '"turn.wav", "its words"'
    whole = [
        "With omnichat, and the frozen weights above where `omnichat_config.yaml` says, or where `weights` does:",
        "",
        "```python",
        "from omnichat import Chat",
        "",
        'chat = Chat.load("PATH/TO/THIS/FOLDER", weights={"llm": "PATH/TO/THE/LANGUAGE/MODEL"})',
        f"print(chat.reply({heard if config.data.input != 'text' else 'text=' + repr('words')}))",
        "```",
        "",
    ]
    if not config.model.lora.enabled:
        adapter = "The run trained no adapter; `mixformer.safetensors` holds the Mix-Former, named as its modules are."
        return [*whole, adapter]
    last = [
        *(["", "`merged/` loads alone with `AutoModelForCausalLM.from_pretrained`."] if merged else []),
        "",
        "That is the language model, which takes embeddings. The Mix-Former makes embeddings of what the experts hear: "
        "`mixformer.safetensors` holds its weights, named as the modules of `omnichat.models.mixformer.MixFormer`.",
    ]
    return [
        *whole,
        "The adapter alone, with PEFT:",
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f'base = AutoModelForCausalLM.from_pretrained("{base}")',
        'model = PeftModel.from_pretrained(base, "PATH/TO/THIS/FOLDER")',
        "```",
        *last,
    ]


def _citation() -> list[str]:
    return [
        "The method is that of OmniChat: Enhancing Spoken Dialogue Systems with Scalable Synthetic Data for Diverse "
        "Scenarios (Cheng et al., ICLR 2025, arXiv:2501.01384). Cite it, and the owners of the weights and data above."
    ]


def _shown(path: str) -> str:
    """The end of a path: what is before it is of one machine only."""
    return "/".join(Path(path).parts[-2:])

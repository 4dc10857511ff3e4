"""The command line of eval/baseline.py."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml

from omnichat.config import ConfigError
from omnichat.evaluation.arguments import UsageError, guarded, read_names, read_numbers, read_pairs, split_arguments
from omnichat.evaluation.baselines.settings import KINDS, BaselineConfig, Kind, config_text, make_config
from omnichat.evaluation.replies import replace_file
from omnichat.recipes import did_you_mean, locate
from omnichat.run_folder import CONFIG_FILE
from omnichat.schema import EvaluationConfig

OPTIONS = """  store=PATH[,PATH...]  the dialogues: JSONL files or folders of shards
  names=NAME[,NAME...]  what their sets are called, where not after the file: those of the run to compare with
  out=FOLDER            for the replies; the same command goes on where it was stopped
  limit=NUMBER          answer only so many dialogues of a set; the scores are marked as partial
  turns=last            which turns are answered, as in eval/run_store.py
  batch_size= max_new_tokens= bootstrap= seed=   as in conf/evaluation

  majority:     train=PATH[,PATH...]  the stores whose most frequent reply is given; by default each set's own
  asr_llm:      asr=PATH              Whisper: a Hugging Face folder, or a .pt of openai-whisper with
                asr_tokenizer=FOLDER    a Hugging Face folder of the same Whisper
                llm=FOLDER            a Hugging Face language model that was tuned to chat; or
                run=FOLDER            a run of train.py with data.input=text; checkpoint=newest, best, or a step
                language=en           of the speech
  qwen2_audio:  model=FOLDER          Qwen2-Audio, e.g. Qwen2-Audio-7B-Instruct
  both of these: device=cpu|cuda (cuda where it is there), dtype=float32|bfloat16 (bfloat16 on cuda)"""
COMMON = ("store", "names", "out", "limit", *EvaluationConfig.model_fields)
OWN: dict[Kind, tuple[str, ...]] = {
    "majority": ("train",),
    "asr_llm": ("asr", "asr_tokenizer", "llm", "run", "checkpoint", "language", "device", "dtype"),
    "qwen2_audio": ("model", "device", "dtype"),
}
NEEDED: dict[Kind, tuple[str, ...]] = {"majority": (), "asr_llm": ("asr",), "qwen2_audio": ("model",)}
FIXED = {"device": ("cpu", "cuda"), "dtype": ("float32", "bfloat16")}
PATHS = ("asr", "asr_tokenizer", "llm", "run", "model")


def main(arguments: Sequence[str], usage: str) -> int:
    """Answer stores with a baseline; returns the exit code.

    Args:
        arguments: the kind, then `key=value` each.
        usage: what `--help` prints before the options.
    """

    def body() -> None:
        (kind,), rest = split_arguments(arguments, ("KIND",))
        if kind not in get_args(Kind):
            raise UsageError(f"KIND: {kind!r} is none of {', '.join(KINDS)}{did_you_mean(kind, KINDS)}")
        _answer(kind, rest)  # type: ignore[arg-type]

    return guarded(arguments, f"{usage}\n\n{OPTIONS}", body)


def _answer(kind: Kind, rest: Sequence[str]) -> None:
    values = read_pairs(rest, (*COMMON, *OWN[kind]))
    if missing := [key for key in ("store", "out", *NEEDED[kind]) if not values.get(key)]:
        raise UsageError(f"{', '.join(missing)}: missing")
    if kind == "asr_llm" and ("llm" in values) == ("run" in values):
        raise UsageError("llm, run: name one of them, what answers the words")
    for key, allowed in FIXED.items():
        if values.get(key, allowed[0]) not in allowed:
            raise UsageError(f"{key}: one of {', '.join(allowed)}, got {values[key]!r}")
    splits = _splits(values)
    out = Path(values["out"])
    limit = read_numbers(values, ("limit",)).get("limit")
    if limit == 0:
        raise UsageError("limit: must be at least 1, got 0")
    config = _config(kind, values, out)
    _check_folder(out, config)
    answerer = _make(config, out)  # before the folder is written: a model that cannot be loaded leaves nothing behind
    out.mkdir(parents=True, exist_ok=True)
    from omnichat.evaluation.answering import answer_stores

    def write_config() -> None:
        _check_folder(out, config)  # again: a model takes minutes to load, and another baseline may have come meanwhile
        replace_file(out / CONFIG_FILE, config_text(config).encode())

    answer_stores(answerer, splits, out, limit, write_config)
    print(f"replies: {out}; python eval/run_store.py run={out} scores them")


def _config(kind: Kind, values: Mapping[str, str], out: Path) -> BaselineConfig:
    options = {key: values[key] for key in OWN[kind] if key in values}
    for key in PATHS:
        if key in options and not locate(options[key]).exists():
            raise UsageError(f"{key}: {options[key]} is not there")
    numbers = read_numbers(values, [name for name in EvaluationConfig.model_fields if name != "turns"])
    evaluation: dict[str, Any] = {**numbers, **({"turns": values["turns"]} if "turns" in values else {})}
    try:
        return make_config(kind, out.resolve().name, options, evaluation)
    except ConfigError as error:
        raise UsageError(str(error)) from None


def _check_folder(out: Path, config: BaselineConfig) -> None:
    """A folder holds one baseline, and no run of train.py."""
    path = out / CONFIG_FILE
    if not path.is_file():
        return
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    kind = found.get("baseline") if isinstance(found, dict) else None
    if kind != config.baseline:
        what = f"the baseline {kind}" if kind else "a run of train.py"
        raise UsageError(f"out: {out} holds {what}; name another folder")


def _splits(values: Mapping[str, str]) -> dict[str, Path]:
    paths, names = read_names(values, "store"), read_names(values, "names")
    if names and len(names) != len(paths):
        raise UsageError(f"names: {len(names)} for {len(paths)} stores")
    names = names or tuple(Path(path).stem for path in paths)
    if len(set(names)) < len(names):
        raise UsageError(f"store: several are called {', '.join(names)}; name their sets with names=")
    return dict(zip(names, map(_store, paths), strict=True))


def _store(path: str) -> Path:
    found = locate(path)
    if not found.exists():
        raise UsageError(f"no such file: {found}; make the store first, or correct the path")
    return found


def _make(config: BaselineConfig, out: Path) -> Any:
    options = config.options
    if config.baseline == "majority":
        from omnichat.evaluation.baselines.majority import Majority

        return Majority(config.evaluation, [_store(path) for path in read_names(options, "train")])
    from omnichat.evaluation.baselines.loading import load_asr_llm, load_qwen2_audio

    return load_asr_llm(config, out) if config.baseline == "asr_llm" else load_qwen2_audio(config)

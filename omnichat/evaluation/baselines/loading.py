"""The models that a baseline's options name."""

from dataclasses import replace
from pathlib import Path

import torch

from omnichat.build import DTYPES
from omnichat.chat import load_run
from omnichat.evaluation.answering import short_hash
from omnichat.evaluation.baselines.asr_llm import AsrLlm, ChatModel, Reader, TextRun
from omnichat.evaluation.baselines.qwen2_audio import Qwen2Audio
from omnichat.evaluation.baselines.settings import BaselineConfig
from omnichat.evaluation.baselines.transcripts import Transcripts
from omnichat.file_hashes import weights_hash
from omnichat.models.hugging_face import ModelError
from omnichat.models.whisper_checkpoint import load_whisper
from omnichat.recipes import locate

TRANSCRIPT_TOKENS = 200  # of 30 s at most; ours: fast speech has some 150


def load_asr_llm(config: BaselineConfig, out: Path) -> AsrLlm:
    """Whisper and what answers its words.

    Raises:
        EncoderError, ModelError, CheckpointError: a checkpoint that cannot be used.
    """
    options, settings = config.options, config.evaluation
    checkpoint, tokenizer = locate(options["asr"]), options.get("asr_tokenizer", "")
    whisper = load_whisper(checkpoint, str(locate(tokenizer)) if tokenizer else "", device_of(config))
    language = options.get("language", "en")
    known = [weights_hash(checkpoint), language, TRANSCRIPT_TOKENS]
    about = {"asr": checkpoint.name, "language": language}
    identity = short_hash([*known, weights_hash(locate(tokenizer)) if tokenizer else ""])
    reader = _reader(config)
    out.mkdir(parents=True, exist_ok=True)  # now that all models are there
    transcripts = Transcripts(out, whisper, identity, language, TRANSCRIPT_TOKENS, settings.batch_size)
    return AsrLlm(settings, transcripts, about, reader)


def load_qwen2_audio(config: BaselineConfig) -> Qwen2Audio:
    """Qwen2-Audio from a local folder.

    Raises:
        ModelError: it cannot be used.
    """
    return Qwen2Audio(locate(config.options["model"]), config.evaluation, dtype_of(config), device_of(config))


def device_of(config: BaselineConfig) -> str:
    """The device asked for, or a GPU where there is one.

    Raises:
        ModelError: there is none.
    """
    device = config.options.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("device=cuda: torch sees no GPU; use device=cpu, or correct the driver")
    return device


def dtype_of(config: BaselineConfig) -> torch.dtype:
    """The precision asked for, or bfloat16 on a GPU and float32 elsewhere."""
    return DTYPES[config.options.get("dtype") or ("bfloat16" if device_of(config) == "cuda" else "float32")]


def _reader(config: BaselineConfig) -> Reader:
    options, settings = config.options, config.evaluation
    if "llm" in options:
        return ChatModel(locate(options["llm"]), settings, dtype_of(config), device_of(config))
    run = load_run(locate(options["run"]), options.get("checkpoint", "newest"))
    return TextRun(replace(run, config=run.config.model_copy(update={"evaluation": settings})))

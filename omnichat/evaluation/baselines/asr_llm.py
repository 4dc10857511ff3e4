"""A recogniser before a language model: Whisper's decoder writes the user turns down, and the words are answered."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from omnichat.chat import LoadedRun
from omnichat.dialogue import Dialogue, Reply
from omnichat.evaluation.answering import Asked, Written, short_hash
from omnichat.evaluation.baselines.asking import INSTRUCTION, as_text, check_length, messages, rendered, text_part
from omnichat.evaluation.baselines.reading import read_dialogues
from omnichat.evaluation.baselines.transcripts import Transcripts
from omnichat.evaluation.generate import RunAnswerer
from omnichat.evaluation.turns import Turns, Work
from omnichat.file_hashes import weights_hash
from omnichat.models.hugging_face import ModelError, context_of, greedy, load_strictly
from omnichat.prompt import parse_reply
from omnichat.schema import EvaluationConfig


class Reader(Protocol):
    """What answers dialogues whose user turns are words."""

    identity: str

    def about(self) -> dict[str, Any]:
        """See `Answerer`."""

    def prompt_hash(self, asked: Asked) -> str:
        """See `Answerer`."""

    def write(self, batch: Sequence[Asked]) -> list[Written]:
        """See `Answerer`."""


class AsrLlm:
    """Whisper and a reader of words, as `answer_stores` asks them.

    Args:
        settings: of the evaluation.
        transcripts: of the user turns.
        recogniser: what it is, for `generation.json`.
        reader: answers.
    """

    def __init__(
        self, settings: EvaluationConfig, transcripts: Transcripts, recogniser: Mapping[str, Any], reader: Reader
    ) -> None:
        self.turns: Turns = settings.turns
        self.batch_size = settings.batch_size
        self._transcripts, self._recogniser, self._reader = transcripts, dict(recogniser), reader
        self.model = short_hash(["asr_llm", transcripts.identity, reader.identity])

    def about(self) -> dict[str, Any]:
        """See `Answerer`."""
        about = self._reader.about()
        return {**about, "decoding": {**about["decoding"], **self._recogniser}}

    def read(self, name: str, store: Path) -> tuple[list[Work], int]:
        """See `Answerer`."""
        found = read_dialogues(store, self.turns, heard=True)
        return found, len(found)

    def prompt_hash(self, asked: Asked) -> str:
        """See `Answerer`; empty, which no reply's is, while the turns have not been heard."""
        return self._reader.prompt_hash(self._written(asked)) if self._transcripts.knows(asked.dialogue) else ""

    def write(self, batch: Sequence[Asked]) -> list[Written]:
        """See `Answerer`."""
        self._transcripts.hear([asked.dialogue for asked in batch])
        return self._reader.write([self._written(asked) for asked in batch])

    def parse(self, raw: str) -> Reply:
        """See `Answerer`."""
        return parse_reply(raw)

    def _written(self, asked: Asked) -> Asked:
        return Asked(self._transcripts.written(asked.dialogue), asked.work)


class ChatModel:
    """A language model that was tuned to chat, told what to do: any Hugging Face folder with a chat template.

    Args:
        folder: of the model.
        settings: of the evaluation.
        dtype: of its weights.
        device: of torch's names.

    Raises:
        ModelError: see `load_strictly`; no chat template.
    """

    def __init__(self, folder: Path, settings: EvaluationConfig, dtype: torch.dtype, device: str) -> None:
        self._model = load_strictly(AutoModelForCausalLM, folder, dtype, device)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
        except Exception as error:  # transformers and tokenizers each have their own
            raise ModelError(f"{folder}: its tokenizer cannot be loaded ({error}); download it again") from None
        if self._tokenizer.chat_template is None:
            raise ModelError(f"{folder}: its tokenizer has no chat template; give a model that was tuned to chat")
        self._config = greedy(self._model, self._tokenizer, settings.max_new_tokens)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.convert_ids_to_tokens(self._config.pad_token_id)
        self._settings = {
            "method": "greedy",
            "max_new_tokens": settings.max_new_tokens,
            "batch_size": settings.batch_size,
            "dtype": str(dtype).removeprefix("torch."),
            "device": device,
        }
        kept = {key: value for key, value in self._settings.items() if key != "batch_size"}
        self.identity = short_hash([weights_hash(folder), kept, INSTRUCTION])

    def about(self) -> dict[str, Any]:
        """See `Answerer`."""
        count = sum(parameter.numel() for parameter in self._model.parameters())
        return {"step": 0, "parameters": {"llm": {"total": count, "trained": 0}}, "decoding": dict(self._settings)}

    def prompt_hash(self, asked: Asked) -> str:
        """See `Answerer`."""
        return short_hash(self._prompt(asked.dialogue))

    def write(self, batch: Sequence[Asked]) -> list[Written]:
        """See `Answerer`.

        Raises:
            DataError: `too_long` or `bad_template`.
        """
        texts = [self._prompt(asked.dialogue) for asked in batch]
        given = self._tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
        for asked, mask in zip(batch, given["attention_mask"], strict=True):
            check_length(int(mask.sum()), self._config.max_new_tokens, context_of(self._model), asked.dialogue)
        inputs = {key: given[key].to(self._model.device) for key in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            ids = self._model.generate(**inputs, generation_config=self._config)
        written = self._tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [Written(text) for text in written]

    def _prompt(self, dialogue: Dialogue) -> str:
        found = as_text(messages(dialogue, lambda turn: text_part(turn.text)))

        def template(chat: list[dict[str, Any]]) -> str:
            return str(self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))

        return rendered(template, found, dialogue)


class TextRun:
    """A run that was trained on words (`data.input=text`).

    Raises:
        ModelError: it hears.
    """

    def __init__(self, run: LoadedRun) -> None:
        if run.config.data.input != "text":
            message = f"run: {run.config.run_name} was trained with data.input={run.config.data.input}"
            raise ModelError(f"{message}; give one that reads (data.input=text), or score it by eval/run_store.py")
        self._answerer = RunAnswerer(run)
        self.identity = self._answerer.model

    def about(self) -> dict[str, Any]:
        """See `Answerer`."""
        return self._answerer.about()

    def prompt_hash(self, asked: Asked) -> str:
        """See `Answerer`."""
        return self._answerer.prompt_hash(asked)

    def write(self, batch: Sequence[Asked]) -> list[Written]:
        """See `Answerer`."""
        return self._answerer.write(batch)

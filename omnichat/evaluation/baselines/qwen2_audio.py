"""Qwen2-Audio (Chu et al. 2024) as it is published, told what to do: through transformers, from a local folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

from omnichat.audio import SAMPLE_RATE, load_audio, pieces
from omnichat.dialogue import DataError, Dialogue, Reply, Turn
from omnichat.evaluation.answering import Asked, Written, short_hash
from omnichat.evaluation.baselines.asking import INSTRUCTION, check_length, messages
from omnichat.evaluation.baselines.reading import audio_names, read_dialogues, user_audio
from omnichat.evaluation.turns import Turns, Work
from omnichat.file_hashes import weights_hash
from omnichat.models.hugging_face import ModelError, context_of, greedy, load_strictly
from omnichat.prompt import parse_reply
from omnichat.schema import EvaluationConfig


class Qwen2Audio:
    """Hears every user turn and reads the assistant's, as `answer_stores` asks it.

    Its encoder hears 30 s, and its processor cuts off what is beyond: longer turns are given in pieces of 30 s.

    Args:
        folder: of Hugging Face, such as Qwen2-Audio-7B-Instruct.
        settings: of the evaluation.
        dtype: of its weights.
        device: of torch's names.

    Raises:
        ModelError: see `load_strictly`; no processor.
    """

    def __init__(self, folder: Path, settings: EvaluationConfig, dtype: torch.dtype, device: str) -> None:
        self.turns: Turns = settings.turns
        self.batch_size = settings.batch_size
        self._model = load_strictly(Qwen2AudioForConditionalGeneration, folder, dtype, device)
        try:
            self._processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # transformers and tokenizers each have their own
            raise ModelError(f"{folder}: its processor cannot be loaded ({error}); download it again") from None
        self._processor.tokenizer.padding_side = "left"  # a reply follows its prompt, whatever stands beside it
        self._config = greedy(self._model, self._processor.tokenizer, settings.max_new_tokens)
        self._decoding = {
            "method": "greedy",
            "max_new_tokens": settings.max_new_tokens,
            "batch_size": settings.batch_size,
            "dtype": str(dtype).removeprefix("torch."),
            "device": device,
        }
        kept = {key: value for key, value in self._decoding.items() if key != "batch_size"}
        self.model = short_hash(["qwen2_audio", weights_hash(folder), kept, INSTRUCTION])

    def about(self) -> dict[str, Any]:
        """See `Answerer`."""
        count = sum(parameter.numel() for parameter in self._model.parameters())
        return {"step": 0, "parameters": {"llm": {"total": count, "trained": 0}}, "decoding": dict(self._decoding)}

    def read(self, name: str, store: Path) -> tuple[list[Work], int]:
        """See `Answerer`."""
        found = read_dialogues(store, self.turns, heard=True)
        return found, len(found)

    def prompt_hash(self, asked: Asked) -> str:
        """See `Answerer`."""
        return short_hash([self._text(asked.dialogue), audio_names(user_audio(asked.dialogue))])

    def write(self, batch: Sequence[Asked]) -> list[Written]:
        """See `Answerer`.

        Raises:
            DataError: `too_long`, or what `load_audio` finds.
        """
        texts = [self._text(asked.dialogue) for asked in batch]
        waves = [wave for asked in batch for wave in self._waves(asked)]
        given = self._processor(
            text=texts, audio=waves, sampling_rate=SAMPLE_RATE, padding=True, return_tensors="pt"
        ).to(self._model.device)
        given["input_features"] = given["input_features"].to(self._model.dtype)
        for asked, mask in zip(batch, given["attention_mask"], strict=True):
            check_length(int(mask.sum()), self._config.max_new_tokens, context_of(self._model), asked.dialogue)
        with torch.inference_mode():
            ids = self._model.generate(**given, generation_config=self._config)
        new = ids[:, given["input_ids"].shape[1] :]
        return [Written(text) for text in self._processor.batch_decode(new, skip_special_tokens=True)]

    def parse(self, raw: str) -> Reply:
        """See `Answerer`."""
        return parse_reply(raw)

    def _text(self, dialogue: Dialogue) -> str:
        """The dialogue by the model's own chat template, a mark in the place of each piece of audio."""

        def heard(turn: Turn) -> list[dict[str, Any]]:
            assert turn.audio is not None, "read_dialogues refuses a user turn without"
            return [{"type": "audio", "audio_url": turn.audio.path}] * len(pieces(turn.audio.num_samples))

        chat = messages(dialogue, heard)
        return str(self._processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))

    @staticmethod
    def _waves(asked: Asked) -> list[NDArray[np.float32]]:
        found = []
        for ref in user_audio(asked.dialogue):
            try:
                wave = load_audio(ref)
            except DataError as error:
                raise error.at(f"{asked.work.store_place}: dialogue {asked.dialogue.id!r}") from None
            found += [wave[start : start + length] for start, length in pieces(len(wave))]
        return found

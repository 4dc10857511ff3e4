"""Whether a recording sounds as its style says: a classifier of emotions, here or behind a server."""

import asyncio
import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from data_prep.synthesis.backends.checker import Checker, Loaded
from data_prep.synthesis.backends.http import Reasons, Server, ServerSettings
from data_prep.synthesis.backends.recognise import wav_bytes
from data_prep.synthesis.contracts import Contract
from data_prep.synthesis.stage import BackendError, Retry
from omnichat.dialogue import EMOTIONS, shown

REASONS = Reasons("asr_http", "asr_http")
# Labels of emotion2vec+ (its tokens.txt has them in Chinese and English, parted by a slash) and of common classifiers.
LABELS = {
    "anger": "angry", "disgust": "disgusted", "fear": "fearful", "happiness": "happy", "joy": "happy",
    "sadness": "sad", "surprise": "surprised", "calm": "neutral",
}  # fmt: skip


class EmotionSettings(Contract):
    """Who judges emotions: the part `emotion` of the section `gates`.

    Attributes:
        kind: "emotion2vec" is an emotion2vec+ folder with its classifier; "http" a server to which a WAV is posted and
            which answers with labels and scores, as Hugging Face's audio-classification endpoints do.
        model: the folder.
        server: of the kind "http"; the address is asked as it stands, with `route` behind it.
        route: of the server.
        least: score of the style's emotion that is enough, whichever comes first.
        device: "cpu", "cuda".
    """

    kind: Literal["emotion2vec", "http"]
    model: str = ""
    server: ServerSettings | None = None
    route: str = ""
    least: float = Field(default=0.3, ge=0, le=1)  # ours
    device: str = "cpu"

    @model_validator(mode="after")
    def _whole(self) -> "EmotionSettings":
        if (self.server is None) == (self.kind == "http"):
            raise ValueError(f"kind {self.kind}: {'needs' if self.server is None else 'takes no'} section server")
        if self.kind == "emotion2vec" and not self.model:
            raise ValueError("kind emotion2vec: needs model, a folder of an emotion2vec_plus model")
        return self


class EmotionCheck(Checker[EmotionSettings]):
    """Speech to scores of emotions."""

    @abstractmethod
    async def scores(self, wave: NDArray[np.float32]) -> dict[str, float]:
        """Of (S,) at 16 kHz: a score for each emotion that is known there, in our words.

        Raises:
            Retry: `asr_http`.
        """

    def agrees(self, scores: Mapping[str, float], emotion: str) -> bool:
        """Whether the emotion comes first, or has scored enough."""
        return max(scores, key=lambda name: scores[name]) == emotion or scores.get(emotion, 0.0) >= self.settings.least


class HttpEmotionCheck(EmotionCheck):
    """A server; see `EmotionSettings`."""

    async def open(self) -> None:
        """See `Checker.open`."""
        assert self.settings.server is not None
        self._server = Server(self.settings.server, REASONS, "emotion server")
        await self._server.open()

    async def close(self) -> None:
        """See `Checker.close`."""
        await self._server.close()

    async def scores(self, wave: NDArray[np.float32]) -> dict[str, float]:
        """See `EmotionCheck.scores`."""
        headers = {"Content-Type": "audio/wav"}
        answer = await self._server.post(self.settings.route, content=wav_bytes(wave), headers=headers)
        try:
            found = {str(one["label"]): float(one["score"]) for one in json.loads(answer.body)}
        except (ValueError, KeyError, TypeError):
            text = shown(answer.body.decode(errors="replace"))
            raise Retry("asr_http", f"emotion server: no list of label and score: {text}") from None
        return known(found)


class Emotion2vecCheck(Loaded, EmotionCheck):
    """emotion2vec+ as FunASR classifies with it: the mean of the frames through its last layer, and a softmax."""

    def _load(self) -> None:
        from omnichat.models.encoders import load_encoder
        from omnichat.models.encoders.checkpoint_files import EncoderError, read_torch
        from omnichat.models.encoders.emotion2vec import SOURCE

        folder = Path(self.settings.model)
        try:
            self._encoder = load_encoder("emotion2vec", folder).to(self.settings.device)
            weights = read_torch(folder / "model.pt", SOURCE)
        except EncoderError as error:
            raise BackendError(str(error)) from None
        weights = weights.get("model", weights)
        try:
            labels = (folder / "tokens.txt").read_text(encoding="utf-8").split("\n")
        except OSError as error:
            raise BackendError(f"{folder}: no labels of emotions: tokens.txt: {error.strerror}") from None
        self._labels = [label.strip().rpartition("/")[2].strip("<>").replace("unk", "unknown") for label in labels]
        self._labels = [label for label in self._labels if label]
        if "proj.weight" not in weights or len(self._labels) != len(weights["proj.weight"]):
            raise BackendError(
                f"{folder}: no classifier for the {len(self._labels)} labels of tokens.txt; take a plus model"
            )
        self._weight, self._bias = (
            weights[f"proj.{name}"].float().to(self.settings.device) for name in ("weight", "bias")
        )

    async def scores(self, wave: NDArray[np.float32]) -> dict[str, float]:
        """See `EmotionCheck.scores`."""
        return known(await asyncio.to_thread(self._scores, wave))

    def _scores(self, wave: NDArray[np.float32]) -> dict[str, float]:
        import torch

        with torch.inference_mode():
            waves = torch.from_numpy(wave)[None].to(self.settings.device)
            frames, lengths = self._encoder(waves, torch.tensor([len(wave)], device=waves.device))
            mean = frames[0, : int(lengths[0])].float().mean(dim=0)
            values = torch.softmax(self._weight @ mean + self._bias, dim=0).tolist()
        return dict(zip(self._labels, values, strict=True))


def known(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores in our words; of labels that we do not know, as "other", nothing.

    Raises:
        Retry: `asr_http` where no label is known.
    """
    found = {LABELS.get(name.lower(), name.lower()): score for name, score in scores.items()}
    found = {name: score for name, score in found.items() if name in EMOTIONS}
    if not found:
        raise Retry("asr_http", f"the classifier of emotions has none of ours: {', '.join(scores) or 'no labels'}")
    return found


def make_emotion_check(settings: EmotionSettings) -> EmotionCheck:
    """The check of these settings, not yet opened."""
    return (HttpEmotionCheck if settings.kind == "http" else Emotion2vecCheck)(settings)

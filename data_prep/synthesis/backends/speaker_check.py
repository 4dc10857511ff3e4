"""Whether a recording has its speaker's voice: the cosine between speaker embeddings.

Turns are spoken one by one, so nothing needs to be told apart in time, as diarisation would: a recording is held to one
neutral sentence of the same voice.
"""

import asyncio
from abc import abstractmethod
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_prep.synthesis.backends.checker import Checker, Loaded
from data_prep.synthesis.contracts import Contract
from data_prep.synthesis.stage import BackendError
from omnichat.audio import SAMPLE_RATE


class SpeakerSettings(Contract):
    """Who compares voices: the part `speaker` of the section `gates`.

    Attributes:
        kind: "xvector" is any x-vector model of transformers (WavLM, UniSpeech-SAT, wav2vec 2), "pyannote" an embedding
            model of pyannote.audio, which is installed apart.
        model: its folder; with pyannote, the checkpoint file.
        least: cosine to the voice's reference below which a recording is refused. It hangs on the model and on the
            synthesiser: look at the distribution of `speaker` in a pilot's report first.
        device: "cpu", "cuda".
    """

    kind: Literal["xvector", "pyannote"] = "xvector"
    model: str
    least: float = Field(default=0.86, ge=-1, le=1)  # the model card of microsoft/wavlm-base-plus-sv; "ours" for others
    device: str = "cpu"


class SpeakerCheck(Checker[SpeakerSettings]):
    """Embeds voices; remembers each voice's reference."""

    def __init__(self, settings: SpeakerSettings) -> None:
        super().__init__(settings)
        self.references: dict[str, NDArray[np.float32]] = {}

    @abstractmethod
    def embed(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """(S,) at 16 kHz -> (D,)."""

    async def remember(self, voice: str, wave: NDArray[np.float32]) -> None:
        """Take a recording as the reference of a voice."""
        self.references[voice] = await asyncio.to_thread(self.embed, wave)

    async def similarity(self, voice: str, wave: NDArray[np.float32]) -> float:
        """Cosine of a recording to the voice's reference, which must be there."""
        found, wanted = await asyncio.to_thread(self.embed, wave), self.references[voice]
        lengths = float(np.linalg.norm(found)) * float(np.linalg.norm(wanted))
        return float(found @ wanted) / lengths if lengths > 0 else 0.0


class XVectorCheck(Loaded, SpeakerCheck):
    """Models of transformers with an x-vector head, as microsoft/wavlm-base-plus-sv."""

    def _load(self) -> None:
        import transformers

        folder = Path(self.settings.model)
        try:
            model, report = transformers.AutoModelForAudioXVector.from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
            self._extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise BackendError(f"{folder}: no x-vector model: {str(error).splitlines()[0]}") from None
        # An encoder without the head would get a random one, in silence; the loss's own weights are not needed.
        if lacking := sorted(name for name in report["missing_keys"] if not name.startswith("objective.")):
            raise BackendError(f"{folder}: no x-vector model: it lacks {', '.join(lacking[:3])}")
        self._model = model.eval().to(self.settings.device)

    def embed(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `SpeakerCheck.embed`."""
        import torch

        inputs = self._extractor(wave, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        with torch.inference_mode():
            embedding = self._model(inputs.input_values.to(self._model.device)).embeddings[0]
        vector: NDArray[np.float32] = embedding.float().cpu().numpy()
        return vector


class PyannoteCheck(Loaded, SpeakerCheck):
    """Embedding models of pyannote.audio; their weights are gated by their publisher's form."""

    def _load(self) -> None:
        import os

        os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")
        try:
            from pyannote.audio import Inference, Model
        except ImportError:
            raise BackendError("pyannote.audio is missing: pip install pyannote.audio") from None
        model = Model.from_pretrained(self.settings.model)
        if model is None:
            raise BackendError(f"{self.settings.model}: no model of pyannote.audio")
        self._inference = Inference(model.to(self.settings.device), window="whole")

    def embed(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `SpeakerCheck.embed`."""
        import torch

        heard = {"waveform": torch.from_numpy(wave)[None], "sample_rate": SAMPLE_RATE}
        return np.asarray(self._inference(heard), dtype=np.float32).reshape(-1)


def make_speaker_check(settings: SpeakerSettings) -> SpeakerCheck:
    """The check of these settings, not yet opened."""
    return (XVectorCheck if settings.kind == "xvector" else PyannoteCheck)(settings)

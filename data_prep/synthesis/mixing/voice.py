"""Whether a human voice is heard in a clip: the paper takes such clips of AudioCaps out with PANNs.

Any tagger of AudioSet's classes will do. Two are here: a BEATs checkpoint fine-tuned on AudioSet, and a server.
"""

import io
import json
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnichat.audio import PIECE, SAMPLE_RATE
from omnichat.dialogue import DataError, shown

# "Human voice" and all below it: audioset/ontology@d417d32 ontology.json.
HUMAN_VOICE: dict[str, str] = {
    "/m/09l8g": "Human voice",
    "/m/09x0r": "Speech",
    "/m/05zppz": "Male speech, man speaking",
    "/m/02zsn": "Female speech, woman speaking",
    "/m/0ytgt": "Child speech, kid speaking",
    "/m/01h8n0": "Conversation",
    "/m/02qldy": "Narration, monologue",
    "/m/0261r1": "Babbling",
    "/m/0brhx": "Speech synthesizer",
    "/m/07p6fty": "Shout",
    "/m/07q4ntr": "Bellow",
    "/m/07rwj3x": "Whoop",
    "/m/07sr1lc": "Yell",
    "/m/04gy_2": "Battle cry",
    "/t/dd00135": "Children shouting",
    "/m/03qc9zr": "Screaming",
    "/m/02rtxlg": "Whispering",
    "/m/01j3sz": "Laughter",
    "/t/dd00001": "Baby laughter",
    "/m/07r660_": "Giggle",
    "/m/07s04w4": "Snicker",
    "/m/07sq110": "Belly laugh",
    "/m/07rgt08": "Chuckle, chortle",
    "/m/0463cq4": "Crying, sobbing",
    "/t/dd00002": "Baby cry, infant cry",
    "/m/07qz6j3": "Whimper",
    "/m/07qw_06": "Wail, moan",
    "/m/07plz5l": "Sigh",
    "/m/015lz1": "Singing",
    "/m/0l14jd": "Choir",
    "/m/01swy6": "Yodeling",
    "/m/02bk07": "Chant",
    "/m/01c194": "Mantra",
    "/t/dd00003": "Male singing",
    "/t/dd00004": "Female singing",
    "/t/dd00005": "Child singing",
    "/t/dd00006": "Synthetic singing",
    "/m/06bxc": "Rapping",
    "/m/02fxyj": "Humming",
    "/m/07s2xch": "Groan",
    "/m/07r4k75": "Grunt",
    "/m/01j423": "Yawn",
}
_KNOWN = frozenset(HUMAN_VOICE) | {name.lower() for name in HUMAN_VOICE.values()}
MAX_ANSWER = 2**20  # bytes


class VoiceTagger(ABC):
    """Listens for voices."""

    @abstractmethod
    def voice(self, wave: NDArray[np.float32]) -> float:
        """The largest probability of a class of human voice in (S,) samples at 16 kHz.

        Raises:
            DataError: the tagger cannot tell; says why.
        """


class BeatsTagger(VoiceTagger):
    """A unilm BEATs checkpoint that was fine-tuned on AudioSet, as BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt1.pt.

    Raises:
        DataError: `bad_tagger` where the file is no such checkpoint.
    """

    def __init__(self, checkpoint: Path) -> None:
        from omnichat.models.encoders.beats import load_beats
        from omnichat.models.encoders.checkpoint_files import EncoderError

        try:
            self._encoder = load_beats(checkpoint)
        except EncoderError as error:
            raise DataError("bad_tagger", str(error)) from None
        self._classes = [number for number, label in enumerate(self._encoder.labels) if label in HUMAN_VOICE]
        if not self._classes:
            message = "has no class of human voice; take a checkpoint that was fine-tuned on AudioSet"
            raise DataError("bad_tagger", message, str(checkpoint))

    def voice(self, wave: NDArray[np.float32]) -> float:
        """Pieces of 30 s are heard one by one."""
        import torch

        found = 0.0
        for start in range(0, len(wave), PIECE):
            piece = torch.from_numpy(wave[start : start + PIECE].copy())[None]
            probabilities = self._encoder.probabilities(piece, torch.tensor([piece.shape[1]]))
            found = max(found, float(probabilities[0, self._classes].max()))
        return found


class HttpTagger(VoiceTagger):
    """A server that takes a WAV by POST and answers `[{"label": "Speech", "score": 0.97}, ...]`.

    That is how inference servers for audio classification answer. Labels are AudioSet's ids or display names; a class
    that is not in the answer counts as not heard, so that the server must give its best few.
    """

    def __init__(self, url: str, timeout: float = 60.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise DataError("bad_tagger", f"{url!r} is neither http:// nor https://")
        self._url, self._timeout = url, timeout

    def voice(self, wave: NDArray[np.float32]) -> float:
        """See `VoiceTagger.voice`."""
        import soundfile

        buffer = io.BytesIO()
        soundfile.write(buffer, wave, SAMPLE_RATE, format="WAV", subtype="PCM_16")
        request = urllib.request.Request(self._url, buffer.getvalue(), {"Content-Type": "audio/wav"})
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                scores = json.loads(answer.read(MAX_ANSWER))
            return max((_score(one) for one in scores if str(one["label"]).lower() in _KNOWN), default=0.0)
        except (urllib.error.URLError, OSError) as error:
            raise DataError("tagger_http", f"{error}; is the server running?", self._url) from None
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            message = f"answers something else than a list of label and score ({type(error).__name__}: {error})"
            raise DataError("tagger_http", message, self._url) from None


def _score(one: Mapping[str, object]) -> float:
    score = one["score"]
    if not isinstance(score, int | float) or not 0 <= score <= 1:
        raise ValueError(f"score {shown(score)} is no probability")
    return float(score)

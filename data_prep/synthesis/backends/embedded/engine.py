"""What a speech engine is, whichever it is; and `speak`, speech with an emotion."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Self

import numpy as np
import soxr
from numpy.typing import NDArray

from data_prep.synthesis.backends.embedded.prosody import Prosody, colour, jittered, styled
from data_prep.synthesis.contracts import Voice
from omnichat.audio import SAMPLE_RATE
from omnichat.dialogue import Style


class EngineError(RuntimeError):
    """An engine is missing, refused a request or died; the message says which and how to mend it."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """Speech and what was said when.

    pcm: (S,) float32 at 16 kHz. phones: (the engine's name of it, without stress, first sample, last sample + 1), in
    order and without gaps from the first phone on; names that start with "_" are pauses.
    """

    pcm: NDArray[np.float32]
    phones: tuple[tuple[str, int, int], ...]

    @classmethod
    def resampled(cls, wave: NDArray[np.float32], sample_rate: int, starts: Sequence[tuple[str, int]]) -> "Utterance":
        """From what an engine gives: a wave of its own rate, and the first sample of each phone.

        A phone without a name or samples is left out; the others keep their places.
        """
        pcm = np.ascontiguousarray(soxr.resample(wave, sample_rate, SAMPLE_RATE), dtype=np.float32)
        bounds = [min(len(pcm), round(start * SAMPLE_RATE / sample_rate)) for _, start in starts]
        spans = zip([name for name, _ in starts], bounds, [*bounds[1:], len(pcm)], strict=True)
        return cls(pcm, tuple(span for span in spans if span[0] and span[2] > span[1]))


class Engine(ABC):
    """A running speech synthesiser. A context manager; not to be shared between threads.

    The same engine of the same version gives the same samples for the same request, whatever it was asked before.

    Attributes:
        train_voices, unseen_voices: who speaks in training, and who in the test on unseen voices.
        version: name and version, as in "espeak-ng 1.52.0".
    """

    train_voices: ClassVar[tuple[Voice, ...]]
    unseen_voices: ClassVar[tuple[Voice, ...]]
    version: str

    @abstractmethod
    def __init__(self, file: str | None = None) -> None:
        """Start it.

        Args:
            file: its library or program, instead of the one that is found.

        Raises:
            EngineError: it cannot be started; says what to install.
        """

    @abstractmethod
    def say(self, text: str, voice: Voice, prosody: Prosody) -> Utterance:
        """The plain synthesis, before `prosody.colour`.

        Raises:
            EngineError: it died, refused the voice or a value, or made no sound.
        """

    @abstractmethod
    def close(self) -> None:
        """End it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def speak(engine: Engine, text: str, voice: Voice, style: Style, rng: np.random.Generator | None = None) -> Utterance:
    """`text` as `voice` says it in `style`.

    Args:
        engine: running.
        text: the words; their final mark is the emotion's.
        voice: the speaker, one of the engine's.
        style: emotion, speed and pitch; what is unknown is neutral or normal. The gender is the voice's.
        rng: draws the utterance's jitter; without it, the style's exact values (noise from seed 0).

    Raises:
        EngineError: see `Engine.say`.
    """
    prosody = styled(style)
    if rng is None:
        rng = np.random.default_rng(0)
    else:
        prosody = jittered(prosody, rng)
    utterance = engine.say(text, voice, prosody)
    return Utterance(colour(utterance.pcm, prosody, rng), utterance.phones)

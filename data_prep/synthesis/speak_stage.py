"""From words to a clean recording: an `Utterance` is spoken, must pass the gates, and becomes `Speech`."""

import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from data_prep.synthesis.backends.gates import Gates, GateSettings
from data_prep.synthesis.backends.speech import CANARY, SpeechSettings, make_speech
from data_prep.synthesis.blobs import write_audio
from data_prep.synthesis.contracts import Speech, Utterance
from data_prep.synthesis.stage import Attempt, Reject, Stage
from omnichat.audio import SAMPLE_RATE
from omnichat.dialogue import Style

MAX_ATTEMPTS = 10  # OmniChat, appendix C: a turn is spoken again at most ten times


class SpeakStage(Stage[Utterance, Speech]):
    """Speaks and checks; see `Stage`."""

    name: ClassVar[str] = "speak"
    version: ClassVar[str] = "1"
    takes = Utterance
    gives = Speech
    max_attempts = MAX_ATTEMPTS

    def __init__(self, speech: SpeechSettings, gates: GateSettings) -> None:
        self.speech_settings, self.gate_settings = speech, gates
        self.speech = make_speech(speech)
        self.gates = Gates(gates, self.speech.seconds_per_character)
        self.concurrency = self.speech.concurrency
        if self.speech.deterministic:
            self.max_attempts = 1  # the same request would give the same recording

    def __reduce__(self) -> tuple[type["SpeakStage"], tuple[SpeechSettings, GateSettings]]:
        # Where it goes, it is opened anew.
        return SpeakStage, (self.speech_settings, self.gate_settings)

    def identity(self) -> Mapping[str, Any]:
        """Engine, voices' prosody and limits; see `Stage.identity`."""
        return {"speech": dict(self.speech.identity()), "gates": dict(self.gates.identity())}

    async def open(self) -> None:
        """See `Stage.open`."""
        await self.speech.open()
        await self.gates.open()

    async def close(self) -> None:
        """See `Stage.close`."""
        await self.gates.close()
        await self.speech.close()

    async def run(self, item: Utterance, attempt: Attempt) -> Speech:
        """See `Stage.run`; refuses with `tts_...`, `dur_ratio`, and what the checkers say."""
        if item.style.gender not in (None, item.voice.gender):
            raise Reject("internal", f"a {item.style.gender} style for the {item.voice.gender} {item.voice.name!r}")
        wave = await self.speech.speak(item, attempt)
        attempt.cost.audio_seconds += len(wave) / SAMPLE_RATE
        if self.gates.speaker is not None and item.voice.name not in self.gates.speaker.references:
            await self.gates.speaker.remember(item.voice.name, await self._reference(item, attempt))
        passed = await self.gates.check(wave, item)
        blob = write_audio(attempt.blobs, wave)
        return Speech(blob=blob, num_samples=len(wave), **passed._asdict())

    async def _reference(self, item: Utterance, attempt: Attempt) -> NDArray[np.float32]:
        """A neutral sentence in the item's voice: the same one whichever item comes first."""
        rng = np.random.default_rng(zlib.crc32(item.voice.name.encode()))
        first = Attempt(0, rng, attempt.blobs, attempt.cost)
        return await self.speech.speak(Utterance(text=CANARY, style=Style(), voice=item.voice), first)

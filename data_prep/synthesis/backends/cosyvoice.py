"""CosyVoice's own FastAPI server (runtime/python/fastapi/server.py): form fields in, raw int16 samples out.

It says neither rate nor error in its answer and takes no seed; some routes of some versions fail. So the rate is
configured, and the first sentence, which `open` asks for, must sound like speech.
"""

from data_prep.synthesis.backends.http import Answer
from data_prep.synthesis.backends.served_speech import ServedSpeech
from data_prep.synthesis.backends.speech import SpeechServerSettings
from data_prep.synthesis.contracts import Utterance
from data_prep.synthesis.stage import BackendError


class CosyVoice(ServedSpeech):
    """See `SpeechBackend`. Route `inference_instruct` has voices of its own, `inference_instruct2` copies them."""

    kind = "cosyvoice"
    form = "pcm"

    def __init__(self, settings: SpeechServerSettings) -> None:
        super().__init__(settings, "cosyvoice")
        self.deterministic = settings.repeats  # it takes no speed
        self._copies = settings.route == "inference_instruct2"
        if lacking := [one.name for one in settings.speakers if self._copies and not one.prompt_wav]:
            raise BackendError(f"route {settings.route} needs a prompt_wav of the voices {', '.join(lacking)}")

    async def ask(self, utterance: Utterance, instruction: str, seed: int, speed: float) -> Answer:
        """See `ServedSpeech.ask`."""
        fields = {"tts_text": utterance.text, **self.settings.extra}
        name = utterance.voice.name
        if not self._copies:
            fields["spk_id"] = name
        if self.settings.route != "inference_sft":
            fields["instruct_text"] = instruction
        files = {"prompt_wav": ("prompt.wav", self.prompt_wav(name), "audio/wav")} if self._copies else None
        return await self.server.post(self.settings.route, data=fields, files=files)

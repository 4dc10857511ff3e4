"""Speech servers that speak OpenAI's `POST /audio/speech`: vLLM-Omni (Qwen3-TTS, CosyVoice 3 and others), Kokoro's."""

from data_prep.synthesis.backends.http import Answer
from data_prep.synthesis.backends.served_speech import ServedSpeech
from data_prep.synthesis.backends.speech import SpeechServerSettings
from data_prep.synthesis.contracts import Utterance


class OpenAISpeech(ServedSpeech):
    """See `SpeechBackend`. The style goes as `instructions`, and as `speed` where that is asked for."""

    kind = "openai"

    def __init__(self, settings: SpeechServerSettings) -> None:
        super().__init__(settings, "openai")
        self.form = settings.format

    async def ask(self, utterance: Utterance, instruction: str, seed: int, speed: float) -> Answer:
        """See `ServedSpeech.ask`."""
        settings = self.settings
        request = {"input": utterance.text, "voice": utterance.voice.name, "response_format": settings.format}
        request |= {"model": settings.model} if settings.model else {}
        request |= {"instructions": instruction} if instruction else {}
        numbers = ({"seed": seed} if settings.send_seed else {}) | ({"speed": speed} if settings.send_speed else {})
        return await self.server.post("audio/speech", json=request | numbers | settings.extra)

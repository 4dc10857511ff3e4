"""Made-up spoken dialogues and a tiny random model that hears them, for the tests of the whole model."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from tokenizers import Tokenizer

from omnichat.audio import pieces
from omnichat.batch import Example
from omnichat.dialogue import AudioRef, Dialogue, Style, Turn
from omnichat.models.encoders import load_encoder
from omnichat.models.llm import add_lora, load_llm
from omnichat.models.mixformer import MixFormer
from omnichat.models.omnichat import OmniChat
from omnichat.models.tiny import write_random_checkpoints
from omnichat.prompt import Prompt

OPTIONS: dict[str, dict[str, str]] = {"whisper": {"context": "trim"}, "emotion2vec": {}, "beats": {}}

_FOLDER = TemporaryDirectory(prefix="omnichat-tests-")  # removed when the process ends


@cache
def checkpoints() -> dict[str, Path]:
    """Random weights in the upstream formats, written once a session."""
    return write_random_checkpoints(_FOLDER.name, width=32, layers=2)


def make_prompt(window: int = 17, queries: int = 1, **options: object) -> Prompt:
    """A prompt with the tiny model's tokenizer and no system message."""
    tokenizer = Tokenizer.from_file(str(checkpoints()["llama"] / "tokenizer.json"))
    return Prompt(tokenizer, window, queries, **({"system": ""} | options))


def make_model(window: int = 17, queries: int = 1) -> OmniChat:
    """A tiny random model, the same at every call. LoRA does something from the start: gradients reach all of it."""
    torch.manual_seed(0)
    encoders = {name: load_encoder(name, checkpoints()[name], **options) for name, options in OPTIONS.items()}
    llm = load_llm(checkpoints()["llama"])
    add_lora(llm, rank=4, alpha=8)
    for name, parameter in llm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    sizes = {"hidden": 32, "layers": 2, "heads": 4, "ffn": 64, "window": window, "queries": queries}
    mixformer = MixFormer({name: net.dim for name, net in encoders.items()}, llm.config.hidden_size, **sizes)
    return OmniChat(encoders, mixformer, llm, window, queries)


def make_dialogue(name: str, seconds: Sequence[float], replies: Sequence[tuple[Style, str]]) -> Dialogue:
    """User turns of the given length, each answered by the assistant with a style and words."""
    turns: list[Turn] = []
    for number, (length, (style, text)) in enumerate(zip(seconds, replies, strict=True)):
        turns.append(Turn("user", "", audio=AudioRef(f"{name}-{number}.wav", round(length * 16_000))))
        turns.append(Turn("assistant", text, style))
    return Dialogue(name, tuple(turns), "synthetic", {"scenario": "emotion"})


def make_example(prompt: Prompt, dialogue: Dialogue, seed: int, generation: bool = False) -> Example:
    """The dialogue rendered, with a wavering tone to hear whose pitch and loudness depend on `seed` and the turn."""
    tokens = prompt.render(dialogue, generation)
    waves = []
    for number, slot in enumerate(tokens.slots):
        random = np.random.default_rng([seed, number])
        for _, length in pieces(slot.audio.num_samples):
            time = np.arange(length) / 16_000
            loudness = random.uniform(0.05, 0.5) * (0.5 + 0.5 * np.sin(random.uniform(5, 30) * time))
            tone = loudness * np.sin(2 * np.pi * random.uniform(100, 3_000) * time)
            waves.append((tone + 0.02 * random.standard_normal(length)).astype(np.float32))
    return Example(tokens, tuple(waves), None, dialogue.id, dialogue.source, dialogue.scene)


DIALOGUES = (
    make_dialogue("a", [0.9], [(Style("female", "sad", "slow", "low"), "I am sorry to hear that.")]),
    make_dialogue(
        "b",
        [1.3, 0.4, 2.1],
        [
            (Style("male", "happy", "fast", "high"), "Great!"),
            (Style(None, "neutral", None, "normal"), "Go on."),
            (Style("male", "surprised", "normal", "high"), "Is that so? Tell me more."),
        ],
    ),
    make_dialogue("c", [0.01, 0.7], [(Style(), "Yes?"), (Style("female", None, "normal", "normal"), "Ok.")]),
    make_dialogue("d", [31.0], [(Style("female", "fearful", "fast", "high"), "What a noise that was!")]),
)


def make_examples(prompt: Prompt, generation: bool = False, dialogues: Sequence[Dialogue] = DIALOGUES) -> list[Example]:
    """Four dialogues: one turn; three turns, unknown style fields; a turn of one frame; a turn beyond 30 s."""
    return [make_example(prompt, dialogue, seed, generation) for seed, dialogue in enumerate(dialogues)]


def cached(model: OmniChat, example: Example) -> Example:
    """The example with its experts' frames instead of its waves."""
    features = []
    for wave in example.waves:
        clip = (torch.from_numpy(wave)[None], torch.tensor([len(wave)]))
        features.append({name: encoder(*clip)[0][0].numpy() for name, encoder in model.encoders.items()})
    rest = (example.dialogue_id, example.source, example.scene, example.index)
    return Example(example.tokens, (), tuple(features), *rest)

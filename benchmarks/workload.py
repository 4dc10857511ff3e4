"""What is computed on: dialogues with ShareChatX's length statistics, and random weights of a given size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM, WhisperConfig, WhisperModel
from transformers.utils import logging as transformers_logging

from omnichat.audio import PIECE, SAMPLE_RATE
from omnichat.batch import Example
from omnichat.dialogue import STYLE_VALUES, AudioRef, Dialogue, Style, Turn
from omnichat.models.encoders import Encoder
from omnichat.models.tiny import default_texts, llama_config, write_llama, write_tokenizer
from omnichat.prompt import Prompt

# OmniChat, Table 1: 947,236 turns in 128,600 dialogues, 1,130 h.
MEAN_TURNS = 7.37
MEAN_SECONDS = 4.295
# The paper gives no spread: ours. The shares of 6, 8 and 10 turns have the mean above.
TURN_SHARES = {6: 0.45, 8: 0.415, 10: 0.135}
SIGMA = 0.45  # of the logarithm of a turn's seconds
WORDS_PER_SECOND = 3.5  # ours: about 15 words a turn
WORDS = tuple(
    word
    for line in (
        "I you we they it that this was is are will would can could see hear think know want come go take give make",
        "feel good well really never always today tomorrow here there with about after before because but and so the",
        "a my your time day work home friend train music rain letter doctor lake morning evening please thanks sorry",
    )
    for word in line.split()
)
CONF = Path(__file__).parents[1] / "conf" / "data" / "base.yaml"


@dataclass(frozen=True)
class Sizes:
    """Sizes of the nets; by default a Llama of 34 M parameters, Whisper tiny's encoder and a Q-Former of 4.7 M."""

    width: int = 384
    whisper_layers: int = 4
    whisper_heads: int = 6
    qformer_layers: int = 2
    qformer_heads: int = 6
    llm_layers: int = 6
    llm_heads: int = 8
    llm_kv_heads: int = 2
    llm_ffn: int = 1024
    vocab_size: int = 32_000
    lora_rank: int = 8
    lora_alpha: int = 16

    @property
    def qformer(self) -> Mapping[str, int]:
        """Options of a Q-Former."""
        ffn = 4 * self.width
        return {"hidden": self.width, "layers": self.qformer_layers, "heads": self.qformer_heads, "ffn": ffn}


@dataclass(frozen=True)
class Checkpoints:
    """Random weights in Hugging Face folders, which the project and the plain loop both load."""

    whisper: Path
    llama: Path


def write_checkpoints(folder: Path, sizes: Sizes, seed: int = 0) -> Checkpoints:
    """Write random weights, and a tokenizer that knows the dialogues' words."""
    transformers_logging.disable_progress_bar()
    torch.manual_seed(seed)
    whisper = WhisperConfig(
        d_model=sizes.width,
        encoder_layers=sizes.whisper_layers,
        encoder_attention_heads=sizes.whisper_heads,
        encoder_ffn_dim=4 * sizes.width,
        decoder_layers=1,  # never run
        decoder_attention_heads=sizes.whisper_heads,
        decoder_ffn_dim=sizes.width,
        vocab_size=64,
        max_target_positions=8,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
    )
    WhisperModel(whisper).save_pretrained(folder / "whisper")
    texts = [*default_texts(), system_prompt(), *(f" {word}" for word in WORDS)] * 2
    tokenizer = write_tokenizer(folder / "llama", texts, min(sizes.vocab_size, 2048))
    options = {"intermediate_size": sizes.llm_ffn, "num_key_value_heads": sizes.llm_kv_heads}
    config = llama_config(
        tokenizer, sizes.width, sizes.llm_heads, sizes.llm_layers, vocab_size=sizes.vocab_size, **options
    )
    write_llama(folder / "llama", LlamaForCausalLM(config))
    return Checkpoints(folder / "whisper", folder / "llama")


def system_prompt() -> str:
    """The system message that the recipes train with."""
    return str(yaml.safe_load(CONF.read_text(encoding="utf-8"))["system"])


def make_prompt(checkpoints: Checkpoints) -> Prompt:
    """The prompt of the recipes, with the random model's tokenizer."""
    return Prompt(Tokenizer.from_file(str(checkpoints.llama / "tokenizer.json")), system=system_prompt())


def draw_dialogues(count: int, seed: int = 0) -> list[Dialogue]:
    """Dialogues of 6 to 10 turns, user and assistant by turns, each turn lasting lognormally many seconds."""
    random = np.random.default_rng(seed)
    # Turns by quota instead of by chance: a handful of dialogues then has nearly the mean of the corpus.
    steps = np.cumsum(list(TURN_SHARES.values()))
    quota = [list(TURN_SHARES)[int(np.searchsorted(steps, (number + 0.5) / count))] for number in range(count)]
    dialogues = []
    for number, num_turns in enumerate(random.permutation(quota).tolist()):
        turns: list[Turn] = []
        for place in range(num_turns):
            seconds = random.lognormal(np.log(MEAN_SECONDS) - SIGMA**2 / 2, SIGMA)
            text = " ".join(random.choice(WORDS, max(1, round(WORDS_PER_SECOND * seconds))))
            style = Style(**{name: str(random.choice(values)) for name, values in STYLE_VALUES.items()})
            if place % 2:
                turns.append(Turn("assistant", text, style))
            else:
                audio = AudioRef(f"{number}-{place}", min(PIECE, round(seconds * SAMPLE_RATE)))
                turns.append(Turn("user", text, style, audio))
        dialogues.append(Dialogue(f"drawn-{number}", tuple(turns)))
    return dialogues


def make_examples(prompt: Prompt, dialogues: Sequence[Dialogue], seed: int = 0) -> list[Example]:
    """The dialogues rendered, with noise to hear: what the nets do does not depend on what it is."""
    random = np.random.default_rng(seed)
    examples = []
    for dialogue in dialogues:
        tokens = prompt.render(dialogue)
        waves = [0.1 * random.standard_normal(slot.audio.num_samples, dtype=np.float32) for slot in tokens.slots]
        examples.append(Example(tokens, tuple(waves), None, dialogue.id))
    return examples


def with_features(examples: Sequence[Example], encoder: Encoder) -> list[Example]:
    """The examples with the encoder's frames in place of waves, as a feature store in float32 gives them."""
    cached = []
    for example in examples:
        features = []
        for wave in example.waves:
            frames, lengths = encoder(torch.from_numpy(wave)[None], torch.tensor([len(wave)]))
            features.append({encoder.name: frames[0, : int(lengths[0])].numpy()})
        cached.append(Example(example.tokens, (), tuple(features), example.dialogue_id))
    return cached


def describe(examples: Sequence[Example]) -> dict[str, float]:
    """What was drawn, in numbers."""
    lengths = [len(example.tokens.ids) for example in examples]
    heard = [slot for example in examples for slot in example.tokens.slots]
    return {
        "dialogues": len(examples),
        "turns per dialogue": 2 * len(heard) / len(examples),
        "clips heard": len(heard),
        "seconds per clip": sum(slot.audio.num_samples for slot in heard) / SAMPLE_RATE / len(heard),
        "windows": sum(slot.length for slot in heard),
        "tokens": sum(lengths),
        "tokens when padded": len(lengths) * max(lengths),
        "targets": sum(example.tokens.num_targets for example in examples),
    }

"""The tiny Llama: reads the corpus's kind of dialogue as text, with what is otherwise heard as stage directions.

It meets two kinds of user turn. Written: `[rain] (angry) we are going to the bank.` Blended: as many vectors as the
Mix-Former would give, each a mixture of the embeddings of the words of that stretch, the emotion and the sound. So the
frozen model has a use for what a Mix-Former can learn to say, and LoRA need not teach it to read mixtures.

It has read no script of the corpus: the templates come with other nouns, the corpus's nouns in other sentences.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from data_prep.quickstart.scripts import (
    CONTENT_WORDS,
    FOLLOW_UPS,
    NEUTRAL,
    OPENINGS,
    TEMPLATES,
    reply,
    stage_directions,
)
from data_prep.quickstart.sounds import SOUND_NAMES
from data_prep.tiny_weights.words import COMMON_WORDS, NOUNS, VOCABULARY
from omnichat.audio import HOP
from omnichat.dialogue import EMOTIONS, GENDERS, AudioRef, Dialogue, Style, Turn
from omnichat.models.llm import PACKED, packed_hidden
from omnichat.models.tiny import default_texts, llama_config
from omnichat.prompt import IGNORE, Prompt

# Sentences the corpus lacks, for the nouns it has.
OTHER_TEMPLATES = (
    "the {} is closed today.",
    "do you know the {}?",
    "nobody lives in the {} now.",
    "we took a picture of the {}.",
    "the {} is older than my house.",
    "you can see the {} from here.",
    "tell me more about the {}.",
    "the {} was full of people.",
)
ECHO_WORDS = (2, 9)
ECHO_SHARE = 0.35  # of the dialogues only repeat what was said: copying is learnt in a fraction of the steps
BLENDED_SHARE = 0.6  # of the dialogues; the others are written
SOUND_SHARE = 0.6
WINDOW_SAMPLES = 2 * HOP * 17


class Blend(NamedTuple):
    """(n,) entries: the embedding at `positions` is the sum of `weights` x the embeddings of `ids`."""

    positions: NDArray[np.int64]
    ids: NDArray[np.int64]
    weights: NDArray[np.float32]


def random_dialogue(rng: np.random.Generator) -> tuple[Dialogue, str, str]:
    """A dialogue without directions, and the emotion and sound ("" for none) of its last user turn."""
    gender, emotion = GENDERS[rng.integers(2)], EMOTIONS[rng.integers(len(EMOTIONS))]
    sound = SOUND_NAMES[rng.integers(len(SOUND_NAMES))] if rng.random() < SOUND_SHARE else ""
    known = rng.random() < 0.5
    noun = str(rng.choice(NOUNS if known else CONTENT_WORDS if rng.random() < 0.7 else COMMON_WORDS))
    template = str(rng.choice(TEMPLATES if known else OTHER_TEMPLATES))
    history = [OPENINGS[rng.integers(len(OPENINGS))], FOLLOW_UPS[rng.integers(len(FOLLOW_UPS))]][: rng.integers(1, 3)]
    turns: list[Turn] = []
    for question, answer in history:
        turns += [Turn("user", question), Turn("assistant", answer, Style(gender, *NEUTRAL))]
    style, words = reply(emotion, noun, sound, gender)
    turns += [Turn("user", template.format(noun)), Turn("assistant", words, style)]
    if rng.random() < ECHO_SHARE:
        heard = " ".join(rng.choice(VOCABULARY, size=rng.integers(*ECHO_WORDS)))
        turns[-2:] = [Turn("user", heard), Turn("assistant", f"you said {heard}.", style)]
    return Dialogue("text", tuple(turns)), emotion, sound


def tokenizer_texts(count: int = 2000, seed: int = 0) -> Iterator[str]:
    """What the tokenizer is trained on: dialogues with directions, and every word once after a space."""
    rng = np.random.default_rng(seed)
    yield from default_texts()
    for _ in range(count):
        dialogue, emotion, sound = random_dialogue(rng)
        yield from (turn.text for turn in dialogue.turns)
        yield stage_directions(dialogue.turns[-2].text, emotion, sound)
    for word in VOCABULARY:
        yield f" {word}"


class Reader:
    """Turns dialogues into tokens, written or blended."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.written = Prompt(tokenizer, input="text")
        self.blended = Prompt(tokenizer, input="speech")

    def write(self, dialogue: Dialogue, emotion: str, sound: str) -> Dialogue:
        """The dialogue with stage directions in its user turns."""
        last = len(dialogue.turns) - 2

        def directed(number: int, turn: Turn) -> Turn:
            if turn.role == "assistant":
                return turn
            direction = (emotion, sound) if number == last else ("neutral", "")
            return replace(turn, text=stage_directions(turn.text, *direction))

        return replace(dialogue, turns=tuple(directed(number, turn) for number, turn in enumerate(dialogue.turns)))

    def blend(self, dialogue, emotion, sound, rng):
        windows = []
        turns = []
        last = len(dialogue.turns) - 2
        for number, turn in enumerate(dialogue.turns):
            if turn.role == "user":
                ids = self.written.encode(turn.text)
                ahead = 0
                density = rng.uniform(0.5, 1.3) if rng.random() < 0.7 else rng.uniform(1.3, 4)
                count = min(55, max(2, round(len(ids) * density)))
                if number == last and sound and rng.random() < 0.5:
                    ahead = max(1, round(count * rng.uniform(0.2, 0.5)))
                turn = replace(turn, audio=AudioRef("", (count + ahead) * WINDOW_SAMPLES))
                windows.append((ids, count, ahead, (emotion, sound) if number == last else ("neutral", "")))
            turns.append(turn)
        tokens = self.blended.render(replace(dialogue, turns=tuple(turns)))
        entries = []
        for slot, (ids, count, ahead, (emo, snd)) in zip(tokens.slots, windows, strict=True):
            assert slot.length == count + ahead, (slot, count, ahead)
            emo_ids = self.written.encode(f"({emo}")
            snd_ids = self.written.encode(f"[{snd}") if snd else []
            edges = np.cumsum(rng.uniform(0.3, 1, len(ids)))
            edges = np.concatenate([[0], edges / edges[-1]]) * count
            ge, gs = rng.uniform(0.5, 1.5), rng.uniform(0.5, 1.5)
            word_gain = rng.uniform(0.5, 1.2)
            miss = rng.uniform(0, 0.5)
            for w in range(slot.length):
                at = slot.start + w
                k = w - ahead
                if k >= 0:
                    cover = np.clip(np.minimum(edges[1:], k + 1) - np.maximum(edges[:-1], k), 0, None)
                    for j in np.nonzero(cover)[0]:
                        entries.append((at, ids[j], word_gain * cover[j] ** 0.5))
                    if rng.random() > miss or k == count - 1:
                        for i in emo_ids:
                            entries.append((at, i, ge * rng.uniform(0.5, 1.3)))
                if snd and (rng.random() > miss or w == 0) and (not ahead or w < ahead):
                    for i in snd_ids:
                        entries.append((at, i, gs * rng.uniform(0.5, 1.3)))
        e = np.array(entries, dtype=np.float64)
        return tokens, Blend(e[:, 0].astype(np.int64), e[:, 1].astype(np.int64), e[:, 2].astype(np.float32))

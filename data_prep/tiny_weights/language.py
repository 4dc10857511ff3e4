"""The tiny Llama: dialogues of the corpus's kind as text, with stage directions for what is otherwise heard.

It meets two kinds of user turn. Written: `[rain] (angry) we are going to the bank.` Blended: as many vectors as a
Mix-Former would give, each the sum of the embeddings of the words of its stretch, of the emotion and of the sound. So
the frozen model has a use for what a Mix-Former can learn to say, and LoRA need not teach it to read such sums.

It has read no current turn of the corpus: its templates come with other nouns, its nouns in other sentences. The
histories, of which there are only a few, are the corpus's own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from data_prep.synthesis.mixing.sounds import SOUND_NAMES
from data_prep.synthesis.writing.quickstart_grammar import (
    CONTENT_WORDS,
    FOLLOW_UPS,
    NEUTRAL,
    OPENINGS,
    TEMPLATES,
    reply,
    stage_directions,
)
from data_prep.tiny_weights.optimise import Report, optimise
from data_prep.tiny_weights.words import COMMON_WORDS, NOUNS, VOCABULARY
from omnichat.audio import HOP, WINDOW
from omnichat.dialogue import EMOTIONS, GENDERS, AudioRef, Dialogue, Style, Turn
from omnichat.models.packed import PACKED, packed_hidden
from omnichat.models.session import Session
from omnichat.models.tiny import SPECIAL_TOKENS, default_texts, llama_config
from omnichat.prompt import IGNORE, Prompt, Tokens

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
ECHO_SHARE = 0.3  # of the dialogues only repeat what was said: practice in copying
BLENDED_SHARE = 0.6  # of the dialogues; the others are written
SOUND_SHARE = 0.6
EMBEDDING_STD = 0.5  # larger than the Llama's usual 0.02: copying is then learnt in hundreds of steps, not thousands
NOISE = 0.5  # on blended vectors, at most, in units of the embeddings' own spread

Blend = tuple[int, int, float]  # (token position, token id, weight): the vector there is the weighted sum of embeddings


@dataclass(frozen=True, slots=True)
class Lesson:
    """A dialogue to be learnt: its tokens, the vectors of its audio slots, and what was said and heard in it."""

    tokens: Tokens
    blends: tuple[Blend, ...]
    reply: Turn
    noun: str
    sound: str


class Teacher:
    """Draws lessons.

    Args:
        tokenizer: from `write_tokenizer`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.written = Prompt(tokenizer, input="text")
        self.blended = Prompt(tokenizer, input="speech")

    def lesson(
        self, rng: np.random.Generator, kind: str = "", echo_share: float = ECHO_SHARE, generation: bool = False
    ) -> Lesson:
        """A dialogue of the given `kind`, else of a drawn one.

        Args:
            rng: draws everything.
            kind: `written` or `blended`; `silent` is written without directions, for scores alone.
            echo_share: of the lessons whose reply repeats the user's words.
            generation: render up to the last reply, as for generating it.
        """
        emotion, gender = str(rng.choice(EMOTIONS)), str(rng.choice(GENDERS))
        sound = str(rng.choice(SOUND_NAMES)) if rng.random() < SOUND_SHARE else ""
        noun, text = draw_sentence(rng)
        style, words = reply(emotion, noun, sound, gender)
        if rng.random() < echo_share:
            text = " ".join(rng.choice(VOCABULARY, size=rng.integers(2, 9)))
            words = f"you said {text}."
        turns = _history(rng, gender)
        heard = [("neutral", "")] * (len(turns) // 2) + [(emotion, sound)]
        turns += [Turn("user", text), Turn("assistant", words, style)]
        blends: tuple[Blend, ...] = ()
        if (kind or ("blended" if rng.random() < BLENDED_SHARE else "written")) == "blended":
            tokens, blends = self._blend(turns, heard, rng, generation)
        else:
            if kind != "silent":
                turns[::2] = [
                    replace(turn, text=stage_directions(turn.text, *directions))
                    for turn, directions in zip(turns[::2], heard, strict=True)
                ]
            tokens = self.written.render(Dialogue("lesson", tuple(turns)), generation)
        return Lesson(tokens, blends, turns[-1], noun, sound)

    def _blend(
        self, turns: list[Turn], heard: list[tuple[str, str]], rng: np.random.Generator, generation: bool
    ) -> tuple[Tokens, tuple[Blend, ...]]:
        windows = [
            self._windows(turn.text, *directions, rng) for turn, directions in zip(turns[::2], heard, strict=True)
        ]
        spoken = [replace(turn) for turn in turns]
        spoken[::2] = [
            replace(turn, audio=AudioRef("", len(own) * WINDOW * 2 * HOP))
            for turn, own in zip(turns[::2], windows, strict=True)
        ]
        tokens = self.blended.render(Dialogue("lesson", tuple(spoken)), generation)
        return tokens, tuple(
            (slot.start + number, token, weight)
            for slot, own in zip(tokens.slots, windows, strict=True)
            for number, window in enumerate(own)
            for token, weight in window
        )

    def _windows(self, text: str, emotion: str, sound: str, rng: np.random.Generator) -> list[list[tuple[int, float]]]:
        """What each window of a turn holds: words in their order, the emotion where it speaks, the sound."""
        words = self.written.encode(text)
        # Words per window as with windows of 17 frames, and sometimes as with shorter ones.
        density = rng.uniform(0.5, 1.3) if rng.random() < 0.7 else rng.uniform(1.3, 4.0)
        count = int(np.clip(round(len(words) * density), 2, 50))
        ahead = max(1, round(count * rng.uniform(0.2, 0.5))) if sound and rng.random() < 0.5 else 0
        edges = np.cumsum(rng.uniform(0.3, 1.0, len(words)))
        edges = np.concatenate([[0.0], edges / edges[-1]]) * count
        weights = {"word": rng.uniform(0.5, 1.2), "emotion": rng.uniform(0.5, 1.5), "sound": rng.uniform(0.5, 1.5)}
        missed = rng.uniform(0.0, 0.5)  # an expert does not hear everything in every window
        feeling, heard = self.written.encode(f" {emotion}"), self.written.encode(f" {sound}") if sound else []
        windows: list[list[tuple[int, float]]] = []
        for number in range(-ahead, count):
            window = []
            if number >= 0:
                covered = np.minimum(edges[1:], number + 1) - np.maximum(edges[:-1], number)
                window += [(words[at], weights["word"] * covered[at] ** 0.5) for at in np.nonzero(covered > 0)[0]]
                if rng.random() > missed or number == count - 1:
                    window += [(token, weights["emotion"] * rng.uniform(0.5, 1.3)) for token in feeling]
            if heard and (number < 0 or not ahead) and (rng.random() > missed or number in (-ahead, 0)):
                window += [(token, weights["sound"] * rng.uniform(0.5, 1.3)) for token in heard]
            windows.append(window)
        return windows


def draw_sentence(rng: np.random.Generator) -> tuple[str, str]:
    """A noun and a neutral sentence with it, which is no script of the corpus."""
    if rng.random() < 0.5:
        noun, template = rng.choice(NOUNS), rng.choice(TEMPLATES)
    else:
        noun = rng.choice(CONTENT_WORDS if rng.random() < 0.7 else COMMON_WORDS)
        template = rng.choice(OTHER_TEMPLATES)
    return str(noun), str(template).format(noun)


def _history(rng: np.random.Generator, gender: str) -> list[Turn]:
    exchanges = [OPENINGS[rng.integers(len(OPENINGS))], FOLLOW_UPS[rng.integers(len(FOLLOW_UPS))]]
    turns: list[Turn] = []
    for question, answer in exchanges[: rng.integers(1, 3)]:
        turns += [Turn("user", question), Turn("assistant", answer, Style(gender, *NEUTRAL))]
    return turns


def tokenizer_texts(count: int = 2000, seed: int = 0) -> Iterator[str]:
    """What the tokenizer is trained on: sentences with directions, replies, and every word after a space."""
    rng = np.random.default_rng(seed)
    yield from default_texts()
    for _ in range(count):
        emotion, sound = str(rng.choice(EMOTIONS)), str(rng.choice(SOUND_NAMES))
        noun, text = draw_sentence(rng)
        yield stage_directions(text, emotion, sound if rng.random() < SOUND_SHARE else "")
        yield reply(emotion, noun, sound, GENDERS[0])[1]
        yield from (turn.text for turn in _history(rng, GENDERS[0]))
    yield from (f" {word}" for word in (*VOCABULARY, *50 * (*SOUND_NAMES, *EMOTIONS)))


def make_llama(tokenizer: Tokenizer, width: int, heads: int, layers: int) -> LlamaForCausalLM:
    """An untrained Llama for `packed_hidden`."""
    config = llama_config(tokenizer, width, heads, layers, intermediate_size=2 * width)
    llm = LlamaForCausalLM._from_config(config, attn_implementation=PACKED)
    nn.init.normal_(llm.model.embed_tokens.weight, std=EMBEDDING_STD)
    return llm


def learn_to_copy(llm: LlamaForCausalLM, steps: int, rng: np.random.Generator, report: Report) -> None:
    """Random tokens, twice: from 2 to 8 at first, then up to 20.

    Among dialogues alone, whose other tokens are so much easier to guess, copying is not learnt in 2,000 steps.
    """
    num_tokens = llm.config.vocab_size - len(SPECIAL_TOKENS)  # all of them: unused ones are a lesson of their own
    between = torch.tensor([llm.config.eos_token_id])

    def loss(step: int) -> Tensor:
        rows, targets = [], []
        for _ in range(32):
            said = torch.from_numpy(rng.integers(0, num_tokens, size=rng.integers(2, 9 if step < 0.7 * steps else 21)))
            rows.append(torch.cat([between, said, between, said]))
            targets.append(torch.cat([torch.full((len(said) + 2,), IGNORE), said]))
        return _loss(llm, [llm.model.embed_tokens(row) for row in rows], targets)

    optimise(llm, loss, steps, 2e-3, report, "llama, copying", weight_decay=0.05)


def learn_dialogues(
    llm: LlamaForCausalLM, teacher: Teacher, steps: int, rng: np.random.Generator, report: Report
) -> None:
    """The assistant's turns of written and blended lessons."""

    def loss(step: int) -> Tensor:
        lessons = [teacher.lesson(rng) for _ in range(16)]
        embeds = [embed(llm, lesson, NOISE * rng.random()) for lesson in lessons]
        return _loss(llm, embeds, [torch.from_numpy(lesson.tokens.labels) for lesson in lessons])

    optimise(llm, loss, steps, 2e-3, report, "llama, dialogues", weight_decay=0.05)


def embed(llm: LlamaForCausalLM, lesson: Lesson, noise: float = 0.0) -> Tensor:
    """(T, D) embeddings of a lesson, with sums where it is blended."""
    table = llm.model.embed_tokens.weight
    embeds: Tensor = llm.model.embed_tokens(torch.from_numpy(lesson.tokens.ids))
    if not lesson.blends:
        return embeds
    columns: Sequence[Sequence[float]] = tuple(zip(*lesson.blends, strict=True))
    positions, tokens, weights = torch.tensor(columns[0]), torch.tensor(columns[1]), torch.tensor(columns[2])
    sums = torch.zeros_like(embeds).index_add(0, positions, table[tokens] * weights[:, None].to(table.dtype))
    sums = sums + noise * table.detach().std() * torch.randn_like(sums)
    blended = torch.zeros(len(embeds), 1, dtype=torch.bool)
    blended[[position for slot in lesson.tokens.slots for position in range(slot.start, slot.start + slot.length)]] = (
        True
    )
    return torch.where(blended, sums, embeds)


def _loss(llm: LlamaForCausalLM, rows: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    lengths = torch.tensor([len(row) for row in rows])
    starts = F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    positions = torch.cat([torch.arange(len(row)) for row in rows])
    hidden = packed_hidden(llm, torch.cat(list(rows)), positions, starts, int(lengths.max()))
    wanted = torch.cat(list(labels))
    targets = (wanted != IGNORE).nonzero()[:, 0]
    return F.cross_entropy(llm.lm_head(hidden[targets - 1]), wanted[targets])


@torch.no_grad()
def score_llama(llm: LlamaForCausalLM, teacher: Teacher, kind: str, count: int, seed: int) -> dict[str, float]:
    """Shares of `count` greedy replies to lessons of one kind with the right emotion, noun and sound."""
    rng = np.random.default_rng(seed)
    lessons = [teacher.lesson(rng, kind, echo_share=0.0, generation=True) for _ in range(count)]
    hits: dict[str, list[bool]] = {"emotion": [], "noun": [], "sound": []}
    for first in range(0, count, 20):
        group = lessons[first : first + 20]
        written = Session(llm).reply([embed(llm, lesson) for lesson in group], 48, teacher.written.stop_id)
        for lesson, one in zip(group, written, strict=True):
            answer = teacher.written.parse(teacher.written.decode(one.ids))
            hits["emotion"].append(answer.style is not None and answer.style.emotion == lesson.reply.style.emotion)
            hits["noun"].append(f" {lesson.noun}" in answer.text)
            if lesson.sound:
                hits["sound"].append(f"hear the {lesson.sound}" in answer.text)
    return {name: float(np.mean(right)) for name, right in hits.items()}

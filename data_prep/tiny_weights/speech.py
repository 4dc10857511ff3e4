"""What the experts hear: speech in every emotion, over sounds, with the labels that the synthesiser gives for free.

The experts meet no sentence of the corpus (its words come in random order or with other nouns) and none of its unseen
voices, so that what they know of the tests is what any pretrained expert would.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.synthesis.backends.embedded.engine import speak
from data_prep.synthesis.backends.embedded.espeak import TRAIN_VOICES, UNSEEN_VOICES, Espeak
from data_prep.synthesis.backends.embedded.prosody import LEVEL, PEAK, PROSODIES, Prosody
from data_prep.synthesis.contracts import Voice
from data_prep.synthesis.mixing.sounds import SOUNDS, render
from data_prep.synthesis.writing.quickstart_grammar import CONTENT_WORDS, TEMPLATES
from data_prep.tiny_weights.words import CORPUS_WORDS, NOUNS, VOCABULARY
from omnichat.audio import HOP, SAMPLE_RATE, num_frames
from omnichat.dialogue import Style

EMOTIONS = tuple(PROSODIES)
FRAME = 2 * HOP  # samples from one frame of an expert to the next
SOUND_SHARE = 0.6  # of the utterances have a sound
PLACEMENTS = ("before", "under")
# Levels against neutral speech in dB, +-2 drawn per clip: the distances between the classes of Divide-and-Remaster
# (dnr-utils config.py: speech -17, foreground effects -21, background effects -29, music -24 LUFS), as RMS, which is
# defined for the shortest clip; music under speech 2 dB lower, so that quiet (sad) speech stays above it.
SOUND_LEVELS = {("audio", "before"): -4, ("audio", "under"): -12, ("music", "before"): -7, ("music", "under"): -9}

# More of espeak-ng's speaker variants, so that an expert learns an emotion apart from its speaker. The corpus's unseen
# voices are not among them, nor robots, whisperers and voices whose level clips. Their gender is never used.
_MORE_VOICES = tuple(
    Voice(name=f"en-us+{variant}", gender="male")
    for variant in (
        "Alex Alicia Andy Denis Gene Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Reed Storm adam anika announcer "
        "antonio benjamin boris caleb david ed edward edward2 grandma grandpa gustave ian iven iven2 iven3 iven4 john "
        "kaukovalta klatt klatt2 klatt3 klatt4 linda m2 m5 marcelo max michel miguel mike2 norbert pablo paul pedro "
        "quincy rob robert sandro shelby steph steph2 steph3 travis victor zac"
    ).split()
)
VOICES = TRAIN_VOICES + tuple(
    voice for voice in _MORE_VOICES if voice.name not in {known.name for known in TRAIN_VOICES + UNSEEN_VOICES}
)


@dataclass(frozen=True, slots=True)
class Spoken:
    """One utterance: (S,) int16 at 16 kHz, and its labels.

    phones, words, sounds: (N,) at 50 frames a second, as names; "" where nothing is said, or nothing else is heard.
    emotion: one of `EMOTIONS`.
    """

    pcm: NDArray[np.int16]
    phones: tuple[str, ...]
    words: tuple[str, ...]
    sounds: tuple[str, ...]
    emotion: str


def pronunciations(espeak: Espeak) -> dict[str, tuple[str, ...]]:
    """The phones of each word of `VOCABULARY` spoken alone.

    Raises:
        EngineError: see `Engine.say`.
    """
    utterances = {word: espeak.say(word, TRAIN_VOICES[0], Prosody()) for word in VOCABULARY}
    return {
        word: tuple(name for name, _, _ in utterance.phones if not name.startswith("_"))
        for word, utterance in utterances.items()
    }


def speak_randomly(
    espeak: Espeak, pronounced: Mapping[str, tuple[str, ...]], voices: Sequence[Voice], rng: np.random.Generator
) -> Spoken:
    """Random words in a random voice, emotion and sound, all drawn from `rng`.

    Raises:
        EngineError: see `Engine.say`.
    """
    voice = voices[int(rng.integers(len(voices)))]
    words, emotion = draw_words(rng), EMOTIONS[rng.integers(len(EMOTIONS))]
    utterance = speak(espeak, " ".join(words), voice, Style(emotion=emotion), rng)
    pcm, sound = utterance.pcm, ""
    if rng.random() < SOUND_SHARE:
        kind = tuple(SOUNDS)[rng.integers(len(SOUNDS))]
        sound = tuple(SOUNDS[kind])[rng.integers(len(SOUNDS[kind]))]
        pcm = mix(pcm, kind, sound, PLACEMENTS[rng.integers(len(PLACEMENTS))], rng)
    ahead = len(pcm) - len(utterance.pcm)
    said = [(name, start + ahead, end + ahead) for name, start, end in utterance.phones if not name.startswith("_")]
    owners = align([name for name, _, _ in said], [pronounced[word] for word in words])
    size = num_frames(len(pcm))
    phones, spoken = [""] * size, [""] * size
    for (name, start, end), owner in zip(said, owners, strict=True):
        for frame in range(round(start / FRAME), min(round(end / FRAME), size)):
            phones[frame], spoken[frame] = name, words[owner]
    heard = round(ahead / FRAME) if ahead else size  # a sound is either before all the speech, or under it
    sounds = (sound,) * heard + ("",) * (size - heard)
    return Spoken(np.round(pcm * 32767).astype(np.int16), tuple(phones), tuple(spoken), sounds, emotion)


def draw_words(rng: np.random.Generator) -> list[str]:
    """Words in random order, every other time words of the corpus only; or a template of it with a noun it lacks."""
    kind = rng.random()
    if kind < 0.3:
        return TEMPLATES[rng.integers(len(TEMPLATES))].format(NOUNS[rng.integers(len(NOUNS))]).rstrip(".").split()
    words = rng.choice(CORPUS_WORDS if kind < 0.6 else VOCABULARY, size=rng.integers(2, 7)).tolist()
    return [*words, str(rng.choice(CONTENT_WORDS))] if kind < 0.6 else words


def align(phones: Sequence[str], pronunciations: Sequence[Sequence[str]]) -> list[int]:
    """The word that each phone belongs to, non-decreasing: the cheapest edit of the words' own phones into `phones`.

    In a sentence words are reduced and joined, so the phones of words spoken alone are not simply concatenated.
    """
    expected = [(phone, word) for word, pronunciation in enumerate(pronunciations) for phone in pronunciation]
    rows, columns = len(phones), len(expected)
    cost = np.zeros((rows + 1, columns + 1))
    cost[:, 0], cost[0] = np.arange(rows + 1), np.arange(columns + 1)
    for row in range(rows):
        for column in range(columns):
            differs = phones[row] != expected[column][0]
            cost[row + 1, column + 1] = min(
                cost[row, column] + 1.1 * differs, cost[row, column + 1] + 1, cost[row + 1, column] + 1
            )
    owners, row, column = [0] * rows, rows, columns
    while row:
        diagonal = column and cost[row - 1, column - 1] + 1.1 * (phones[row - 1] != expected[column - 1][0])
        if column and cost[row, column] == diagonal:
            row, column = row - 1, column - 1
            owners[row] = expected[column][1]
        elif cost[row, column] == cost[row - 1, column] + 1:
            row -= 1
            owners[row] = expected[max(column, 1) - 1][1]
        else:
            column -= 1
    return owners


def mix(
    speech: NDArray[np.float32], kind: str, sound: str, placement: str, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Speech (S,) with a sound before it (0.6 to 0.9 s longer) or under it (S,), below `PEAK`."""
    level = LEVEL * 10 ** ((SOUND_LEVELS[kind, placement] + rng.uniform(-2, 2)) / 20)
    if placement == "under":
        mixed = speech + np.float32(level) * render(sound, len(speech), rng)
    else:
        ahead = np.float32(level) * render(sound, int(rng.uniform(0.6, 0.9) * SAMPLE_RATE), rng)
        mixed = np.concatenate([ahead, np.zeros(SAMPLE_RATE // 20, np.float32), speech])
    return mixed * np.float32(min(1.0, PEAK / float(np.abs(mixed).max())))

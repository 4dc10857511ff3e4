"""From scripts to dialogues: a plan for each branch, each speaker with a voice. Pure.

A voice that is heard in training is never heard in the tests on unseen voices. Where the backend says which voices are
unseen, those are the tests'; else a third of each gender is set aside.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from data_prep.synthesis.contracts import Line, Plan, Script, Speaker, Voice
from omnichat.dialogue import GENDERS

UNSEEN_SPLITS = ("test", "test_voices")  # "test_scripts" is the test of unseen words in voices of training
SPEAKERS: tuple[Speaker, Speaker] = ("user", "assistant")


def plans(script: Script, voices: Sequence[Voice], seed: int) -> list[Plan]:
    """The dialogues of a script: they differ in the style of the current turn and in the reply, and in nothing else.

    Args:
        script: checked.
        voices: those that may speak in the script's split, see `voice_pools`.
        seed: of the run.

    Raises:
        ValueError: no voice of a gender that is needed; names it.
    """
    brief = script.brief
    name = f"{brief.recipe}-{brief.number:06d}"
    sounds = brief.sounds or (brief.sound,) * len(script.branches)
    chosen = _cast(script, voices, np.random.default_rng([seed, brief.number]))
    return [
        Plan(
            id=f"{name}-{number}",
            group=name,
            brief=brief.model_copy(update={"sound": sound, "sounds": ()}),
            branch=number,
            lines=(*script.history, Line(speaker="user", text=script.current, style=branch.style), branch.reply),
            voices=chosen,
        )
        for number, (branch, sound) in enumerate(zip(script.branches, sounds, strict=True))
    ]


def voice_pools(
    splits: Sequence[str], train: Sequence[Voice], unseen: Sequence[Voice] = ()
) -> Mapping[str, tuple[Voice, ...]]:
    """Which voices may speak in which split: unseen ones in `UNSEEN_SPLITS`, the others elsewhere.

    Args:
        splits: of the store.
        train: the backend's voices.
        unseen: those it sets aside for tests; none: every third voice of each gender is.
    """
    own = set(unseen) or {voice for gender in GENDERS for voice in _of(train, gender)[2::3]}
    heard = tuple(voice for voice in train if voice not in own)
    set_aside = tuple(voice for voice in dict.fromkeys((*unseen, *train)) if voice in own)
    return {split: set_aside if split in UNSEEN_SPLITS else heard for split in splits}


def _cast(script: Script, voices: Sequence[Voice], rng: np.random.Generator) -> dict[Speaker, Voice]:
    """A voice for each speaker, of his gender; two speakers of a gender get two voices where there are two."""
    genders = {"user": script.branches[0].style.gender, "assistant": script.branches[0].reply.style.gender}
    chosen: dict[Speaker, Voice] = {}
    for speaker in SPEAKERS:
        fitting = _of(voices, genders[speaker])
        if not fitting:
            message = f"no {genders[speaker]} voice for the {speaker} of script {script.brief.number}"
            raise ValueError(f"{message} in split {script.brief.split!r}; give the speech backend one")
        free = [voice for voice in fitting if voice not in chosen.values()] or fitting
        chosen[speaker] = free[rng.integers(len(free))]
    return chosen


def _of(voices: Sequence[Voice], gender: str | None) -> list[Voice]:
    return [voice for voice in voices if voice.gender == gender]

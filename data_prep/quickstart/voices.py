"""The speakers: espeak-ng's American English with its speaker variants (files of espeak-ng-data/voices/!v).

Variants differ in pitch, formants, breath and stress. The unseen ones are other variants, not other settings of the
same ones. Robots, whisperers and voices whose level clips are left out.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Voice:
    """A speaker. `name` is what espeak-ng calls it; `gender` is one of `omnichat.dialogue.GENDERS`."""

    name: str
    gender: str


def _voices(gender: str, *variants: str) -> tuple[Voice, ...]:
    return tuple(Voice(f"en-us+{variant}", gender) for variant in variants)


TRAIN_VOICES = (
    *_voices("male", "m1", "m3", "m4", "m7", "Mike", "Nguyen"),
    *_voices("female", "f1", "f2", "f3", "f4", "aunty", "belinda"),
)
UNSEEN_VOICES = (
    *_voices("male", "m6", "m8", "Diogo"),
    *_voices("female", "f5", "Annie", "Andrea"),
)

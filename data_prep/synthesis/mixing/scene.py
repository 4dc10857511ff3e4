"""What is heard beside the voices of one dialogue, and where."""

from dataclasses import dataclass

import numpy as np

from data_prep.synthesis.contracts import Placement, Sound
from data_prep.synthesis.mixing.clips import Catalogue, Clip
from data_prep.synthesis.mixing.settings import MixSettings
from omnichat.audio import SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Scene:
    """A clip and its place.

    Attributes:
        clip: that is heard.
        placement: before the words or under them.
        loudness: of it in LUFS, before the draw of the jitter.
        num_samples: of it that are heard before the words; None for the whole clip.
    """

    clip: Clip
    placement: Placement
    loudness: float
    num_samples: int | None


def choose_scene(
    sound: Sound, split: str, catalogue: Catalogue, settings: MixSettings, rng: np.random.Generator
) -> Scene:
    """Draw the clip, where it is heard, and for how long.

    Temporary events are spliced before the first words, continuous ones looped through the conversation (the paper's
    App. C); music is either, "randomly": how is not said, the published dialogues show these two forms.

    Raises:
        Reject: see `Catalogue.choose`.
    """
    clip = catalogue.choose(sound, split, rng)
    may_be_either = clip.kind == "music" or settings.placement == "either"
    drawn = bool(rng.random() < settings.under_share)
    under = drawn if may_be_either else clip.event_class == "continuous"
    levels = settings.levels
    event = levels.under if under else levels.event
    num_samples = None
    if not under and settings.before_seconds is not None:
        num_samples = round(float(rng.uniform(*settings.before_seconds)) * SAMPLE_RATE)
    return Scene(clip, "under" if under else "before", levels.music if clip.kind == "music" else event, num_samples)

"""What a mix depends on: the section `mix:` of a run's config."""

from typing import Literal, Self

from pydantic import Field, model_validator

from data_prep.synthesis.contracts import Contract


class Levels(Contract):
    """Loudness of each class in LUFS: dnr-utils config.py (Petermann et al., 2022), `under` its background effects.

    Attributes:
        speech: of each speaker.
        event: of an event that is heard before the words.
        music: of music, before or under them.
        under: of events under the words.
        jitter: largest deviation in LU, uniform, drawn per class and conversation.
        peak: dBFS that no stem and no mix exceeds; all stems of all turns are scaled by one factor.
        master: of the whole conversation, before `peak`; None leaves it as the stems add up. Divide-and-Remaster: -27.
    """

    speech: float = Field(default=-17.0, ge=-60, le=0)
    event: float = Field(default=-21.0, ge=-60, le=0)
    music: float = Field(default=-24.0, ge=-60, le=0)
    under: float = Field(default=-29.0, ge=-60, le=0)
    jitter: float = Field(default=2.0, ge=0, le=10)
    peak: float = Field(default=-0.5, ge=-20, le=-0.01)
    master: float | None = Field(default=None, ge=-60, le=0)


class ClipSettings(Contract):
    """Which clips may be heard.

    Attributes:
        folder: of recordings; empty takes the synthesised sounds of `data_prep.synthesis.mixing.sounds`.
        captions: the table beside or in it; empty finds the only one there is in the folder.
        variants: recordings of each synthesised sound; each belongs to one split.
        allow_noncommercial: take clips whose licence forbids commercial use.
        max_voice: probability of a human voice above which a clip is refused, where the table gives one.
        min_seconds: shorter clips are refused.
        max_seconds: longer ones are cut: the clips of AudioCaps and MusicCaps are 10 s.
    """

    folder: str = ""
    captions: str = ""
    variants: int = Field(default=20, ge=3, le=10_000)
    allow_noncommercial: bool = False
    max_voice: float = Field(default=0.2, ge=0, le=1)
    min_seconds: float = Field(default=0.4, gt=0)
    max_seconds: float = Field(default=10.0, gt=0)


class MixSettings(Contract):
    """How clean turns and a clip become a mix.

    Attributes:
        mode: "dnr" sets levels by `levels`; "paper_demo" adds up what is there, as the published dialogues were made:
            no gain, hard clipped at full scale.
        clips: what may be heard.
        levels: how loud it is, with "dnr".
        where: a sound under the words is heard in the whole conversation or in the current turn alone; a sound before
            them stands before the first words or before the current turn's.
        placement: "by_class" splices temporary events before the words and loops continuous ones under them; "either"
            draws for all sounds what "by_class" draws for music.
        under_share: how often what may be either is laid under the words. The paper says "randomly" of music.
        before_seconds: least and most seconds of a sound before the words; None takes the whole clip.
        before_gap: seconds of silence between such a sound and the words.
        crossfade: seconds over which the end of a loop fades into its beginning, at equal power; the published
            dialogues have none.
        level_all: dialogues without a sound are set to `levels.speech` too. Otherwise their clean turns are kept as
            they are: no second copy, and branches go on sharing the bytes of their history.
    """

    mode: Literal["dnr", "paper_demo"] = "dnr"
    clips: ClipSettings = ClipSettings()
    levels: Levels = Levels()
    where: Literal["conversation", "current_turn"] = "conversation"
    placement: Literal["by_class", "either"] = "by_class"
    under_share: float = Field(default=0.5, ge=0, le=1)
    before_seconds: tuple[float, float] | None = None
    before_gap: float = Field(default=0.0, ge=0, le=5)
    crossfade: float = Field(default=0.0, ge=0, le=1)
    level_all: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.before_seconds is not None and not 0 < self.before_seconds[0] <= self.before_seconds[1]:
            raise ValueError("before_seconds are [least, most] seconds, above 0, e.g. [0.6, 0.9]")
        if self.clips.min_seconds > self.clips.max_seconds:
            raise ValueError("clips.min_seconds is above clips.max_seconds")
        if 2 * self.crossfade > self.clips.min_seconds:
            raise ValueError("crossfade is more than half of clips.min_seconds: the shortest loop would vanish")
        if self.mode == "paper_demo" and self.level_all:
            raise ValueError("mode=paper_demo sets no levels; leave level_all out")
        return self

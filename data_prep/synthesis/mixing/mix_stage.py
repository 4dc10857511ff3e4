"""One dialogue from clean turns to mixed ones. Clean turns stay where they are: mixing anew costs no speech."""

from collections.abc import Mapping
from typing import Any, ClassVar

from data_prep.synthesis.blobs import read_audio, write_audio
from data_prep.synthesis.contracts import Mixed, Piece, Placement, ToMix
from data_prep.synthesis.mixing.builtin import BuiltinCatalogue
from data_prep.synthesis.mixing.clips import Catalogue
from data_prep.synthesis.mixing.folder import FolderCatalogue
from data_prep.synthesis.mixing.mixer import MixedTurn, Stems, Wave, lay_before, lay_under, loop_of, mix, mix_plainly
from data_prep.synthesis.mixing.scene import Scene, choose_scene
from data_prep.synthesis.mixing.settings import MixSettings
from data_prep.synthesis.mixing.timeline import break_off, place
from data_prep.synthesis.stage import Attempt, Reject, Stage
from omnichat.audio import SAMPLE_RATE


def open_catalogue(settings: MixSettings) -> Catalogue:
    """The clips that the settings name.

    Raises:
        DataError: see `FolderCatalogue`.
    """
    if settings.clips.folder:
        return FolderCatalogue(settings.clips)
    return BuiltinCatalogue(settings.clips.variants, settings.clips.max_seconds)


class MixStage(Stage[ToMix, Mixed]):
    """Chooses what is heard beside the voices, and mixes it in."""

    name: ClassVar[str] = "mix"
    version: ClassVar[str] = "1"
    takes = ToMix
    gives = Mixed

    def __init__(self, settings: MixSettings) -> None:
        self.settings = settings
        self.catalogue = open_catalogue(settings)

    def identity(self) -> Mapping[str, Any]:
        """All settings, and what the clips are made of."""
        settings = self.settings.model_dump(mode="json")
        return settings | {"clips": settings["clips"] | dict(self.catalogue.identity())}

    async def run(self, item: ToMix, attempt: Attempt) -> Mixed:
        """Mix one dialogue.

        Raises:
            Reject: `turn_missing`, `clip_missing`, `clip_silent`, `clip_short`, `clip_voice`, `mix_loudness`,
                `mix_peak`, `disk_full`.
        """
        spoken = _spoken(item)
        sound = item.plan.brief.sound
        scene = None
        if sound is not None:
            scene = choose_scene(sound, item.plan.brief.split, self.catalogue, self.settings, attempt.rng)
        pieces: list[Piece | None]
        if scene is None and not self.settings.level_all:
            pieces = [None if one is None else _clean(item, number, attempt) for number, one in enumerate(item.speech)]
        else:
            waves = [_heard(item, number, attempt) for number in spoken]
            turns = self._mix(item, spoken, waves, scene, attempt)
            names = iter([write_audio(attempt.blobs, turn.wave) for turn in turns])
            mixed = iter(turns)
            pieces = [None if one is None else _piece(next(names), next(mixed)) for one in item.speech]
        placement: Placement = "none" if scene is None else scene.placement
        found = place(item.plan.lines, pieces)
        attempt.cost.audio_seconds += sum(one.num_samples for one in found if one is not None) / SAMPLE_RATE
        made = Mixed(plan=item.plan, pieces=tuple(found), placement=placement)
        if scene is None:
            return made
        clip = scene.clip
        return made.model_copy(update={"clip": clip.id, "licence": clip.licence, "credit": clip.credit})

    def _mix(
        self, item: ToMix, spoken: list[int], waves: list[Wave], scene: Scene | None, attempt: Attempt
    ) -> list[MixedTurn]:
        settings = self.settings
        speakers = [item.plan.lines[number].speaker for number in spoken]
        if scene is None:
            stems = [Stems(speaker, wave, wave[:0]) for speaker, wave in zip(speakers, waves, strict=True)]
            return mix(stems, settings.levels, settings.levels.speech, attempt.rng)
        clip = self.catalogue.wave(scene.clip)
        current = max(place for place, speaker in enumerate(speakers) if speaker == "user")
        alone = settings.where == "current_turn"
        if scene.placement == "under":
            period = loop_of(clip, round(settings.crossfade * SAMPLE_RATE))
            stems = lay_under(speakers, waves, period, current if alone else None)
        else:
            gap = round(settings.before_gap * SAMPLE_RATE)
            stems = lay_before(speakers, waves, clip[: scene.num_samples], gap, current if alone else 0)
        if settings.mode == "paper_demo":
            return mix_plainly(stems)
        return mix(stems, settings.levels, scene.loudness, attempt.rng)


def _spoken(item: ToMix) -> list[int]:
    """Numbers of the lines with speech; a user turn without any cannot be heard."""
    lines = item.plan.lines
    if len(item.speech) != len(lines):
        raise Reject("turn_missing", f"{item.plan.id}: {len(lines)} lines, {len(item.speech)} recordings")
    missing = [
        number
        for number, (line, one) in enumerate(zip(lines, item.speech, strict=True))
        if line.speaker == "user" and one is None
    ]
    if missing:
        raise Reject("turn_missing", f"{item.plan.id}: user turn(s) {missing} have no recording")
    if not any(line.speaker == "user" for line in lines):
        raise Reject("turn_missing", f"{item.plan.id}: no user turn, so nothing to hear")
    return [number for number, one in enumerate(item.speech) if one is not None]


def _heard(item: ToMix, number: int, attempt: Attempt) -> Wave:
    """The clean turn, as far as it is said."""
    speech = item.speech[number]
    assert speech is not None
    return break_off(read_audio(attempt.blobs, speech.blob), item.plan.lines[number].cut)


def _clean(item: ToMix, number: int, attempt: Attempt) -> Piece:
    """The clean turn as a piece: its own blob, unless it is broken off."""
    speech = item.speech[number]
    assert speech is not None
    if item.plan.lines[number].cut == 1:
        return Piece(blob=speech.blob, num_samples=speech.num_samples)
    wave = _heard(item, number, attempt)
    return Piece(blob=write_audio(attempt.blobs, wave), num_samples=len(wave))


def _piece(blob: str, turn: MixedTurn) -> Piece:
    return Piece(
        blob=blob,
        num_samples=len(turn.wave),
        gain_db=round(turn.gain_db, 4),
        sound_gain_db=None if turn.sound_gain_db is None else round(turn.sound_gain_db, 4),
        sound_offset=turn.offset,
        peak_db=round(turn.peak_db, 4),
    )

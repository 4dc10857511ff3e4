"""The sum of voices and a sound over all turns of a conversation, with levels.

Stems are the parts that are added up: one of each speaker, one of the sound. A stem has one gain for the whole
conversation, so that a sad turn stays quieter than an angry one. If any stem or mix of any turn would exceed the peak
limit, all are scaled by one factor, which keeps their differences (dnr-utils compile_dataset.py).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.synthesis.mixing.loudness import SILENCE, from_db, loudness, peak, to_db
from data_prep.synthesis.mixing.settings import Levels
from data_prep.synthesis.stage import Reject

Wave = NDArray[np.float32]
MAX_GAIN = 40.0  # dB; what needs more is noise and silence, not a recording


@dataclass(frozen=True, slots=True)
class Stems:
    """One turn before it is mixed.

    Attributes:
        speaker: whose gain the speech has.
        speech: (S,) the clean turn.
        sound: (S',) samples of the sound, the first of the turn on; empty for none.
        lead: samples before the first word: there the sound stands alone.
        offset: sample of the clip that is heard first.
    """

    speaker: Hashable
    speech: Wave
    sound: Wave
    lead: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class MixedTurn:
    """A turn as it is heard.

    Attributes:
        wave: (S,) samples in -1..1.
        gain_db: of its speech, the peak factor included.
        sound_gain_db: of its sound; None where there is none.
        offset: see `Stems`.
        peak_db: of the wave, dBFS.
    """

    wave: Wave
    gain_db: float
    sound_gain_db: float | None
    offset: int
    peak_db: float


def loop_of(clip: Wave, crossfade: int) -> Wave:
    """The period of an endless loop: the clip, its last `crossfade` samples faded into its first at equal power."""
    if crossfade == 0:
        return clip
    angle = (np.arange(crossfade, dtype=np.float32) + 0.5) * np.float32(np.pi / 2 / crossfade)
    period = clip[: len(clip) - crossfade].copy()
    period[:crossfade] = period[:crossfade] * np.sin(angle) + clip[len(clip) - crossfade :] * np.cos(angle)
    return period


def looped(period: Wave, start: int, num_samples: int) -> Wave:
    """(num_samples,) of the endless loop from sample `start` on, counted from the beginning of the conversation."""
    return np.take(period, np.arange(start, start + num_samples), mode="wrap")


def lay_under(
    speakers: Sequence[Hashable], turns: Sequence[Wave], period: Wave, only: int | None = None
) -> list[Stems]:
    """A loop under all turns, or under one of them.

    Its phase runs on from turn to turn without a gap, as in the published dialogues: turn k starts at the duration of
    the turns before it.
    """
    stems, start = [], 0
    for number, (speaker, speech) in enumerate(zip(speakers, turns, strict=True)):
        heard = only is None or only == number
        sound = looped(period, start, len(speech)) if heard else period[:0]
        stems.append(Stems(speaker, speech, sound, offset=start % len(period) if heard else 0))
        start += len(speech)
    return stems


def lay_before(speakers: Sequence[Hashable], turns: Sequence[Wave], sound: Wave, gap: int, turn: int) -> list[Stems]:
    """A sound before the words of one turn, with `gap` samples of silence between."""
    nothing = sound[:0]
    return [
        Stems(speaker, speech, sound, len(sound) + gap) if number == turn else Stems(speaker, speech, nothing)
        for number, (speaker, speech) in enumerate(zip(speakers, turns, strict=True))
    ]


def mix(stems: Sequence[Stems], levels: Levels, sound_loudness: float, rng: np.random.Generator) -> list[MixedTurn]:
    """Turns at the levels of Divide-and-Remaster, moved by jitter.

    Args:
        stems: of all turns.
        levels: targets and limit.
        sound_loudness: target of the sound in LUFS.
        rng: of the jitter; three numbers are drawn in any case.

    Raises:
        Reject: `mix_loudness` where a stem is silent or too far from its target, `mix_peak` where it is not finite.
    """
    speech_jitter, sound_jitter, master_jitter = rng.uniform(-levels.jitter, levels.jitter, 3)
    gains = {
        speaker: _gain(
            np.concatenate([one.speech for one in stems if one.speaker == speaker]),
            levels.speech + speech_jitter,
            f"the speech of {speaker}",
        )
        for speaker in dict.fromkeys(one.speaker for one in stems)
    }
    sound = np.concatenate([one.sound for one in stems])
    sound_gain = _gain(sound, sound_loudness + sound_jitter, "the sound") if len(sound) else 0.0
    common = 0.0
    if levels.master is not None:
        whole = np.concatenate([_sum(one, gains[one.speaker], sound_gain) for one in stems])
        common = _gain(whole, levels.master + master_jitter, "the conversation")
    limit = from_db(levels.peak)
    highest = max(
        max(
            from_db(gains[one.speaker]) * peak(one.speech),
            from_db(sound_gain) * peak(one.sound),
            peak(_sum(one, gains[one.speaker], sound_gain)),
        )
        for one in stems
    )
    if not np.isfinite(highest):
        raise Reject("mix_peak", "a turn or the sound holds samples that are no numbers")
    common = min(common, to_db(limit / highest)) if highest > 0 else common
    return [_mixed(one, gains[one.speaker] + common, sound_gain + common) for one in stems]


def mix_plainly(stems: Sequence[Stems]) -> list[MixedTurn]:
    """The plain sum, clipped at full scale where it exceeds it, as in the published dialogues."""
    return [_mixed(one, 0.0, 0.0) for one in stems]


def _mixed(stems: Stems, gain_db: float, sound_gain_db: float) -> MixedTurn:
    wave = np.clip(_sum(stems, gain_db, sound_gain_db), -1, 1)
    return MixedTurn(
        wave, gain_db, sound_gain_db if len(stems.sound) else None, stems.offset, max(to_db(peak(wave)), -120.0)
    )


def _sum(stems: Stems, gain_db: float, sound_gain_db: float) -> Wave:
    mixed = np.zeros(stems.lead + len(stems.speech), np.float32)
    mixed[stems.lead :] = stems.speech * np.float32(from_db(gain_db))
    mixed[: len(stems.sound)] += stems.sound * np.float32(from_db(sound_gain_db))
    return mixed


def _gain(wave: Wave, target: float, what: str) -> float:
    """Decibels that bring a stem to its target in LUFS."""
    found = loudness(wave)
    if found == SILENCE or not np.isfinite(found):
        raise Reject("mix_loudness", f"{what} is silent: no block of 0.4 s is above -70 LUFS")
    if abs(target - found) > MAX_GAIN:
        message = f"{what} has {found:.1f} LUFS; {target:.1f} would need more than {MAX_GAIN:.0f} dB of gain"
        raise Reject("mix_loudness", message)
    return target - found

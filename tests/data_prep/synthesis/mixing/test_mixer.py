"""Levels, peaks and loops."""

import numpy as np
import pytest

from data_prep.synthesis.mixing.loudness import from_db, loudness, peak
from data_prep.synthesis.mixing.mixer import Stems, lay_before, lay_under, loop_of, looped, mix, mix_plainly
from data_prep.synthesis.mixing.settings import Levels
from data_prep.synthesis.mixing.sounds import SOUND_NAMES, render
from data_prep.synthesis.stage import Reject
from omnichat.audio import SAMPLE_RATE
from tests.data_prep.synthesis.mixing.making import voiced

STILL = Levels(jitter=0)
SPEAKERS = ["user", "assistant", "user"]


def conversation(rng: np.random.Generator) -> list[np.ndarray]:
    """Three turns at three levels."""
    return [voiced(seconds, rng, level) for seconds, level in ((0.9, 0.05), (1.3, 0.4), (0.7, 0.2))]


def stem(stems: list[Stems], gains: list[float], speaker: str) -> np.ndarray:
    """What one speaker says, with the gains that the mix reports."""
    return np.concatenate([s.speech * from_db(g) for s, g in zip(stems, gains, strict=True) if s.speaker == speaker])


@pytest.mark.parametrize("placement", ["under", "before"])
@pytest.mark.parametrize("target", [-21.0, -24.0, -29.0])
def test_levels_are_those_asked_for(placement: str, target: float) -> None:
    """A sound that is not where it was meant to be makes the task easier or impossible, and nobody would know."""
    rng = np.random.default_rng(1)
    turns, clip = conversation(rng), render("rain", 2 * SAMPLE_RATE, rng)
    under = placement == "under"
    stems = lay_under(SPEAKERS, turns, clip) if under else lay_before(SPEAKERS, turns, clip, 800, 0)
    mixed = mix(stems, STILL, target, rng)
    gains = [turn.gain_db for turn in mixed]
    sounds = [
        s.sound * from_db(m.sound_gain_db) for s, m in zip(stems, mixed, strict=True) if m.sound_gain_db is not None
    ]
    user, assistant = (loudness(stem(stems, gains, who)) for who in ("user", "assistant"))
    sound = loudness(np.concatenate(sounds))
    assert user - sound == pytest.approx(-17 - target, abs=0.1)
    assert user - assistant == pytest.approx(0, abs=0.1)
    assert sound <= target + 0.01, "the peak limit may only lower it"
    for one, stems_of_turn in zip(mixed, stems, strict=True):
        expected = np.zeros(len(one.wave), np.float32)
        expected[stems_of_turn.lead :] = stems_of_turn.speech * from_db(one.gain_db)
        expected[: len(stems_of_turn.sound)] += stems_of_turn.sound * from_db(one.sound_gain_db or 0)
        assert np.abs(one.wave - expected).max() < 1e-5, "the wave is not the sum of its stems at the gains it reports"


def test_absolute_levels_where_the_peak_allows() -> None:
    """All differences right and all levels wrong would pass the other tests."""
    rng = np.random.default_rng(2)
    noise = [(0.01 * rng.standard_normal(SAMPLE_RATE)).astype(np.float32) for _ in range(2)]  # low peaks
    stems = lay_under(["user", "user"], noise, render("engine", SAMPLE_RATE, rng))
    mixed = mix(stems, STILL, -29.0, rng)
    assert loudness(stem(stems, [turn.gain_db for turn in mixed], "user")) == pytest.approx(-17, abs=0.1)


def test_jitter_stays_in_its_range_and_moves_classes_apart() -> None:
    """Levels that never vary are a cue; a jitter shared by the classes would leave their distance fixed."""
    rng = np.random.default_rng(3)
    turns, clip = conversation(rng), render("rain", 2 * SAMPLE_RATE, rng)
    distances = []
    for _ in range(60):
        stems = lay_under(["user"] * 3, turns, clip)
        mixed = mix(stems, Levels(), -29.0, rng)
        assert mixed[0].sound_gain_db is not None
        sound = np.concatenate([s.sound for s in stems]) * from_db(mixed[0].sound_gain_db)
        distances.append(loudness(stem(stems, [t.gain_db for t in mixed], "user")) - loudness(sound))
    assert 8 - 0.01 <= min(distances) < 10 < 14 < max(distances) <= 16 + 0.01


def test_a_speaker_has_one_gain() -> None:
    """A gain per turn would make sad turns as loud as angry ones: level is part of the style."""
    rng = np.random.default_rng(4)
    mixed = mix(lay_under(SPEAKERS, conversation(rng), render("dog", 16_000, rng)), Levels(), -29.0, rng)
    assert mixed[0].gain_db == mixed[2].gain_db != mixed[1].gain_db
    assert len({turn.sound_gain_db for turn in mixed}) == 1


def test_the_peak_limit_is_kept_by_one_factor() -> None:
    """A clipped sample is distortion that no recording has; a limit per turn would bend the levels between turns."""
    rng = np.random.default_rng(5)
    turns = conversation(rng)
    turns[1][5_000] = 1.0  # a click: at -17 LUFS far above full scale
    mixed = mix(lay_under(SPEAKERS, turns, render("bell", 16_000, rng)), STILL, -21.0, rng)
    highest = max(peak(turn.wave) for turn in mixed)
    assert highest <= from_db(-0.5) + 1e-6
    assert highest == pytest.approx(from_db(-0.5), abs=0.15), "lowered further than needed"
    assert max(turn.peak_db for turn in mixed) == pytest.approx(20 * np.log10(highest), abs=1e-4)


def test_master_level() -> None:
    """The master is of the whole mix, as Divide-and-Remaster's -27."""
    rng = np.random.default_rng(6)
    levels = Levels(jitter=0, master=-27)
    mixed = mix(lay_under(SPEAKERS, conversation(rng), render("rain", 16_000, rng)), levels, -29.0, rng)
    assert loudness(np.concatenate([turn.wave for turn in mixed])) == pytest.approx(-27, abs=0.1)


def test_a_loop_runs_on_across_turns() -> None:
    """Phase that starts anew with each turn tells the model where turns begin; the published dialogues don't do it.

    The sound is found in the mix by cross-correlation with its clip, not read from what the mixer reports.
    """
    rng = np.random.default_rng(7)
    clip = (0.1 * rng.standard_normal(SAMPLE_RATE)).astype(np.float32)
    turns = [voiced(seconds, rng) for seconds in (0.61, 1.73, 0.35)]
    mixed = mix(lay_under(["user"] * 3, turns, clip), STILL, -21.0, rng)
    start = 0
    for turn in mixed:
        stretch = turn.wave[:5_000]
        twice = np.concatenate([clip, clip])
        correlation = np.correlate(twice[: len(clip) + 4_999], stretch, mode="valid")
        found = int(np.abs(correlation).argmax())
        assert found == start % len(clip) == turn.offset
        start += len(turn.wave)


def test_a_loop_has_no_gap_and_its_period_is_the_clip() -> None:
    """A gap or a sample lost at the seam would be a beat that no recording has."""
    clip = np.arange(1000, dtype=np.float32)
    assert np.array_equal(looped(clip, 0, 3000), np.tile(clip, 3))
    assert np.array_equal(looped(clip, 2750, 500), np.tile(clip, 4)[2750:3250])


def test_crossfade_keeps_the_power_at_the_seam() -> None:
    """Where the end fades into the beginning, noise must neither dip nor swell."""
    rng = np.random.default_rng(8)
    clip = rng.standard_normal(160_000).astype(np.float32)
    period = loop_of(clip, 80_000)
    assert len(period) == 80_000
    assert np.sqrt(np.mean(period**2)) == pytest.approx(1, abs=0.02)
    assert period[0] == pytest.approx(clip[80_000], abs=1e-3), "the loop's beginning follows on its end"
    assert loop_of(clip, 0) is clip


def test_a_sound_before_the_words_stands_alone() -> None:
    """Spliced means before: no word may be covered, and no other turn touched."""
    rng = np.random.default_rng(9)
    turns, clip = conversation(rng), render("phone", 8_000, rng)
    mixed = mix(lay_before(SPEAKERS, turns, clip, 400, 2), STILL, -21.0, rng)
    assert [len(turn.wave) - len(wave) for turn, wave in zip(mixed, turns, strict=True)] == [0, 0, 8_400]
    assert np.allclose(mixed[2].wave[8_400:], turns[2] * from_db(mixed[2].gain_db), atol=1e-6)
    assert not mixed[2].wave[8_000:8_400].any()
    assert [turn.sound_gain_db is None for turn in mixed] == [True, True, False]


def test_plain_sum_clips_as_the_published_dialogues_do() -> None:
    """The demo's mode adds up and clips; a gain in it would be another mode."""
    speech, sound = np.full(800, 0.8, np.float32), np.full(500, 0.5, np.float32)
    (turn,) = mix_plainly([Stems("user", speech, sound)])
    assert np.array_equal(turn.wave[:500], np.ones(500, np.float32))
    assert np.array_equal(turn.wave[500:], speech[500:])


def test_what_cannot_be_levelled_is_refused() -> None:
    """Silence needs an infinite gain, NaN spreads to every turn: both must be told, with the stem's name."""
    rng = np.random.default_rng(10)
    turns, quiet = conversation(rng), np.zeros(16_000, np.float32)
    with pytest.raises(Reject, match="the sound is silent") as error:
        mix(lay_under(SPEAKERS, turns, quiet), STILL, -21.0, rng)
    assert error.value.reason == "mix_loudness"
    with pytest.raises(Reject, match="the speech of assistant is silent"):
        mix(lay_under(SPEAKERS, [turns[0], quiet, turns[2]], turns[0]), STILL, -21.0, rng)
    with pytest.raises(Reject, match="more than 40 dB"):
        mix(lay_under(SPEAKERS, turns, 0.01 * turns[1]), STILL, -1.0, rng)
    broken = turns[0].copy()
    broken[100] = np.nan
    with pytest.raises(Reject) as error:
        mix(lay_under(SPEAKERS, [broken, *turns[1:]], turns[1]), STILL, -21.0, rng)
    assert error.value.reason in ("mix_loudness", "mix_peak")


def test_a_thousand_mixes_hold_no_clipped_sample() -> None:
    """Clipping is what the published dialogues have and ours must not; the limit holds after rounding to 16 bits."""
    rng = np.random.default_rng(11)
    clips = [render(name, SAMPLE_RATE, rng) for name in SOUND_NAMES]
    speech = [voiced(rng.uniform(0.2, 0.6), rng, rng.uniform(0.02, 1)) for _ in range(40)]
    limit = from_db(-0.5) + 1 / 32767
    limited = 0
    for number in range(1000):
        turns = [speech[chosen] for chosen in rng.integers(len(speech), size=3)]
        clip = clips[number % len(clips)]
        before = number % 2 == 1
        stems = lay_before(SPEAKERS, turns, clip[:4000], 0, 0) if before else lay_under(SPEAKERS, turns, clip)
        mixed = mix(stems, Levels(), float(rng.choice([-21, -24, -29])), rng)
        highest = max(float(np.abs(np.round(turn.wave * 32767) / 32767).max()) for turn in mixed)
        assert highest <= limit
        limited += highest > from_db(-0.6)
    assert 50 < limited < 1000, "the limit was hardly ever met, so nothing was tested"

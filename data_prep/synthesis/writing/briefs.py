"""From settings to briefs: topics, splits, styles and sounds by the script's number. Pure: nothing is written yet."""

import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from data_prep.synthesis.contracts import Brief, Sound
from data_prep.synthesis.writing.deepdialogue import world
from data_prep.synthesis.writing.draws import rounds, split_sequence
from data_prep.synthesis.writing.quickstart import quickstart_briefs
from data_prep.synthesis.writing.respoken import RECIPE as RESPOKEN
from data_prep.synthesis.writing.respoken import respoken_briefs
from data_prep.synthesis.writing.settings import SUBSETS, WritingSettings
from data_prep.synthesis.writing.topics import read_sounds, read_topics
from omnichat.dialogue import EMOTIONS, GENDERS, PITCHES, SPEEDS, Style

# The lines of the Fano plane: seven triples of seven emotions, each emotion in three of them and each pair in one. So
# seven scripts of three branches hold every emotion three times.
TRIPLES = tuple((n, (n + 1) % 7, (n + 3) % 7) for n in range(7))


def briefs(settings: WritingSettings, scripts: int, seed: int, splits: Mapping[str, float]) -> list[Brief]:
    """A brief for each script.

    The first n briefs of a longer run are the briefs of a run of n. In every split each topic, number of history
    turns, sound, emotion, speed, pitch and gender comes equally often, up to one round.

    Args:
        settings: what is to be written.
        scripts: how many.
        seed: of the run.
        splits: share of the scripts in each store split; they sum to 1.

    Raises:
        DataError: see `read_topics` and `read_sounds`.
        ValueError: shares that are no shares.
    """
    if not splits or any(not 0 < share <= 1 for share in splits.values()) or abs(sum(splits.values()) - 1) > 1e-6:
        raise ValueError(f"splits: shares above 0 that sum to 1, as in train: 0.9, test: 0.1; got {dict(splits)}")
    if settings.recipe == RESPOKEN:
        return respoken_briefs(settings.corpus, scripts, seed, split_sequence(splits))
    if settings.recipe == "quickstart":
        return quickstart_briefs(settings, scripts, seed, splits)
    subset = SUBSETS.get(settings.recipe, "emotion")
    sounds = {split: () if subset == "emotion" else read_sounds(subset, settings.captions, split) for split in splits}
    rng = np.random.default_rng([seed, zlib.crc32(settings.recipe.encode())])
    names = rounds(_topic_names(settings), rng.spawn(1)[0])
    streams = {split: _Streams(settings, sounds[split], rng.spawn(1)[0]) for split in splits}
    prescribed = settings.styles == "balanced" and settings.recipe != "deepdialogue"
    return [
        Brief(
            recipe=settings.recipe,
            number=number,
            split=split,
            topic=next(names),
            history_turns=next(streams[split].counts),
            sound=next(streams[split].sounds) if sounds[split] else None,
            start_emotion=next(streams[split].emotions) if settings.recipe == "deepdialogue" else None,
            styles=next(streams[split].styles) if prescribed else (),
        )
        for number, split in zip(range(scripts), split_sequence(splits), strict=False)
    ]


class _Streams:
    """What is drawn for the scripts of one split."""

    def __init__(self, settings: WritingSettings, sounds: Sequence[Sound], rng: np.random.Generator) -> None:
        own = rng.spawn(4)
        self.counts = rounds(settings.history_turns, own[0])
        self.sounds = rounds(sounds, own[1])
        self.styles = _style_triples(own[2]) if settings.branches == 3 else _single_styles(own[2])
        self.emotions = rounds(tuple(world()["emotions"]), own[3])


def _topic_names(settings: WritingSettings) -> Sequence[str]:
    if settings.recipe == "deepdialogue" and settings.topics is None:
        return tuple(world()["domains"])
    return [topic.name for topic in read_topics(settings.topics, settings.writer == "template")]


def _style_triples(rng: np.random.Generator) -> Iterator[tuple[Style, ...]]:
    """Three styles that differ in emotion, speed and pitch; of one gender, as they are one speaker's."""
    genders = rounds(GENDERS, rng)
    for triple in rounds(TRIPLES, rng):
        gender = next(genders)
        emotions, speeds, pitches = rng.permutation(triple), rng.permutation(SPEEDS), rng.permutation(PITCHES)
        yield tuple(
            Style(gender, EMOTIONS[emotion], str(speed), str(pitch))
            for emotion, speed, pitch in zip(emotions, speeds, pitches, strict=True)
        )


def _single_styles(rng: np.random.Generator) -> Iterator[tuple[Style, ...]]:
    genders, emotions, speeds, pitches = (rounds(values, rng) for values in (GENDERS, EMOTIONS, SPEEDS, PITCHES))
    while True:
        yield (Style(next(genders), next(emotions), next(speeds), next(pitches)),)

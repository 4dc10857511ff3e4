"""Briefs: what scripts are written from."""

from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from data_prep.synthesis.writing.briefs import briefs
from data_prep.synthesis.writing.settings import WritingSettings
from omnichat.dialogue import EMOTIONS, PITCHES, SPEEDS, DataError

SPLITS = {"train": 0.8, "val": 0.1, "test": 0.1}


@pytest.mark.parametrize("split", SPLITS)
def test_styles_are_balanced_in_every_split(split: str) -> None:
    """A guess by frequency would otherwise beat a deaf model's chance, and the test's majority would flatter it."""
    own = [brief for brief in briefs(WritingSettings(), 700, 0, SPLITS) if brief.split == split]
    for field, values in (("emotion", EMOTIONS), ("speed", SPEEDS), ("pitch", PITCHES)):
        counts = Counter(getattr(style, field) for brief in own for style in brief.styles)
        assert set(counts) == set(values)
        assert max(counts.values()) - min(counts.values()) <= 1, field
    for brief in own:
        assert len({style.gender for style in brief.styles}) == 1
        assert len({style.emotion for style in brief.styles}) == 3


def test_a_longer_run_goes_on_where_a_shorter_one_ended() -> None:
    """Asking for more scripts would otherwise throw away those that are paid for, and move them between splits."""
    settings = WritingSettings(recipe="sharechat_audio")
    assert briefs(settings, 300, 7, SPLITS)[:90] == briefs(settings, 90, 7, SPLITS)
    assert briefs(settings, 30, 8, SPLITS) != briefs(settings, 30, 7, SPLITS)


def test_splits_have_their_shares_even_of_a_short_run() -> None:
    """A test split without scripts is found only after hours of speaking."""
    for count in (10, 57, 400):
        counts = Counter(brief.split for brief in briefs(WritingSettings(), count, 0, SPLITS))
        assert all(abs(counts[split] - share * count) < 1 for split, share in SPLITS.items())
    with pytest.raises(ValueError, match="sum to 1"):
        briefs(WritingSettings(), 10, 0, {"train": 0.8})


def test_topics_and_captions_of_the_user(tmp_path: Path) -> None:
    """A file with a mistake must be told by its line, not ignored."""
    topics = tmp_path / "topics.txt"
    topics.write_text("fishing\n\nstamps\n")
    settings = WritingSettings(writer="llm", topics=topics, styles="free")
    assert {brief.topic for brief in briefs(settings, 4, 0, {"train": 1.0})} == {"fishing", "stamps"}
    with pytest.raises(DataError, match="no topic has kind and words"):
        briefs(WritingSettings(topics=topics), 4, 0, {"train": 1.0})

    captions = tmp_path / "captions.csv"
    captions.write_text(
        'audiocap_id,youtube_id,start_time,caption\n1,abc,0,"rain, then thunder"\n2,def,3,a dog barks\n'
    )
    settings = WritingSettings(recipe="sharechat_audio", captions=captions)
    sounds = {brief.sound.caption: brief.sound.clip for brief in briefs(settings, 4, 0, {"train": 1.0}) if brief.sound}
    assert sounds == {"rain, then thunder": "abc", "a dog barks": "def"}
    captions.write_text("audiocap_id,youtube_id,start_time,caption\n1,abc,0,\n")
    with pytest.raises(DataError, match=r"captions.csv: clip\(s\) 'abc' have no caption"):
        briefs(
            WritingSettings(recipe="sharechat_audio", captions=captions.rename(tmp_path / "2-captions.csv")),
            1,
            0,
            {"a": 1},
        )


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"history_turns": (5,)}, "even numbers"),
        ({"history_turns": (40,)}, "20 at most"),
        ({"captions": "x.csv"}, "leave it out"),
        ({"styles": "free"}, "styles=balanced"),
        ({"recipe": "quickstart", "writer": "llm"}, "writer=template"),
    ],
)
def test_settings_that_cannot_work_are_told_at_once(wrong: dict[str, object], hint: str) -> None:
    """They would otherwise end in ten attempts at each of thousands of scripts."""
    with pytest.raises(ValidationError, match=hint):
        WritingSettings.model_validate(wrong)

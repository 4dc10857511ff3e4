"""Moments of two-track dialogues: which event each is, and that the right sound is heard."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from omnichat.data.corpora.interactspeech import RATE
from omnichat.data.moments import CLIP, Moments, moments_of, timeline
from omnichat.data.store import write_store
from omnichat.dialogue import AudioRef, DataError, Dialogue, Turn

SAMPLE = Path(__file__).parents[3] / "shared" / "samples" / "interactspeech"


def spoken(folder: Path, times: list[tuple[str, float, float]]) -> Dialogue:
    """A dialogue with turns (role, start, stop) in seconds; each turn is one level, 0.1 of its number."""
    turns = []
    for number, (role, start, stop) in enumerate(times, 1):
        path = folder / f"{number}.wav"
        length = round((stop - start) * 16_000)
        soundfile.write(path, np.full(length, number / 10, dtype=np.float32), 16_000, subtype="FLOAT")
        meta = {"start": str(round(start * RATE)), "stop": str(round(stop * RATE))}
        turns.append(Turn(role, "words", audio=AudioRef(str(path), length), meta=meta))  # type: ignore[arg-type]
    return Dialogue("d", tuple(turns))


U, A = "user", "assistant"


def test_events_follow_from_the_timeline(tmp_path: Path) -> None:
    """The definitions of the table in docs/interaction.md, each once."""
    dialogue = spoken(
        tmp_path,
        [
            (U, 0, 1.8),
            (A, 2.2, 4),  # answers
            (U, 3.7, 7.8),  # cuts in, and is long enough to have a middle of its own
            (A, 6.6, 7.0),  # listens
            (A, 8, 9),  # answers: the backchannel took no floor
            (A, 9.2, 10),  # resumes
            (U, 9.8, 11),  # cuts in
        ],
    )
    found = [(round(moment.sample / 16_000, 2), moment.event, moment.role) for moment in moments_of(dialogue)]
    assert found == [
        (2.2, "turn_taking", A),
        (3.7, "interruption", U),
        (6.6, "backchannel", A),
        (8.0, "turn_taking", A),
        (9.2, "continue", A),
        (9.8, "interruption", U),
    ]


def test_the_middle_of_a_long_turn_is_a_moment(tmp_path: Path) -> None:
    """Without moments at which nothing happens, a model would find events everywhere."""
    found = moments_of(spoken(tmp_path, [(U, 0, 3), (A, 3.5, 4.5)]))
    assert found[0].sample == 24_000
    assert [moment.event for moment in found] == ["continue", "turn_taking"]


def test_both_speakers_are_heard_at_their_places(tmp_path: Path) -> None:
    """A clip that is shifted, or in which a speaker is missing, says nothing of overlaps."""
    dialogue = spoken(tmp_path, [(U, 0, 2), (A, 1.5, 3)])
    write_store(tmp_path, {"train": [dialogue]}, "x", "", "")
    moments = Moments(tmp_path / "train.jsonl")
    place = next(n for n, moment in enumerate(moments.found) if moment.event == "interruption")
    wave = moments.clip(place)
    assert wave.shape == (CLIP,)
    centre = CLIP // 2
    assert wave[centre - 10] == pytest.approx(0.1)  # one speaks
    assert wave[centre + 4000] == pytest.approx(0.3)  # both
    assert wave[centre + 9000] == pytest.approx(0.2)  # the other
    assert (wave[:400] == 0).all()  # before the beginning
    assert len(wave[centre:]) == CLIP - centre
    assert wave[-1] == 0 or moments.found[place].sample + CLIP // 2 < 3 * 16_000


def test_moments_of_all_dialogues_of_a_store(tmp_path: Path) -> None:
    """Fails when those of the last dialogue only are there, or a clip is another dialogue's."""
    made = []
    for number, times in enumerate(([(U, 0, 2), (A, 2, 3)], [(U, 0, 1), (A, 1, 4), (U, 3, 5), (A, 6, 7)])):
        (tmp_path / str(number)).mkdir()
        made.append(replace(spoken(tmp_path / str(number), times), id=f"d{number}"))  # type: ignore[arg-type]
    write_store(tmp_path, {"train": made}, "x", "", "")
    moments = Moments(tmp_path / "train.jsonl")
    found = [(moment.dialogue, moment.row, moment.event) for moment in moments.found if moment.event != "continue"]
    assert found == [
        ("d0", 0, "turn_taking"),
        ("d1", 1, "turn_taking"),
        ("d1", 1, "interruption"),
        ("d1", 1, "turn_taking"),
    ]
    assert len(moments) == len(moments.found) == sum(len(moments_of(one)) for one in made)
    assert {moment.row for moment in Moments(tmp_path / "train.jsonl", first=1).found} == {0}
    onsets = [n for n, moment in enumerate(moments.found) if moment.event != "continue"]
    after = [moments.clip(n)[CLIP // 2 + 2_000] for n in (onsets[2], onsets[0], onsets[1])]
    assert after == pytest.approx([0.5, 0.2, 0.2])


def test_a_fault_of_the_store_is_named_once(tmp_path: Path) -> None:
    """Fails when its place stands there twice, as of two faults."""
    write_store(tmp_path, {"train": [spoken(tmp_path, [(U, 0, 1)])]}, "x", "", "")
    with pytest.raises(DataError, match=r"no_assistant_turn") as caught:
        Moments(tmp_path / "train.jsonl")
    assert str(caught.value).count("train.jsonl:1") == 1


def test_a_store_without_a_timeline_is_named(tmp_path: Path) -> None:
    """All turns that lack times, or sound, with their place in the store."""
    dialogue = spoken(tmp_path, [(U, 0, 2), (A, 2, 3)])
    write_store(tmp_path, {"train": [dialogue]}, "x", "", "")
    path = tmp_path / "train.jsonl"
    record = json.loads(path.read_text())
    del record["turns"][1]["audio"]
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(DataError, match=r"train.jsonl:1.*turn 1.*is not spoken"):
        Moments(path)
    kept = dict(record["turns"][1]["meta"])
    record["turns"][1]["meta"] = kept | {"stop": str(10**15)}  # a timeline of years, which no memory holds
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(DataError, match=r"turn 1.*stops at 1000000000000000.*\[bad_times\]"):
        Moments(path)
    del record["turns"][1]["meta"]
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(DataError, match=r"turn 1.*has no start and stop"):
        Moments(path)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the published sample of InteractSpeech is not on this machine")
def test_the_published_dialogue() -> None:
    """One interruption, at the time that its information.json gives, then answers."""
    from omnichat.data.corpora.interactspeech import CORPUS
    from omnichat.data.corpora.reading import Choices, read_all

    (dialogue,) = read_all(CORPUS, SAMPLE, Choices()).dialogues
    onsets = [moment for moment in moments_of(dialogue) if moment.event != "continue"]
    assert [moment.event for moment in onsets] == ["interruption", "turn_taking", "turn_taking", "turn_taking"]
    assert onsets[0].sample == 104_944 * 16_000 // RATE
    assert timeline(dialogue)[0].stop > timeline(dialogue)[1].start

"""DailyTalk spoken anew."""

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_prep.synthesis.backends.embedded.espeak import Espeak
from data_prep.synthesis.backends.gates import GateSettings
from data_prep.synthesis.backends.speech import SpeechSettings
from data_prep.synthesis.contracts import Mixed, Script, Speech, ToMix, Utterance, Voice
from data_prep.synthesis.mixing.mix_stage import MixStage
from data_prep.synthesis.mixing.pack import pack
from data_prep.synthesis.mixing.settings import MixSettings
from data_prep.synthesis.speak_stage import SpeakStage
from data_prep.synthesis.stage import Attempt, Reject
from data_prep.synthesis.writing.briefs import briefs
from data_prep.synthesis.writing.plans import plans
from data_prep.synthesis.writing.script_stage import ScriptStage
from data_prep.synthesis.writing.settings import WritingSettings
from omnichat.audio import load_audio
from omnichat.data.corpora.dailytalk import listed
from omnichat.data.store import Store
from omnichat.metrics.counterfactual import counterfactual

LISTS = Path(__file__).parents[5] / "shared" / "samples" / "dailytalk"
SPLITS = {"train": 0.8, "val": 0.05, "test": 0.15}
VOICES = [Voice(name=name, gender=gender) for name, gender in (("a", "male"), ("b", "female"), ("c", "male"))]

LINES = """\
0_1_d1|1|{}|hello there. how are you?|happiness
1_0_d1|0|{}|i am fine.|none
2_1_d1|1|{}|my dog is gone!|sadness
3_0_d1|0|{}|oh no.|sadness
4_0_d1|0|{}|when did you last see him?|none
0_0_d2|0|{}|nobody answers me.|anger
2_1_d2|1|{}|i do.|none
"""


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two dialogues in the form of the lists: one ends in two turns of one speaker, of one a turn is missing."""
    (tmp_path / "train_frame.txt").write_text(LINES)
    return tmp_path


def write(settings: WritingSettings, number: int) -> Script:
    """The script of one brief."""
    brief = briefs(settings, number + 1, 0, {"train": 1.0})[number]
    attempt = Attempt(0, np.random.default_rng(0), Path("unused"))
    return asyncio.run(ScriptStage(settings).run(brief, attempt))


def test_a_script_is_the_dialogue(corpus: Path) -> None:
    """Words, emotions and genders are the corpus's; the current turn is the last one that is answered."""
    settings = WritingSettings(recipe="dailytalk_respoken", corpus=corpus)
    found = {brief.topic: brief.number for brief in briefs(settings, 2, 0, {"train": 1.0})}
    script = write(settings, found["dailytalk 1"])
    assert [line.text for line in script.history] == ["hello there. how are you?", "i am fine."]
    assert script.current == "my dog is gone!"
    (branch,) = script.branches
    assert (branch.style.gender, branch.style.emotion, branch.style.speed) == ("female", "sad", None)
    assert branch.reply.text == "oh no."
    assert (branch.reply.style.gender, branch.reply.style.emotion) == ("male", "sad")
    (plan,) = plans(script, VOICES, 0)
    assert plan.voices["user"].gender == "female"
    assert plan.voices["assistant"].gender == "male"
    with pytest.raises(Reject, match="missing") as error:
        write(settings, found["dailytalk 2"])
    assert error.value.reason == "turns_count"


def test_further_emotions_are_branches_that_are_answered_in_the_same_words(corpus: Path) -> None:
    """The counterfactual score asks whether another emotion changes the answer: its emotion must differ, nothing else.

    With replies that are alike in emotion too there is nothing to tell apart, and no group is scored.
    """
    settings = WritingSettings(recipe="dailytalk_respoken", corpus=corpus, also_as=("sad", "angry", "happy"))
    number = next(brief.number for brief in briefs(settings, 2, 0, {"train": 1.0}) if brief.topic == "dailytalk 1")
    script = write(settings, number)
    assert [branch.style.emotion for branch in script.branches] == ["sad", "angry", "happy"]
    assert len({branch.reply.text for branch in script.branches}) == 1
    assert [branch.reply.style.emotion for branch in script.branches] == ["sad", "neutral", "happy"]
    assert len({replace(branch.reply.style, emotion=None) for branch in script.branches}) == 1
    assert counterfactual(["one"] * 3, [(b.reply.style.emotion, b.reply.text) for b in script.branches], [("", "")] * 3)
    made = plans(script, VOICES, 0)
    assert len({plan.group for plan in made}) == 1
    assert len({plan.id for plan in made}) == 3
    assert settings.branches >= len(made)


def test_faults_are_told_before_anything_is_spoken(corpus: Path) -> None:
    """A run of hours must not end for want of a folder's name or of dialogues."""
    with pytest.raises(ValueError, match=r"writing\.corpus"):
        briefs(WritingSettings(recipe="dailytalk_respoken"), 2, 0, {"train": 1.0})
    with pytest.raises(ValueError, match="train 2, val 0, test 0; ask for 2"):
        briefs(WritingSettings(recipe="dailytalk_respoken", corpus=corpus), 3, 0, {"train": 0.5, "test": 0.5})
    with pytest.raises(ValueError, match="also_as"):
        WritingSettings(recipe="dailytalk_respoken", also_as=("bored",))


def test_what_is_written_depends_on_the_words_and_not_on_the_folder(corpus: Path, tmp_path: Path) -> None:
    """A corpus that was moved must not be spoken again; one that was changed must."""
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "train_frame.txt").write_text(LINES)
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "train_frame.txt").write_text(LINES.replace("dog", "cat"))
    one, same, other = (
        ScriptStage(WritingSettings(recipe="dailytalk_respoken", corpus=folder)).identity()
        for folder in (corpus, moved, changed)
    )
    assert one == same != other


@pytest.mark.skipif(not LISTS.is_dir(), reason="needs ../shared/samples/dailytalk")
def test_the_real_lists() -> None:
    """500 dialogues in the corpus's own splits, each a script; the shares are those asked for while they last."""
    settings = WritingSettings(recipe="dailytalk_respoken", corpus=LISTS)
    found = briefs(settings, 500, 0, SPLITS)
    assert Counter(brief.split for brief in found) == {"train": 400, "val": 25, "test": 75}
    assert len({brief.topic for brief in found}) == 500
    tests = {int(brief.topic.split()[1]) for brief in found if brief.split == "test"}
    assert tests <= listed("test")
    stage = ScriptStage(settings)
    attempt = Attempt(0, np.random.default_rng(0), Path("unused"))
    emotions = Counter[str | None]()
    for brief in found:
        script = asyncio.run(stage.run(brief, attempt))
        assert len(script.history) + 2 <= brief.history_turns + 2
        emotions[script.branches[0].style.emotion] += 1
    assert emotions["neutral"] > 250, "most turns of DailyTalk have no emotion"
    assert len(emotions) >= 5
    assert Counter(brief.split for brief in briefs(settings, 2540, 0, SPLITS)) == {
        "train": 2192,
        "val": 128,
        "test": 220,
    }


def test_from_the_lists_to_a_store(corpus: Path, tmp_path: Path, espeak: Espeak) -> None:
    """The whole way: written, spoken, mixed, packed, and read as training reads it."""
    settings = WritingSettings(recipe="dailytalk_respoken", corpus=corpus)
    number = next(brief.number for brief in briefs(settings, 2, 0, {"train": 1.0}) if brief.topic == "dailytalk 1")
    blobs = tmp_path / "blobs"

    script = write(settings, number)

    async def make() -> Mixed:
        speak = SpeakStage(SpeechSettings(), GateSettings())
        await speak.open()
        try:
            (plan,) = plans(script, speak.speech.voices, 0)
            speech: list[Speech | None] = []
            for line in plan.lines:
                utterance = Utterance(text=line.text, style=line.style, voice=plan.voices[line.speaker])
                attempt = Attempt(0, np.random.default_rng(len(speech)), blobs)
                speech.append(await speak.run(utterance, attempt) if line.speaker == "user" else None)
            item = ToMix(plan=plan, speech=tuple(speech))
            return await MixStage(MixSettings()).run(item, Attempt(0, np.random.default_rng(0), blobs))
        finally:
            await speak.close()

    pack([asyncio.run(make())], blobs, tmp_path / "store", name="respoken", licence="CC BY-SA 4.0", source="tests")
    (dialogue,) = Store(tmp_path / "store" / "train")
    assert [turn.role for turn in dialogue.turns] == ["user", "assistant", "user", "assistant"]
    assert dialogue.scene["emotion"] == "sad"
    assert dialogue.scene["topic"] == "dailytalk 1"
    heard = [turn.audio for turn in dialogue.turns if turn.role == "user"]
    assert all(audio is not None and load_audio(audio).any() for audio in heard)
